"""Arrays as .npy bytes: the same bytes for the same array, and nothing but numbers comes back."""

import io
import math
import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

_magic: Final = b"\x93NUMPY\x01\x00"
_header: Final = re.compile(
    rb"\{'descr': '(?P<dtype><f4|<f8|<i8)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>|[0-9]{1,18},|[0-9]{1,18}(?:, [0-9]{1,18}){1,7})\), \} *\n"
)


def to_npy(array: NDArray[np.generic]) -> bytes:
    """The array in the .npy format, version 1.0, C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes, *, name: str) -> NDArray[np.generic]:
    """The array in .npy bytes, read-only. Raises ConfigError naming the file when they are anything else.

    The header is matched, not evaluated as numpy does (a Python literal nested deeply enough ends the parser), and believed
    only when it fits the number of bytes that follow, so that it cannot ask for memory.
    """
    if not data.startswith(_magic):
        raise ConfigError(f"{name} is not a .npy file of version 1.0")
    begin = len(_magic) + 2
    end = begin + int.from_bytes(data[len(_magic) : begin], "little")
    header = _header.fullmatch(data[begin:end])
    if header is None:
        raise ConfigError(f"{name} does not hold a plain array of float32, float64 or int64")
    dtype = np.dtype(header["dtype"].decode())
    shape = tuple(int(extent) for extent in header["shape"].split(b",") if extent.strip())
    body = data[end:]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ConfigError(f"{name} does not hold a plain array of float32, float64 or int64")
    return np.frombuffer(body, dtype=dtype).reshape(shape)
