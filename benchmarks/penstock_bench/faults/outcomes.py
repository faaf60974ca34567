"""Input records and their outcomes as bytes, read and written by public libraries alone: nothing here is the engine's."""

import io
import json
import math
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

import fastavro

from penstock_bench.faults.journal import Kind

input_schema: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Simulated",
    "namespace": "penstock.bench",
    "fields": [
        {"name": "number", "type": ["null", "double"], "default": None},
        {"name": "weight", "type": "double"},
        {"name": "note", "type": "string"},
    ],
}
_parsed_input = fastavro.parse_schema(input_schema)
_letter_of: Final = {
    Kind.CUT_OFF: ("decode", {"truncated", "corrupt"}),
    Kind.LACKING: ("decode validate", {"missing_value"}),
    Kind.EMPTY: ("decode", {"null_value"}),
    Kind.THROWS: ("infer", {"model_failed"}),
    Kind.NAN: ("infer", {"output_not_finite"}),
    Kind.DARK: ("explain", {"explainer_failed"}),
}
throws_above, nan_above, dark_above = 1 << 20, 1 << 21, 1 << 22
"""The simulated model throws on weights from here on, and so forth."""
_range = re.compile(r"offsets? (\d+)(?: to (\d+))? cannot be read")


def write_input(kind: Kind, number: int, weight: int, output_format: Literal["avro", "json"]) -> bytes | None:
    """The bytes of an input record."""
    if kind is Kind.EMPTY:
        return None
    weight += {Kind.THROWS: throws_above, Kind.NAN: nan_above, Kind.DARK: dark_above}.get(kind, 0)
    record = {"number": None if kind is Kind.LACKING else float(number), "weight": float(weight), "note": "n"}
    if output_format == "json":
        text = json.dumps(record).encode()
        return text[:-4] if kind is Kind.CUT_OFF else text
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _parsed_input, record)
    return buffer.getvalue()[:-1] if kind is Kind.CUT_OFF else buffer.getvalue()


def expected_value(number: int, weight: int) -> float:
    """What the simulated model answers."""
    return 2.0 * number + weight


@dataclass(frozen=True, slots=True)
class Found:
    """What a message of an output topic says."""

    topic_id: str | None
    partition: int
    offset: int
    last: int  # the same as offset, or the end of a range that cannot be read
    fault: str  # what is wrong with it, "" if nothing is


class OutcomeReader:
    """Reads messages of the three output topics and compares what they say with what was written."""

    def __init__(self, output_format: Literal["avro", "json"]) -> None:
        self._json = output_format == "json"
        self._schemas: dict[str, Any] = {}
        if not self._json:
            for topic, name in (("p", "prediction"), ("e", "explanation"), ("d", "dead_letter")):
                text = files("penstock.schemas").joinpath(f"{name}.avsc").read_bytes()
                self._schemas[topic] = fastavro.parse_schema(json.loads(text), named_schemas={})

    def message(self, topic: str, value: bytes) -> dict[str, Any]:
        """The message as a dictionary, with `source` in it. Raises ValueError, EOFError or KeyError for other bytes."""
        found: Any = (
            json.loads(value)
            if self._json
            else fastavro.schemaless_reader(io.BytesIO(value), self._schemas[topic], None)
        )
        return dict(found)

    @staticmethod
    def letter_range(message: dict[str, Any]) -> tuple[int, int] | None:
        """First and last offset of what a letter says cannot be read; None for a letter of another reason."""
        if message["reason"] != "unreadable":
            return None
        named = _range.search(message["detail"])
        if named is None:
            return -1, -1
        return int(named[1]), int(named[2] or named[1])

    @staticmethod
    def result_fault(topic: str, message: dict[str, Any], number: int, weight: int) -> str:
        """What is wrong with a result of a good record, "" if nothing is."""
        want = expected_value(number, weight)
        if topic == "p":
            got = message["outputs"]["y"]
            return "" if got == [want] else f"predicted {got}, not {want}"
        values = {a["feature"]: (a["number"], a["attribution"]) for a in message["attributions"]}
        wanted = {"number": (number, 2.0 * number), "weight": (weight, weight)}
        if values != wanted or not math.isclose(message["base_value"], 0.0, abs_tol=1e-9):
            return f"explained {values}, not {wanted}"
        return ""

    @staticmethod
    def letter_fault(message: dict[str, Any], kind: Kind) -> str:
        """What is wrong with the letter of a bad record, "" if nothing is."""
        wanted = _letter_of.get(kind)
        if wanted is None:
            return f"a good record was set aside: {message['stage']} {message['reason']}: {message['detail']}"
        stages, reasons = wanted
        if message["stage"] not in stages or message["reason"] not in reasons:
            return f"set aside as {message['stage']} {message['reason']}, and it is {kind}"
        return ""
