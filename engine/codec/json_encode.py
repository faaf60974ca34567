"""Predictions and explanations to JSON, under the names of the Avro contracts; docs/contracts.md says what differs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.avro.encode import Tables

latest_ms: Final = 253_402_300_799_999
"""The end of the year 9999: calendars go no further."""
_epoch: Final = datetime.fromtimestamp(0, UTC)


def moment(at_ms: int) -> str | None:
    """A time as RFC 3339 in UTC; None before 1970, where there is none, and beyond all calendars."""
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
    def __init__(
        self, *, topic: str, cluster: str, topic_id: str | None, name: str, version: str, digest: str
    ) -> None:
        self._input, self._topic_id = {"cluster": cluster, "topic": topic}, topic_id
        self.model = {"name": name, "version": version, "digest": digest}

    def __call__(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
    ) -> list[Mapping[str, Any]]:
        rows = zip(partitions.tolist(), offsets.tolist(), timestamps_ms.tolist(), strict=True)
        return [
            {
                **self._input,
                "partition": partition,
                "offset": offset,
                "timestamp_ms": at_ms,
                "timestamp": moment(at_ms),
                "topic_id": self._topic_id,
            }
            for partition, offset, at_ms in rows
        ]


class JsonPredictionEncoder:
    """As PredictionEncoder, in JSON; a message takes a few microseconds."""

    def __init__(
        self,
        *,
        topic: str,
        cluster: str,
        topic_id: str | None,
        model_name: str,
        model_version: str,
        model_digest: str,
        output_names: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        """`topic`, `cluster` and `topic_id` are the input's."""
        self._sources = _Sources(
            topic=topic,
            cluster=cluster,
            topic_id=topic_id,
            name=model_name,
            version=model_version,
            digest=model_digest,
        )
        self._names, self._classes = list(output_names), list(classes)

    def encode(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        outputs: Sequence[NDArray[np.float64]],
        labels: NDArray[np.int64] | None,
        predicted_at_ms: int,
    ) -> list[bytes]:
        """One message a record; as PredictionEncoder.encode."""
        columns = [numbers(np.asarray(output, dtype=np.float64)) for output in outputs]
        sources, names = self._sources(partitions, offsets, timestamps_ms), self._names
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
        """As ExplanationEncoder."""
        self._sources = _Sources(
            topic=topic,
            cluster=cluster,
            topic_id=topic_id,
            name=model_name,
            version=model_version,
            digest=model_digest,
        )
        self._columns, self._tables = list(columns), list(tables)
        self._method, self._background = method, background
        self._output_name, self._classes, self._space, self._top = output_name, list(classes), space, top

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
        """One message a record; as ExplanationEncoder.encode."""
        sources = self._sources(partitions, offsets, timestamps_ms)
        features = len(self._columns)
        order, rest = _strongest(np.asarray(values, dtype=np.float64), self._top or features)
        held, attributed = np.asarray(matrix, dtype=np.float64), numbers(values)
        bases, errors, rests = numbers(base), numbers(additivity_error), numbers(rest)
        sampled = [None] * len(sources) if sampling_error is None else numbers(sampling_error)
        indices = output_index.tolist()
        return [
            orjson.dumps(
                {
                    "source": source,
                    "model": self._sources.model,
                    "method": self._method,
                    "background": self._background,
                    "output": {
                        "name": self._output_name,
                        "index": indices[row],
                        "class": self._classes[indices[row]] if indices[row] < len(self._classes) else None,
                    },
                    "space": self._space,
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
