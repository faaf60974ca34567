"""Results are read from whatever framing they were sent in, and joined however late their other half comes."""

import io
import math
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.contracts import contract, older_contracts
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.watch.joined import Joiner
from penstock.engine.watch.messages import ExplanationMessage, PredictionMessage, PredictionReader
from penstock.engine.watch.results import Results
from penstock.engine.watch.words import result_line, result_object
from penstock.schemas.errors import RecordError
from penstock.schemas.records import Records
from tests.clocks import HandClock

source = {
    "cluster": "c",
    "topic": "t",
    "partition": 3,
    "offset": 812,
    "timestamp_ms": 5,
    "timestamp": None,
    "topic_id": None,
}
model = {"name": "m", "version": "1", "digest": "d"}


def prediction(offset: int = 812, **changes: Any) -> dict[str, Any]:
    return {
        "source": source | {"offset": offset}, "model": model, "outputs": {"p": [0.03, 0.97]}, "label": "fraud", "predicted_at_ms": 9,
        "predicted_at": None, "classes": ["ok", "fraud"], "label_index": 1, "passed": {}, **changes,
    }  # fmt: skip


def explanation(offset: int = 812, **changes: Any) -> dict[str, Any]:
    shares = [
        ("amount", 912.0, None, 1.2),
        ("country", None, "NG", -0.8),
        ("hour", None, None, 0.4),
        ("x", 0.0, None, 0.01),
    ]
    return {
        "source": source | {"offset": offset}, "model": model, "method": "tree_path_dependent", "background": None,
        "output": {"name": "p", "index": 1, "class": "fraud"}, "space": "log_odds", "base_value": 0.0, "rest": 0.0,
        "attributions": [
            {"feature": name, "value": number if number is not None else text, "number": number, "text": text, "attribution": share}
            for name, number, text, share in shares
        ],
        "additivity_error": 0.0, "sampling_error": None, "passed": {}, **changes,
    }  # fmt: skip


def avro(kind: str, message: dict[str, Any], *, framing: str = "single_object", schema: Any = None) -> bytes:
    written = schema or contract(kind)
    out = io.BytesIO()
    out.write(
        {"single_object": single_object_prefix(written), "confluent": b"\0\0\0\0\7", "none": b""}[framing]
    )
    fastavro.schemaless_writer(out, fastavro.parse_schema(written), message)
    return out.getvalue()


class Topic:
    """A reader over what is put there."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    def read(self, records_max: int, timeout_s: float) -> Records | None:
        values, self.values = self.values[:records_max], self.values[records_max:]
        if not values:
            return None
        count = len(values)
        return Records(
            topic="out", partitions=np.zeros(count, np.int32), offsets=np.arange(count), timestamps_ms=np.zeros(count, np.int64),
            keys=[None] * count, values=values,
        )  # fmt: skip


@pytest.mark.parametrize("framing", ["single_object", "confluent", "none", "json"])
def test_a_result_is_told_in_words_and_as_an_object(framing: str) -> None:
    predictions, explanations = Topic(), Topic()
    results = Results(predictions=predictions, explanations=explanations, clock=HandClock())
    for topic, kind, message in (
        (predictions, "prediction", prediction()),
        (explanations, "explanation", explanation()),
    ):
        topic.values.append(
            orjson.dumps(message) if framing == "json" else avro(kind, message, framing=framing)
        )
    (result,) = results.next(0.0)
    assert (
        result_line(result, top=3)
        == "t 3/812  fraud 0.97  amount = 912 +1.2, country = NG -0.8, hour missing +0.4"
    )
    found = result_object(result, top=2)
    assert (found["topic"], found["partition"], found["offset"], found["label"], found["explained"]) == (
        "t",
        3,
        812,
        "fraud",
        "fraud",
    )
    assert found["reasons"] == [
        {"feature": "amount", "value": 912.0, "attribution": 1.2}, {"feature": "country", "value": "NG", "attribution": -0.8},
    ]  # fmt: skip


@pytest.mark.parametrize("written", older_contracts("prediction"))
def test_messages_of_older_versions_are_read(written: dict[str, Any]) -> None:
    names = {field["name"] for field in written["fields"]}
    message = {name: value for name, value in prediction().items() if name in names}
    found = PredictionReader().message(avro("prediction", message, schema=written))
    assert found.place == ("t", 3, 812)


@pytest.mark.parametrize(
    "value", [b"", b"{", b"{}", b"[]", b"\xc3\x01junk-of-8", b"\0\0\0\0\1", bytes(50), b'{"source": 3}']
)
def test_what_is_no_prediction_is_counted_and_left_out(value: bytes) -> None:
    predictions = Topic()
    predictions.values = [value, None, avro("prediction", prediction())]
    results = Results(predictions=predictions, explanations=None, clock=HandClock())
    (result,) = results.next(0.0)
    assert results.foreign == 1
    assert result_line(result, top=3) == "t 3/812  fraud 0.97  (not explained)"
    with pytest.raises(RecordError):
        PredictionReader().message(value)


def test_what_json_has_no_number_for_is_not_a_number() -> None:
    found = PredictionReader().message(
        orjson.dumps(prediction(outputs={"p": [None]}, label=None, label_index=None))
    )
    assert math.isnan(found.outputs["p"][0])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80), st.integers(1, 5))
def test_every_prediction_is_told_once_and_none_is_held_for_ever(
    steps: list[tuple[bool, int]], held_max: int
) -> None:
    joiner, now_s, told = Joiner(explained=True, held_max=held_max), 0.0, []
    sent: list[int] = []
    for predicted, offset in dict.fromkeys(steps):
        now_s += 0.3
        if predicted:
            sent.append(offset)
            message = PredictionMessage(
                place=("t", 0, offset), timestamp_ms=0, predicted_at_ms=0, outputs={}, label=None, label_index=None, model="m"
            )  # fmt: skip
            whole = joiner.predicted(message, now_s=now_s)
        else:
            whole = joiner.explained(
                ExplanationMessage(place=("t", 0, offset), reasons=(), target="x", space="value")
            )
        told += [] if whole is None else [whole]
        told += joiner.due(now_s=now_s)
    told += joiner.due(now_s=now_s + 10)
    assert sorted(each.prediction.place[2] for each in told) == sorted(sent)
    for each in told:
        assert each.explanation is None or each.explanation.place == each.prediction.place
