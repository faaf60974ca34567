"""Types of the native Avro kernels; see engine/native/avro."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Node = tuple[int, int, int, int, int, int, int, int]
Fault = tuple[int, int, int, int]
"""Place in the payloads, status, byte, node."""

class Lineage(Protocol):
    @property
    def cluster(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def model_name(self) -> str: ...
    @property
    def model_version(self) -> str: ...
    @property
    def model_digest(self) -> str: ...

def alike(payloads: list[bytes | None], header_bytes: int, bytes_max: int) -> bool: ...
def longest(payloads: list[bytes | None] | list[bytes]) -> int:
    """The length of the longest, 0 for None and without any. Raises TypeError for anything else than bytes."""

class Program:
    def __init__(
        self,
        nodes: Sequence[Node],
        defaults: Sequence[tuple[int, float]],
        tables: Sequence[Sequence[bytes]],
        enums: Sequence[Sequence[float]],
        decimals: Sequence[tuple[int, int]],
        columns: int,
        items_max: int,
        unseen: float,
    ) -> None: ...
    def read(
        self, payloads: list[bytes], skip: int, as_double: bool, refuse_empty: bool = False
    ) -> tuple[NDArray[Any], list[Fault]]: ...

class PredictionEncoder:
    def __init__(
        self,
        prefix: bytes,
        lineage: Lineage,
        topic_id: str | None,
        output_names: Sequence[str],
        classes: Sequence[str],
    ) -> None: ...
    def encode(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        outputs: Sequence[NDArray[np.float64]],
        labels: NDArray[np.int64] | None,
        predicted_at_ms: int,
    ) -> list[bytes]: ...

class ExplanationEncoder:
    def __init__(
        self,
        prefix: bytes,
        lineage: Lineage,
        topic_id: str | None,
        columns: Sequence[str],
        tables: Sequence[Sequence[str] | None],
        method: str,
        background: str | None,
        output_name: str,
        classes: Sequence[str],
        space: str,
    ) -> None: ...
    def encode(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        matrix: NDArray[np.float64],
        values: NDArray[np.float64],
        base: NDArray[np.float64],
        output_index: NDArray[np.int64],
        additivity_error: NDArray[np.float64],
        sampling_error: NDArray[np.float64] | None,
        top: int,
    ) -> list[bytes]: ...
