"""NVIDIA's driver through ctypes: memory, copies and kernels of one GPU, for what ONNX Runtime has no operator for."""

import ctypes
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from penstock.engine.gpu.device import driver_names
from penstock.schemas.errors import ConfigError, InvariantError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger(__name__)

_out_pointer, _out_address, _out_int = POINTER(c_void_p), POINTER(c_uint64), POINTER(c_int)
# CUdeviceptr is 64 bits wide; handles are pointers. Names with _v2 are what cuda.h makes of those without.
_prototypes: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (_out_int,),
    "cuDeviceGet": (_out_int, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (_out_int, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_out_pointer, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (_out_pointer,),
    "cuStreamCreate": (_out_pointer, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuModuleLoadData": (_out_pointer, c_void_p),
    "cuModuleGetFunction": (_out_pointer, c_void_p, c_char_p),
    "cuModuleUnload": (c_void_p,),
    "cuMemAlloc_v2": (_out_address, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (_out_pointer, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}
# These return at once: to give up the interpreter lock for them would cost more than they take.
_short = frozenset({
    "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuLaunchKernel",
    "cuGetErrorString",
})  # fmt: skip
_major_attribute, _minor_attribute = 75, 76
_non_blocking = 1
_deinitialized = 4


class Driver:
    """The driver's library. A call that fails raises what its caller says, with the driver's own words."""

    def __init__(self, names: Sequence[str] = driver_names) -> None:
        """Raises ConfigError when there is no driver, or it finds no GPU."""
        for name in names:
            try:
                waiting, short = ctypes.CDLL(name), ctypes.PyDLL(name)
                break
            except OSError:
                continue
        else:
            raise ConfigError("there is no NVIDIA driver here (libcuda.so.1)")
        try:
            self._functions = {
                name: getattr(short if name in _short else waiting, name) for name in _prototypes
            }
        except AttributeError as error:
            raise ConfigError(f"the NVIDIA driver is too old: {error}") from error
        for name, function in self._functions.items():
            function.argtypes, function.restype = _prototypes[name], c_int
        self.call(ConfigError, "cuInit", 0)

    def call(self, kind: type[Exception], name: str, *arguments: Any) -> None:
        """Call a function of the driver; raises `kind` when it does not succeed."""
        status = self._functions[name](*arguments)
        if status:
            raise kind(f"{name}: {self.words(status)}")

    def status(self, name: str, *arguments: Any) -> int:
        """Call a function of the driver for what it answers; 0 is success."""
        return int(self._functions[name](*arguments))

    def words(self, status: int) -> str:
        """What the driver says of a status."""
        found = c_char_p()
        if self._functions["cuGetErrorString"](status, ctypes.byref(found)) or found.value is None:
            return f"CUDA error {status}"
        return f"{found.value.decode(errors='replace')} (CUDA error {status})"


class Gpu:
    """One GPU: what lies in its memory, and kernels on a stream of its own. One thread at a time, any thread.

    What has to do with memory, copies and kernels is called inside `with gpu.current():`. Setting up raises ConfigError, running raises InvariantError: a GPU that fails
    fails every later record too. What it holds is released by close(), or when nobody knows it any more.
    """

    def __init__(self, index: int, *, driver: Driver) -> None:
        """Shares the context that ONNX Runtime uses. Raises ConfigError when there is no such GPU."""
        self._driver = driver
        device = c_int()
        driver.call(ConfigError, "cuDeviceGet", ctypes.byref(device), index)
        self.name = f"cuda:{index}"
        self.model = self._model(device)
        """What it calls itself."""
        self.capability = self._attribute(device, _major_attribute), self._attribute(device, _minor_attribute)
        """Major and minor: (9, 0) is sm_90."""
        self._held = _Held(driver, device)
        self._finalizer = weakref.finalize(self, self._held.release)
        self._finalizer.atexit = False  # the process's end releases all, perhaps the driver before us
        context = c_void_p()
        driver.call(ConfigError, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._held.context = context
        with self.current():
            driver.call(ConfigError, "cuStreamCreate", ctypes.byref(self._held.stream), _non_blocking)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context the calling thread's, for as long as this lasts."""
        if not self._finalizer.alive:
            raise InvariantError(f"{self.name} was closed")
        self._driver.call(InvariantError, "cuCtxPushCurrent_v2", self._held.context)
        try:
            yield
        finally:
            self._driver.call(InvariantError, "cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))

    def load(self, image: bytes, *names: str) -> tuple[c_void_p, ...]:
        """The kernels of these names in a compiled image."""
        module = c_void_p()
        self._driver.call(ConfigError, "cuModuleLoadData", ctypes.byref(module), image)
        self._held.modules.append(module)
        functions = tuple(c_void_p() for _ in names)
        for name, function in zip(names, functions, strict=True):
            self._driver.call(
                ConfigError, "cuModuleGetFunction", ctypes.byref(function), module, name.encode()
            )
        return functions

    def allocate(self, size_bytes: int) -> c_uint64:
        """Memory on the GPU, not cleared."""
        address = c_uint64()
        self._driver.call(ConfigError, "cuMemAlloc_v2", ctypes.byref(address), max(size_bytes, 16))
        self._held.addresses.append(address)
        return address

    def put(self, array: NDArray[np.generic]) -> c_uint64:
        """A C-contiguous array's copy on the GPU, for good."""
        address = self.allocate(array.nbytes)
        if array.nbytes:
            # On the stream that will read it: a plain copy is only known to be done to those that follow it on its own.
            self._driver.call(
                ConfigError,
                "cuMemcpyHtoDAsync_v2",
                address,
                array.ctypes.data,
                array.nbytes,
                self._held.stream,
            )
            self._driver.call(ConfigError, "cuStreamSynchronize", self._held.stream)
        return address

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """An array that the GPU copies from and to by itself; not to be used after close()."""
        count = math.prod(shape)
        size_bytes = max(count * np.dtype(dtype).itemsize, 16)
        pointer = c_void_p()
        self._driver.call(ConfigError, "cuMemHostAlloc", ctypes.byref(pointer), size_bytes, 0)
        self._held.pointers.append(pointer)
        assert pointer.value is not None
        memory: Any = (ctypes.c_char * size_bytes).from_address(pointer.value)
        return np.frombuffer(memory, dtype=dtype, count=count).reshape(shape)

    def send(self, address: c_uint64, array: NDArray[np.float32]) -> None:
        """Begin to copy a page-locked, C-contiguous array to the GPU."""
        self._run("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self._held.stream)

    def fetch(self, array: NDArray[np.float32], address: c_uint64) -> None:
        """Begin to copy from the GPU into a page-locked, C-contiguous array."""
        self._run("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self._held.stream)

    def launch(
        self,
        kernel: c_void_p,
        *arguments: c_int | c_uint64,
        grid: tuple[int, int],
        block: tuple[int, int],
        shared_bytes: int = 0,
    ) -> None:
        """Begin to run a kernel, after all that was begun before."""
        pointers = (c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        self._run(
            "cuLaunchKernel", kernel, *grid, 1, *block, 1, shared_bytes, self._held.stream, pointers, None
        )

    def finish(self) -> None:
        """Wait until all that was begun is done."""
        self._run("cuStreamSynchronize", self._held.stream)

    def close(self) -> None:
        """Release all that is held; twice is once."""
        self._finalizer()

    def _run(self, name: str, *arguments: Any) -> None:
        status = self._driver.status(name, *arguments)
        if status:
            raise InvariantError(f"{self.name} has failed: {name}: {self._driver.words(status)}")

    def _model(self, device: c_int) -> str:
        name = ctypes.create_string_buffer(256)
        self._driver.call(ConfigError, "cuDeviceGetName", name, len(name), device)
        return name.value.decode(errors="replace")

    def _attribute(self, device: c_int, which: int) -> int:
        value = c_int()
        self._driver.call(ConfigError, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value


class _Held:
    """What is to be given back to the driver."""

    def __init__(self, driver: Driver, device: c_int) -> None:
        self._driver, self._device = driver, device
        self.context = c_void_p()
        self.stream = c_void_p()
        self.modules: list[c_void_p] = []
        self.addresses: list[c_uint64] = []
        self.pointers: list[c_void_p] = []

    def release(self) -> None:
        if self.context.value is None:
            return
        if self._give_back("cuCtxPushCurrent_v2", self.context):
            if self.stream.value is not None:
                self._give_back("cuStreamSynchronize", self.stream)
                self._give_back("cuStreamDestroy_v2", self.stream)
            for address in self.addresses:
                self._give_back("cuMemFree_v2", address)
            for pointer in self.pointers:
                self._give_back("cuMemFreeHost", pointer)
            for module in self.modules:
                self._give_back("cuModuleUnload", module)
            self._give_back("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))
        self._give_back("cuDevicePrimaryCtxRelease_v2", self._device)

    def _give_back(self, name: str, argument: Any) -> bool:
        status = self._driver.status(name, argument)
        if status not in (0, _deinitialized):
            logger.warning(
                "a GPU does not take back what it gave: %s: %s",
                name,
                self._driver.words(status),
                extra=LogCode.GPU_NOT_RELEASED.extra,
            )
        return status == 0
