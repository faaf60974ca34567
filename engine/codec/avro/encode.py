"""Predictions and explanations to Avro payloads, natively; the schemas are schemas/prediction.avsc and explanation.avsc."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.native import _avro

Tables = Sequence[Sequence[str] | None]
"""Category names by matrix column; None for a number."""


class PredictionEncoder:
    """Encodes predictions of one model; what never changes is encoded once, here."""

    def __init__(
        self,
        *,
        prefix: bytes,
        topic: str,
        cluster: str,
        topic_id: str | None,
        model_name: str,
        model_version: str,
        model_digest: str,
        output_names: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        """`prefix` is the framing; `topic`, `cluster` and `topic_id` are the input's."""
        self._native = _avro.PredictionEncoder(
            prefix,
            topic,
            cluster,
            topic_id,
            model_name,
            model_version,
            model_digest,
            list(output_names),
            list(classes),
        )

    def encode(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        outputs: Sequence[NDArray[np.float64]],
        labels: NDArray[np.int64] | None,
        predicted_at_ms: int,
    ) -> list[bytes]:
        """One payload a record: columns (N,), outputs (N, K) in the order of their names, labels index the classes.

        Raises ValueError when the shapes do not agree.
        """
        contiguous = [np.ascontiguousarray(output, dtype=np.float64) for output in outputs]
        return self._native.encode(partitions, offsets, timestamps_ms, contiguous, labels, predicted_at_ms)


class ExplanationEncoder:
    """Encodes explanations of one model by one method; the names of the features are encoded once, here."""

    def __init__(
        self,
        *,
        prefix: bytes,
        topic: str,
        cluster: str,
        topic_id: str | None,
        model_name: str,
        model_version: str,
        model_digest: str,
        columns: Sequence[str],
        tables: Tables,
        method: str,
        background: str | None,
        output_name: str,
        classes: Sequence[str],
        space: str,
        top: int,
    ) -> None:
        """`classes`: what each index of the output stands for, none where that is no class. `top`: only the strongest this many attributions, the others summed up in `rest`; 0 means all."""
        self._top = top
        self._native = _avro.ExplanationEncoder(
            prefix,
            topic,
            cluster,
            topic_id,
            model_name,
            model_version,
            model_digest,
            list(columns),
            [None if table is None else list(table) for table in tables],
            method,
            background,
            output_name,
            list(classes),
            space,
        )

    def encode(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        matrix: NDArray[np.generic],
        values: NDArray[np.float64],
        base: NDArray[np.float64],
        output_index: NDArray[np.int64],
        additivity_error: NDArray[np.float64],
        sampling_error: NDArray[np.float64] | None,
    ) -> list[bytes]:
        """One payload a record: matrix and values (N, F), the rest (N,). Raises ValueError when the shapes do not agree.

        A feature's value is null where it is NaN, the category's name where its column has a table, else the number.
        """
        return self._native.encode(
            partitions,
            offsets,
            timestamps_ms,
            np.ascontiguousarray(matrix, dtype=np.float64),
            np.ascontiguousarray(values, dtype=np.float64),
            np.ascontiguousarray(base, dtype=np.float64),
            np.ascontiguousarray(output_index, dtype=np.int64),
            np.ascontiguousarray(additivity_error, dtype=np.float64),
            sampling_error,
            self._top,
        )
