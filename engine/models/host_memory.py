"""Page-locked memory: a GPU reads it by itself, while anything else is copied into the driver's own buffer first."""

import ctypes
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.models.device import cuda_driver
from schemas.errors import ConfigError

_portable = 1  # page-locked for every context of the process, ONNX Runtime's too


def page_locked(shape: Sequence[int], dtype: DTypeLike, *, cuda: int) -> NDArray[Any]:
    """An array of page-locked memory near this GPU, given back when the last view of it is gone.

    Raises ConfigError where the CUDA driver does not give it.
    """
    count = math.prod(shape)
    size_bytes = max(1, count * np.dtype(dtype).itemsize)
    driver = cuda_driver()
    if driver is None:
        raise ConfigError("there is no CUDA driver here")
    address = ctypes.c_void_p()
    context = _primary_context(driver, cuda)
    try:
        with _current(driver, context):
            _check(driver.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(size_bytes), _portable))
    except ConfigError:
        _release(driver, cuda)
        raise
    assert address.value is not None
    memory: Any = (ctypes.c_char * size_bytes).from_address(address.value)
    # The process takes its memory with it; the driver may be gone by then.
    weakref.finalize(memory, _give_back, driver, context, cuda, address).atexit = False
    return np.frombuffer(memory, dtype=dtype, count=count).reshape(tuple(shape))


def _give_back(driver: Any, context: ctypes.c_void_p, cuda: int, address: ctypes.c_void_p) -> None:
    with _current(driver, context):
        driver.cuMemFreeHost(address)
    _release(driver, cuda)


def _primary_context(driver: Any, cuda: int) -> ctypes.c_void_p:
    """The context that ONNX Runtime works in as well; held until `_release`."""
    context = ctypes.c_void_p()
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), _number(driver, cuda)))
    return context


def _release(driver: Any, cuda: int) -> None:
    driver.cuDevicePrimaryCtxRelease_v2(_number(driver, cuda))


def _number(driver: Any, cuda: int) -> ctypes.c_int:
    number = ctypes.c_int()
    _check(driver.cuDeviceGet(ctypes.byref(number), cuda))
    return number


@contextmanager
def _current(driver: Any, context: ctypes.c_void_p) -> Iterator[None]:
    """The context in force on this thread, as long as this lasts."""
    _check(driver.cuCtxPushCurrent_v2(context))
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _check(code: int) -> None:
    if code:
        raise ConfigError(f"the CUDA driver refuses page-locked memory (its error {code})")
