"""Which processors are here, asked of the driver and of nothing louder."""

import ctypes
from dataclasses import dataclass
from typing import Any

from penstock.schemas.errors import ConfigError
from penstock.schemas.whole_number import whole_number

driver_names = ("libcuda.so.1", "libcuda.so")
_title_bytes_max = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Where a session runs."""

    cuda: int | None = None
    """Number of the GPU; None is the CPU."""
    note: str | None = None
    """One line for people when the device is not what one might expect."""

    @property
    def name(self) -> str:
        """cpu, or cuda:INDEX."""
        return "cpu" if self.cuda is None else f"cuda:{self.cuda}"


def parse_device(asked: str) -> int | None:
    """The GPU that is asked for by `cuda` or `cuda:INDEX`, None for `cpu` and `auto`. Raises ConfigError."""
    if asked in ("auto", "cpu"):
        return None
    kind, _, index = asked.partition(":")
    number = whole_number(index or "0")
    if kind != "cuda" or number is None:
        raise ConfigError(f"device {asked[:50]} is not known; use auto, cpu, cuda or cuda:INDEX")
    return number


def cuda_devices() -> int:
    """How many GPUs the CUDA driver offers; 0 without a driver."""
    driver = cuda_driver()
    count = ctypes.c_int(0)
    return count.value if driver and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def cuda_driver() -> Any:
    """The CUDA driver's functions, ready to be called; None where there is no driver, or no GPU for it."""
    for name in driver_names:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        return driver if driver.cuInit(0) == 0 else None
    return None


def device_title(device: Device) -> str:
    """The device as people call it: `cpu`, or `cuda (NVIDIA H100 80GB HBM3)`. The number of a GPU is no part of it."""
    if device.cuda is None:
        return device.name
    driver, number, title = cuda_driver(), ctypes.c_int(0), ctypes.create_string_buffer(_title_bytes_max)
    if (
        not driver
        or driver.cuDeviceGet(ctypes.byref(number), device.cuda)
        or driver.cuDeviceGetName(title, len(title), number)
    ):
        return "cuda"
    return f"cuda ({title.value.decode(errors='replace')})"
