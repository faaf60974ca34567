"""One sampled record as /api/v1 tells it; made when the supervisor asks, on the thread that answers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from penstock.engine.codec.part_read import PartRead
from penstock.engine.codec.plain_values import plain
from penstock.engine.explain.chosen_output import speaks_of_the_second
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pages.sentences import reasons_sentence, sentence
from penstock.engine.pages.shown import cut, shown
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.worker.masking import Masks, masked, without_masked
from penstock.engine.pipeline.sampling import OneExplained, Sample
from penstock.schemas.errors import PenstockError, RecordError
from penstock.schemas.reasons import Stage

input_bytes_max: Final = 64 << 10
"""A longer value is not decoded again for a page."""
fields_max: Final = 500
outputs_max: Final = 100
around_bytes: Final = 16
"""Shown before and behind the byte at which a value cannot be read."""
features_max: Final = 2000

ReadInput = Callable[[bytes], Any]
"""A record's value as nested objects; raises PenstockError or ValueError."""


ReadPart = Callable[[bytes], PartRead | None]
"""How far a value that cannot be decoded can be read, None where it can; raises PenstockError where no schema for it can be had."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Told:
    """A sample whose records were delivered, and what is known of their batch."""

    sample: Sample
    at_ms: int
    stages_ms: Mapping[str, float]
    rows: int


class RecordDocuments:
    """Makes documents of samples. Holds nothing but what describes the model."""

    def __init__(
        self, bundle: Bundle, *, worker: str, masks: Masks, read_input: ReadInput, read_part: ReadPart
    ) -> None:
        self._bundle = bundle
        self._worker = worker
        self._masks = masks
        self._read_input = read_input
        self._read_part = read_part
        owners = bundle.signature.column_features
        self._features = [
            (cut(name), feature, masks.hides_feature(feature))
            for name, feature in zip(bundle.signature.columns, owners, strict=True)
        ]

    def documents(self, told: Told) -> list[dict[str, Any]]:
        """One for each record of the sample, as `RecordRing.add` takes them."""
        sample = told.sample
        predicted = len(sample.matrix)
        return [
            self._predicted(told, place) if place < predicted else self._rejected(told, place)
            for place in range(len(sample.records))
        ]

    def _predicted(self, told: Told, place: int) -> dict[str, Any]:
        sample = told.sample
        explained = sample.explained.get(place)
        values = sample.matrix[place].astype(np.float64).tolist()
        label = self._label(sample, place)
        reasons = [] if explained is None else self._reasons(values, explained)
        document = self._begin(told, place) | {
            "outcome": "predicted",
            "label": label,
            "features": [
                {
                    "feature": name,
                    "value": self._value(feature, value, hidden),
                    "model_value": None if hidden else value,
                    "masked": hidden,
                }
                for (name, feature, hidden), value in zip(
                    self._features[:features_max], values[:features_max], strict=True
                )
            ],
            "outputs": self._outputs(sample, place),
            "explanation": None if explained is None else self._explanation(explained, reasons),
            "rejection": None,
        }
        if explained is None:
            document["sentence"] = sentence("record.unexplained")
        else:
            target = self._target(explained)
            document["sentence"] = reasons_sentence(
                reasons, output=target, base=explained.base, total=_total(explained), space=explained.space
            )
        return document

    def _rejected(self, told: Told, place: int) -> dict[str, Any]:
        rejection = told.sample.rejections[place - len(told.sample.matrix)]
        facts = {
            "stage": str(rejection.stage),
            "reason": str(rejection.reason),
            "detail": cut(rejection.detail, 1000),
        }
        return self._begin(told, place, decoded=rejection.stage is not Stage.DECODE) | {
            "outcome": "rejected",
            "label": None,
            "features": [],
            "outputs": [],
            "explanation": None,
            "rejection": facts,
            "sentence": sentence(
                "record.rejected", stage=facts["stage"], rejection=facts["reason"], detail=facts["detail"]
            ),
        }

    def _begin(self, told: Told, place: int, *, decoded: bool = True) -> dict[str, Any]:
        records = told.sample.records
        stamp_ms = int(records.timestamps_ms[place])
        value = records.values[place]
        fields, fault = self._input(value) if decoded else ([], None)
        stops = None
        if not decoded:
            fields, stops, fault = self._part(value)
        key = records.keys[place]
        return {
            "page": "record",
            "topic": records.topic,
            "partition": int(records.partitions[place]),
            "offset": int(records.offsets[place]),
            "timestamp_ms": stamp_ms if stamp_ms >= 0 else None,
            "at_ms": told.at_ms,
            "age_ms": max(told.at_ms - stamp_ms, 0) if stamp_ms >= 0 else None,
            "worker": self._worker,
            "key": shown(
                None if key is None else _text(key), masked=key is not None and self._masks.hides("key")
            ),
            "key_id": None if key is None or self._masks.hides("key") else _key_id(key),
            "input": fields,
            "input_fault": fault,
            "input_fault_said": None if fault is None else as_told(fault),
            "input_stops": stops,
            "model": {
                "name": self._bundle.name,
                "version": self._bundle.version,
                "digest": self._bundle.digest,
            },
            "times": [{"stage": stage, "ms": ms} for stage, ms in told.stages_ms.items()],
            "rows": told.rows,
        }

    def _part(self, value: bytes | None) -> tuple[list[dict[str, Any]], dict[str, Any] | None, str | None]:
        """Of a value that could not be decoded: the fields before the fault, where it lies, or why neither is known."""
        if value is None:
            return [], None, "the record has no value"
        if len(value) > input_bytes_max:
            return [], None, f"it could not be decoded; its value has {len(value)} bytes"
        try:
            part = self._read_part(value)
        except PenstockError as error:
            why = error.detail if isinstance(error, RecordError) else str(error)
            return [], None, f"it could not be decoded; its value has {len(value)} bytes: {cut(why)}"
        if part is None:
            return [], None, f"it could not be decoded; its value has {len(value)} bytes"
        # Read by a schema that is not its own, or from a byte too far, a masked value may stand under any name.
        hidden = self._masks.any
        begin = max(part.byte - around_bytes, 0)
        stops = {
            "field": cut(part.field),
            "byte": part.byte,
            "bytes": len(value),
            "around": None
            if hidden
            else {"byte": begin, "hex": value[begin : part.byte + around_bytes].hex()},
        }
        fields = [_field(name, masked if hidden else plain(each)) for name, each in part.fields[:fields_max]]
        return fields, stops, None

    def _input(self, value: bytes | None) -> tuple[list[dict[str, Any]], str | None]:
        if value is None:
            return [], "the record has no value"
        if len(value) > input_bytes_max:
            return [], f"its value has {len(value)} bytes, and at most {input_bytes_max} are shown"
        try:
            record = plain(self._read_input(value))
        except (PenstockError, ValueError) as error:
            why = error.detail if isinstance(error, RecordError) else type(error).__name__
            return [], f"its value cannot be read a second time: {cut(why)}"
        fields = list(_flat(without_masked(record, self._masks)))
        fault = f"{len(fields) - fields_max} more fields are not shown" if len(fields) > fields_max else None
        return [_field(name, each) for name, each in fields[:fields_max]], fault

    def _outputs(self, sample: Sample, place: int) -> list[dict[str, Any]]:
        if sample.predictions is None:
            return []
        classes = self._bundle.classes
        found = []
        for name, output in sample.predictions.outputs.items():
            numbers = output[place].tolist()
            names = (
                classes if len(classes) == len(numbers) else [f"{name}[{at}]" for at in range(len(numbers))]
            )
            if len(numbers) == 1:
                names = [name]
            found.append(
                {
                    "output": cut(name),
                    "names": [cut(each) for each in names[:outputs_max]],
                    "values": numbers[:outputs_max],
                }
            )
        return found

    def _label(self, sample: Sample, place: int) -> str | None:
        predictions = sample.predictions
        if predictions is None or predictions.labels is None:
            return None
        return cut(predictions.classes[int(predictions.labels[place])])

    def _target(self, explained: OneExplained) -> str:
        """What the explained number speaks of: one number for two classes is the second one's."""
        classes = self._bundle.classes
        widths, name = self._bundle.widths, explained.output_name
        if widths.get(name) == 1:
            second = speaks_of_the_second(name, widths, classes, trees=self._bundle.trees)
            return cut(classes[1] if second else name)
        index = explained.output_index
        of_class = widths.get(name, len(classes)) == len(classes) and index < len(classes)
        return cut(classes[index] if of_class else f"{name}[{index}]")

    def _explanation(self, explained: OneExplained, reasons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "output": self._target(explained),
            "space": explained.space,
            "method": explained.method,
            "background": explained.background,
            "base_value": explained.base,
            "total": _total(explained),
            "additivity_error": explained.additivity_error,
            "attributions": list(reasons),
        }

    def _reasons(self, values: Sequence[float], explained: OneExplained) -> list[dict[str, Any]]:
        """In the model's order; of more than `features_max` the strongest, and the sum of the others."""
        attributions = explained.values
        order: Sequence[int] = range(len(attributions))
        if len(attributions) > features_max:
            order = sorted(np.argsort(-np.abs(attributions), kind="stable")[: features_max - 1].tolist())
        told: list[dict[str, Any]] = []
        for at in order:
            name, feature, hidden = self._features[at]
            told.append(
                {
                    "feature": name,
                    "value": self._value(feature, values[at], hidden),
                    "attribution": float(attributions[at]),
                    "masked": hidden,
                }
            )
        if left := len(attributions) - len(told):
            rest = float(attributions.sum()) - sum(each["attribution"] for each in told)
            told.append({"feature": f"({left} others)", "value": None, "attribution": rest, "masked": True})
        return told

    def _value(self, feature: Any, value: float, hidden: bool) -> float | str | None:
        """As people know it: a category by its name, nothing where it is missing."""
        if hidden or value != value:
            return None
        if feature.kind == "category" and 0 <= value < len(feature.categories):
            return cut(feature.categories[int(value)])
        return value if np.isfinite(value) else str(value)


def _total(explained: OneExplained) -> float:
    return explained.base + float(explained.values.sum())


def _flat(record: Any) -> list[tuple[str, Any]]:
    """Members by their dotted path; arrays stay whole."""
    found: list[tuple[str, Any]] = []
    todo: list[tuple[str, Any]] = [("", record)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict) and value:
            todo += [
                (f"{path}.{name}" if path else str(name), each) for name, each in reversed(value.items())
            ]
        else:
            found.append((path, value))
    return found


def _field(name: str, value: Any) -> dict[str, Any]:
    hidden = value is masked
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    kind = {bool: "boolean", int: "integer", float: "number", str: "text", list: "array", dict: "object"}
    return {
        "field": cut(name),
        "type": "masked" if hidden else kind.get(type(value), "null"),
        "shown": shown(text, masked=hidden),
    }


def _key_id(key: bytes) -> str:
    """Equal for equal keys only: texts are cut, and what is not printable in them is written out."""
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
