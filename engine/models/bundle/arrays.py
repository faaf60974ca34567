"""Arrays as .npy bytes: the same bytes for the same array, and nothing but numbers comes back."""

import io

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

_allowed = tuple(np.dtype(name) for name in ("<f4", "<f8", "<i8"))


def to_npy(array: NDArray[np.generic]) -> bytes:
    """The array in the .npy format, version 1.0, C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes, *, name: str) -> NDArray[np.generic]:
    """The array in .npy bytes, read-only. Raises ConfigError naming the file when they are anything else.

    The header is believed only when it fits the number of bytes that follow, so that it cannot ask for memory.
    """
    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise ConfigError(f"{name} is not a .npy file of version 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(buffer)
    except ValueError as error:
        raise ConfigError(f"{name} is not a .npy file") from error
    body = data[buffer.tell() :]
    count = 1
    for extent in shape:
        count *= extent
    if (
        fortran_order
        or dtype not in _allowed
        or count * dtype.itemsize != len(body)
        or min(shape, default=0) < 0
    ):
        raise ConfigError(f"{name} does not hold a plain array of float32, float64 or int64")
    return np.frombuffer(body, dtype=dtype).reshape(shape)
