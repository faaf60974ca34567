"""Types of the native tree kernels; see engine/native/trees."""

import numpy as np
from numpy.typing import NDArray

def instruction_set() -> str:
    """avx512, avx2 or plain."""

def scan(rows: NDArray[np.generic]) -> tuple[NDArray[np.int64], float]:
    """Of rows (R, F), float32 or float64: how often each column (F,) is NaN, and the largest magnitude of the other numbers, 0.0 without any."""

class Narrower:
    def __init__(
        self, offsets: NDArray[np.int32], cuts: NDArray[np.float64], levels: NDArray[np.float32]
    ) -> None: ...
    def narrow(
        self, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.int64], float]]:
        """The rows (R, F) narrowed, and what `scan` tells of them rounded to float32: a magnitude that float32 has no finite number for is infinite there."""

class Arrays:
    def __init__(
        self,
        features: int,
        outputs: int,
        roots: NDArray[np.int32],
        feature: NDArray[np.int32],
        threshold: NDArray[np.float32],
        set_index: NDArray[np.int32],
        yes: NDArray[np.int32],
        no: NDArray[np.int32],
        missing_yes: NDArray[np.uint8],
        leaf: NDArray[np.int32],
        leaf_values: NDArray[np.float64],
        base_values: NDArray[np.float64],
        set_offsets: NDArray[np.int32],
        set_values: NDArray[np.float32],
    ) -> None: ...

class ForestKernel:
    def __init__(self, arrays: Arrays) -> None: ...
    def predict(self, rows: NDArray[np.float32], threads: int = 1) -> NDArray[np.float64]: ...

class ShapKernel:
    def __init__(
        self,
        arrays: Arrays,
        share: NDArray[np.float64],
        background: NDArray[np.float32],
        table_bytes_max: int,
        threads: int,
    ) -> None: ...
    def shap_values(
        self, rows: NDArray[np.float32], exact: bool = False, threads: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    @property
    def expected(self) -> NDArray[np.float64]: ...
    @property
    def table_bytes(self) -> int: ...
    @property
    def tabled_trees(self) -> int: ...
    @property
    def digest(self) -> int: ...
