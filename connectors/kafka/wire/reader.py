"""The parts of a Kafka message, one after the other."""

import struct


class Reader:
    """Walks through an answer. Every method raises ValueError where it ends too soon."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        self._at += size
        if self._at > len(self._data):
            raise ValueError("an answer that ends too soon")

    def number(self, form: str) -> int:
        """A number, written as `struct` has it."""
        self.skip(struct.calcsize(form))
        return int(struct.unpack_from(form, self._data, self._at - struct.calcsize(form))[0])

    def text(self) -> str:
        """A string behind its length in two bytes; "" for none."""
        return self._taken(self.number(">h"))

    def bytes(self) -> bytes:
        """Bytes behind their length in four; none for -1."""
        size = max(self.number(">i"), 0)
        self.skip(size)
        return self._data[self._at - size : self._at]

    def short_text(self) -> str:
        """A string as newer messages have it."""
        return self._taken(self._varint() - 1)

    def length(self) -> int:
        """How many follow, as newer messages have it."""
        return max(self._varint() - 1, 0)

    def tags(self) -> None:
        """Pass over what newer messages may add."""
        for _ in range(self._varint()):
            self._varint()
            self.skip(self._varint())

    def _taken(self, size: int) -> str:
        self.skip(max(size, 0))
        return self._data[self._at - max(size, 0) : self._at].decode()

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.number(">B")
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
            if shift > 28:
                raise ValueError("a length that is none")
