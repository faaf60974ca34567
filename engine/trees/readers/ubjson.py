"""Universal Binary JSON as XGBoost writes it: typed arrays come as numpy arrays, everything else as in JSON."""

import struct
from typing import Any, Final

import numpy as np

_numbers: Final = {
    b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8",
}  # fmt: skip
_constants: Final = {b"Z": None, b"T": True, b"F": False}
_depth_max: Final = 64


def is_ubjson(data: bytes) -> bool:
    """Whether an object begins so, and no JSON text: a key's length comes first, or the count of members."""
    return data[:1] == b"{" and data[1:2] in (b"i", b"U", b"I", b"l", b"L", b"$", b"#")


def read_ubjson(data: bytes) -> Any:
    """The value in these bytes. Raises ValueError for anything malformed or cut off."""
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(data):
        raise ValueError("bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def take(self, count: int) -> bytes:
        end = self.place + count
        if count < 0 or end > len(self._data):
            raise ValueError("the bytes end before the value does")
        found = self._data[self.place : end]
        self.place = end
        return found

    def value(self, marker: bytes, depth: int) -> Any:
        if depth > _depth_max:
            raise ValueError("values are nested too deep")
        if marker in _numbers:
            return self._number(marker)
        if marker in _constants:
            return _constants[marker]
        if marker == b"S":
            return self._text()
        if marker == b"C":
            return self.take(1).decode("ascii")
        if marker == b"{":
            return self._object(depth)
        if marker == b"[":
            return self._array(depth)
        raise ValueError(f"a value begins with byte {marker!r}")

    def _number(self, marker: bytes) -> int | float:
        kind = np.dtype(_numbers[marker])
        found: int | float = np.frombuffer(self.take(kind.itemsize), dtype=kind)[0].item()
        return found

    def _length(self) -> int:
        marker = self.take(1)
        if marker == b"L":
            length: int = struct.unpack(">q", self.take(8))[0]
        elif marker in (b"i", b"U", b"I", b"l"):
            length = int(self._number(marker))
        else:
            raise ValueError("a length is no number")
        if length < 0:
            raise ValueError("a length is negative")
        return length

    def _text(self) -> str:
        return self.take(self._length()).decode("utf-8")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._data[self.place : self.place + 1] != b"}":
            name = self._text()
            found[name] = self.value(self.take(1), depth + 1)
        self.place += 1
        return found

    def _array(self, depth: int) -> Any:
        marker = self._data[self.place : self.place + 1]
        if marker == b"$":
            self.place += 1
            kind = self.take(1)
            if kind not in _numbers or self.take(1) != b"#":
                raise ValueError("an array is of a type that is not known")
            dtype = np.dtype(_numbers[kind])
            values = np.frombuffer(self.take(self._length() * dtype.itemsize), dtype=dtype)
            return values.astype(dtype.newbyteorder("="))
        if marker == b"#":
            self.place += 1
            count = self._length()
            if count > len(self._data) - self.place:  # an element takes a byte at least
                raise ValueError("an array is longer than the bytes")
            return [self.value(self.take(1), depth + 1) for _ in range(count)]
        items = []
        while self._data[self.place : self.place + 1] != b"]":
            items.append(self.value(self.take(1), depth + 1))
        self.place += 1
        return items
