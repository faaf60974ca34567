"""A driver, a compiler and a GPU that are none: the kernel's own source, compiled for the CPU behind NVIDIA's interfaces."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from penstock.engine.explain.tree.fused_layout import block_rows
from penstock.engine.explain.tree.fused_shap import CudaLibraries

_here = Path(__file__).parent / "cuda"


class FakeCuda:
    """What the fake library is told and asked; see tests/cuda/driver.cpp."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.fake_memory.argtypes = (ctypes.c_size_t,)
        self.libraries = CudaLibraries(driver=(str(library),), compiler=(str(library),))

    def reset(self) -> None:
        """As new."""
        self._library.fake_reset()

    def fail(self, name: str, status: int, *, after: int = 0) -> None:
        """Calls of this function fail, once `after` more have succeeded."""
        self._library.fake_fail(name.encode(), after, status)

    def has_memory(self, size_bytes: int) -> None:
        """How much there is on the GPU."""
        self._library.fake_memory(size_bytes)

    def turn_backward(self) -> None:
        """From now on the last thread of a block has the first turn."""
        self._library.fake_backward(1)

    def calls(self, name: str) -> int:
        """How often a function was called."""
        return int(self._library.fake_calls(name.encode()))

    @property
    def held(self) -> int:
        """Memory, streams, modules and contexts not given back, and contexts current on this thread."""
        return int(self._library.fake_held())


def build(folder: Path) -> FakeCuda:
    """Compiled into `folder`."""
    library = folder / "libfakecuda.so"
    kernels = files("penstock.engine.native").joinpath("cuda", "tree_shap.cu")
    words: Sequence[str] = (
        shutil.which("c++") or "g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-w",
        f"-DROWS={block_rows}", f'-DKERNELS="{kernels}"', str(_here / "driver.cpp"), "-o", str(library),
    )  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, text=True)
    return FakeCuda(library)
