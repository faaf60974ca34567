"""Predictions and explanations back from the messages of the output topics, in whatever framing and version they were sent."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import fastavro
import orjson

from penstock.engine.codec.contracts import contract, older_contracts
from penstock.engine.codec.framing import (
    confluent_header_bytes,
    confluent_schema_id,
    is_single_object,
    single_object_header_bytes,
    single_object_prefix,
)
from penstock.engine.console.reasons import FeatureShare
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

Kind = Literal["prediction", "explanation"]
Place = tuple[str, int, int]
"""Topic, partition and offset of an input record."""

_faults: Final = (
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionMessage:
    """What was predicted of one record."""

    place: Place
    timestamp_ms: int
    predicted_at_ms: int
    outputs: Mapping[str, tuple[float, ...]]
    label: str | None
    label_index: int | None
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplanationMessage:
    """Why."""

    place: Place
    reasons: tuple[FeatureShare, ...]
    target: str  # the class or output that the reasons speak of
    space: str


class ResultReader:
    """Messages of one output topic to what they say."""

    def __init__(self, kind: Kind) -> None:
        writers = [contract(kind), *older_contracts(kind)]
        self._kind = kind
        self._reader = fastavro.parse_schema(writers[0])
        self._writers = {single_object_prefix(writer): fastavro.parse_schema(writer) for writer in writers}

    def read(self, value: bytes) -> dict[str, Any]:
        """The message as the contract has it. Raises RecordError for one that is none of it."""
        if value.startswith(b"{"):
            try:
                found: dict[str, Any] = orjson.loads(value)
            except ValueError as error:
                raise self._foreign() from error
            return found
        known = self._writers.get(value[:single_object_header_bytes])
        if known is not None:
            return self._avro(value, single_object_header_bytes, known)
        if is_single_object(value):
            raise self._foreign()
        framed = confluent_schema_id(value[:confluent_header_bytes]) is not None
        start = confluent_header_bytes if framed else 0
        for writer in self._writers.values():  # a registered id is of the contract's own versions
            try:
                return self._avro(value, start, writer)
            except RecordError as error:
                fault = error
        raise fault

    def _avro(self, value: bytes, start: int, writer: Any) -> dict[str, Any]:
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            found: Any = fastavro.schemaless_reader(stream, writer, self._reader)
        except _faults as error:
            raise self._foreign() from error
        if stream.tell() != len(value):
            raise self._foreign()
        return dict(found)

    def _foreign(self) -> RecordError:
        return RecordError(
            stage=Stage.DECODE, reason=Reason.CORRUPT, detail=f"the message is no {self._kind}"
        )


class PredictionReader(ResultReader):
    """Of the predictions topic."""

    def __init__(self) -> None:
        super().__init__("prediction")

    def message(self, value: bytes) -> PredictionMessage:
        """The prediction in a message. Raises RecordError."""
        found = self.read(value)
        try:
            return PredictionMessage(
                place=_place(found),
                timestamp_ms=int(found["source"]["timestamp_ms"]),
                predicted_at_ms=int(found["predicted_at_ms"]),
                outputs={str(name): tuple(map(_number, values)) for name, values in found["outputs"].items()},
                label=_text(found.get("label")),
                label_index=found.get("label_index"),
                model=f"{found['model']['name']} {found['model']['version']}",
            )
        except _faults as error:
            raise self._foreign() from error


class ExplanationReader(ResultReader):
    """Of the explanations topic."""

    def __init__(self) -> None:
        super().__init__("explanation")

    def message(self, value: bytes) -> ExplanationMessage:
        """The explanation in a message. Raises RecordError."""
        found = self.read(value)
        try:
            output = found["output"]
            return ExplanationMessage(
                place=_place(found),
                reasons=tuple(_share(each) for each in found["attributions"]),
                target=str(output.get("class") or output["name"]),
                space=str(found["space"]),
            )
        except _faults as error:
            raise self._foreign() from error


def _place(found: Mapping[str, Any]) -> Place:
    source = found["source"]
    return str(source["topic"]), int(source["partition"]), int(source["offset"])


def _share(each: Mapping[str, Any]) -> FeatureShare:
    value = next((each[name] for name in ("number", "text", "value") if each.get(name) is not None), None)
    shown = value if value is None or isinstance(value, str) else float(value)
    return FeatureShare(feature=str(each["feature"]), value=shown, attribution=_number(each["attribution"]))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)  # JSON has no NaN


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
