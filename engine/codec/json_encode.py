"""Predictions and explanations to JSON, under the names of the Avro contracts; docs/contracts.md says what differs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.avro.encode import Tables
from penstock.engine.codec.lineage import Lineage
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.records import Records

latest_ms: Final = 253_402_300_799_999
"""The end of the year 9999, the last that datetime can represent."""
_epoch: Final = datetime.fromtimestamp(0, UTC)


def moment(at_ms: int) -> str | None:
    """A time as RFC 3339 in UTC; None before 1970 (no timestamp) and past the year 9999."""
    if not 0 <= at_ms <= latest_ms:
        return None
    return (_epoch + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def numbers(column: NDArray[np.float64]) -> list[Any]:
    """Numbers for JSON, nested as the array is; what is not finite, which JSON cannot say, as `NaN`, `Infinity`, `-Infinity`."""
    if np.isfinite(column).all():
        plain: list[Any] = column.tolist()
        return plain
    return [numbers(row) if row.ndim else _number(float(row)) for row in column]


def _number(value: float) -> float | str:
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else ("Infinity" if value > 0 else "-Infinity")


class _Sources:
    def __init__(self, lineage: Lineage) -> None:
        self._input = {"cluster": lineage.cluster, "topic": lineage.topic}
        self.model = {
            "name": lineage.model_name,
            "version": lineage.model_version,
            "digest": lineage.model_digest,
        }

    def __call__(self, records: Records) -> list[Mapping[str, Any]]:
        places = (records.partitions.tolist(), records.offsets.tolist(), records.timestamps_ms.tolist())
        return [
            {
                **self._input,
                "partition": partition,
                "offset": offset,
                "timestamp_ms": at_ms,
                "timestamp": moment(at_ms),
                "topic_id": records.topic_id,
            }
            for partition, offset, at_ms in zip(*places, strict=True)
        ]


class JsonPredictionEncoder:
    """As PredictionEncoder, in JSON; a message takes a few microseconds."""

    def __init__(self, *, lineage: Lineage, output_names: Sequence[str], classes: Sequence[str]) -> None:
        """As PredictionEncoder."""
        self._sources = _Sources(lineage)
        self._names, self._classes = list(output_names), list(classes)

    def encode(self, records: Records, predictions: Predictions, predicted_at_ms: int) -> list[bytes]:
        """One message a record; as PredictionEncoder.encode."""
        names, labels = self._names, predictions.labels
        columns = [numbers(np.asarray(predictions.outputs[name], dtype=np.float64)) for name in names]
        sources = self._sources(records)
        places: list[int | None] = [None] * len(sources) if labels is None else labels.tolist()
        predicted_at = moment(predicted_at_ms)
        return [
            orjson.dumps(
                {
                    "source": source,
                    "model": self._sources.model,
                    "outputs": {name: column[row] for name, column in zip(names, columns, strict=True)},
                    "label": None if place is None else self._classes[place],
                    "predicted_at_ms": predicted_at_ms,
                    "predicted_at": predicted_at,
                    "classes": self._classes,
                    "label_index": place,
                    "passed": {},
                }
            )
            for row, (source, place) in enumerate(zip(sources, places, strict=True))
        ]


class JsonExplanationEncoder:
    """As ExplanationEncoder, in JSON; an attribution has `number` and `text`, and no `value` of either kind."""

    def __init__(
        self,
        *,
        lineage: Lineage,
        columns: Sequence[str],
        tables: Tables,
        classes: Mapping[str, Sequence[str]],
        top: int,
    ) -> None:
        """As ExplanationEncoder."""
        self._sources = _Sources(lineage)
        self._columns, self._tables = list(columns), list(tables)
        self._classes, self._top = classes, top

    def encode(
        self, records: Records, matrix: NDArray[np.generic], attributions: Attributions
    ) -> list[bytes]:
        """One message a record; as ExplanationEncoder.encode."""
        sources = self._sources(records)
        classes = self._classes.get(attributions.output_name, ())
        features = len(self._columns)
        order, rest = _strongest(np.asarray(attributions.values, dtype=np.float64), self._top or features)
        held, attributed = np.asarray(matrix, dtype=np.float64), numbers(attributions.values)
        bases, errors, rests = (
            numbers(attributions.base),
            numbers(attributions.additivity_error),
            numbers(rest),
        )
        sampling_error = attributions.sampling_error
        sampled = [None] * len(sources) if sampling_error is None else numbers(sampling_error)
        indices = attributions.output_index.tolist()
        return [
            orjson.dumps(
                {
                    "source": source,
                    "model": self._sources.model,
                    "method": attributions.method,
                    "background": attributions.background,
                    "output": {
                        "name": attributions.output_name,
                        "index": indices[row],
                        "class": classes[indices[row]] if indices[row] < len(classes) else None,
                    },
                    "space": attributions.space,
                    "base_value": bases[row],
                    "attributions": [
                        {
                            "feature": self._columns[f],
                            "attribution": attributed[row][f],
                            **self._value(f, held[row, f]),
                        }
                        for f in order[row]
                    ],
                    "rest": rests[row],
                    "additivity_error": errors[row],
                    "sampling_error": sampled[row],
                    "passed": {},
                }
            )
            for row, source in enumerate(sources)
        ]

    def _value(self, feature: int, value: float) -> dict[str, Any]:
        table = self._tables[feature]
        if np.isnan(value):
            return {"number": None, "text": None}
        if table and 0 <= value < len(table):
            return {"number": None, "text": table[int(value)]}
        return {"number": _number(float(value)), "text": None}


def _strongest(values: NDArray[np.float64], top: int) -> tuple[list[list[int]], NDArray[np.float64]]:
    """The features of each row to show, and the sum of the others, (N,): all in order, or the `top` strongest, NaN first."""
    count, features = values.shape
    if top >= features:
        return [list(range(features))] * count, np.zeros(count)
    strength = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.argsort(-strength, axis=1, kind="stable")
    rest = np.zeros(count)
    for others in np.sort(order[:, top:], axis=1).T:  # one after the other: the sum has one order
        rest += values[np.arange(count), others]
    return order[:, :top].tolist(), rest
