"""Predictions and explanations to Avro payloads, natively; the schemas are schemas/prediction.avsc and explanation.avsc."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.lineage import Lineage
from penstock.engine.native import _avro
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.records import Records

Tables = Sequence[Sequence[str] | None]
"""Category names by matrix column; None for a number."""


class PredictionEncoder:
    """Encodes predictions of one model; what never changes is encoded once, here."""

    def __init__(
        self, *, prefix: bytes, lineage: Lineage, output_names: Sequence[str], classes: Sequence[str]
    ) -> None:
        """`prefix` is the framing."""
        self._prefix, self._lineage = prefix, lineage
        self._names, self._classes = list(output_names), list(classes)
        self._natives: dict[str | None, _avro.PredictionEncoder] = {}  # one, until the topic is made anew

    def encode(self, records: Records, predictions: Predictions, predicted_at_ms: int) -> list[bytes]:
        """One payload a record. Raises ValueError when the shapes do not agree, or a label is no class."""
        topic_id = records.topic_id
        if (native := self._natives.get(topic_id)) is None:
            native = _avro.PredictionEncoder(
                self._prefix, self._lineage, topic_id, self._names, self._classes
            )
            self._natives[topic_id] = native
        outputs = [np.ascontiguousarray(predictions.outputs[name], dtype=np.float64) for name in self._names]
        return native.encode(
            records.partitions,
            records.offsets,
            records.timestamps_ms,
            outputs,
            predictions.labels,
            predicted_at_ms,
        )


class ExplanationEncoder:
    """Encodes explanations of one model; the names of the features are encoded once for each method and output."""

    def __init__(
        self,
        *,
        prefix: bytes,
        lineage: Lineage,
        columns: Sequence[str],
        tables: Tables,
        classes: Mapping[str, Sequence[str]],
        top: int,
    ) -> None:
        """`classes`: by output, what its indices stand for; an output whose indices are no classes has none. `top`: only the strongest this many attributions, the others summed up in `rest`; 0 means all."""
        self._prefix, self._lineage = prefix, lineage
        self._columns = list(columns)
        self._tables = [None if table is None else list(table) for table in tables]
        self._classes, self._top = classes, top
        self._natives: dict[tuple[str | None, ...], _avro.ExplanationEncoder] = {}

    def encode(
        self, records: Records, matrix: NDArray[np.generic], attributions: Attributions
    ) -> list[bytes]:
        """One payload a record, whose row of `matrix` (N, F) was explained. Raises ValueError when the shapes do not agree.

        A feature's value is null where it is NaN, the category's name where its column has a table, else the number.
        """
        return self._native(records.topic_id, attributions).encode(
            records.partitions,
            records.offsets,
            records.timestamps_ms,
            np.ascontiguousarray(matrix, dtype=np.float64),
            np.ascontiguousarray(attributions.values, dtype=np.float64),
            np.ascontiguousarray(attributions.base, dtype=np.float64),
            np.ascontiguousarray(attributions.output_index, dtype=np.int64),
            np.ascontiguousarray(attributions.additivity_error, dtype=np.float64),
            attributions.sampling_error,
            self._top,
        )

    def _native(self, topic_id: str | None, of: Attributions) -> _avro.ExplanationEncoder:
        kind = (topic_id, of.method, of.background, of.output_name, of.space)
        if (native := self._natives.get(kind)) is None:
            native = _avro.ExplanationEncoder(
                self._prefix,
                self._lineage,
                topic_id,
                self._columns,
                self._tables,
                of.method,
                of.background,
                of.output_name,
                list(self._classes.get(of.output_name, ())),
                of.space,
            )
            self._natives[kind] = native
        return native
