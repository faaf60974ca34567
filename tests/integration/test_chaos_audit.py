"""The checker of the chaos runs sees what it is there to see: a stream written by hand, right and with one thing wrong."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer

from tests.chaos.audit import Audit, audit
from tests.stream import event

pytestmark = pytest.mark.kafka
schemas = Path(__file__).parents[2] / "schemas"
records = 8
Message = tuple[bytes, bytes]


def body(name: str, offset: int, number: int, **changes: Any) -> dict[str, Any]:
    says = 1.0 if number % 2 else 2.0
    source = {
        "cluster": "c", "topic": "t", "partition": 0, "offset": offset, "timestamp_ms": 0, "timestamp": None, "topic_id": None,
    }  # fmt: skip
    common = {
        "source": source,
        "model": {"name": "m", "version": "1", "digest": "d"},
        "passed": {"b": repr(float(number))},
    }
    if name == "prediction":
        told: dict[str, Any] = {
            "outputs": {"value": [says]},
            "label": None,
            "predicted_at_ms": 0,
            "classes": [],
        }
    elif name == "explanation":
        attribution = {"feature": "a", "value": None, "number": None, "text": None, "attribution": says - 1.6}
        told = {
            "method": "tree", "background": None, "output": {"name": "value", "index": 0, "class": None}, "space": "value",
            "base_value": 1.6, "attributions": [attribution], "rest": 0.0, "additivity_error": 0.0, "sampling_error": None,
        }  # fmt: skip
    else:
        told = {
            "stage": "decode", "reason": "unreadable", "detail": "offsets 2 to 3 cannot be read", "payload": None, "headers": [],
            "worker": "w", "at_ms": 0, "at": None,
        }  # fmt: skip
    return {**common, **told, **changes}


def encoded(name: str, said: dict[str, Any]) -> bytes:
    out = io.BytesIO(b"0123456789")
    out.seek(10)
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(json.loads((schemas / f"{name}.avsc").read_text())), said
    )
    return out.getvalue()


def stream(name: str, offsets: list[int]) -> list[Message]:
    return [(b"k%d" % offset, encoded(name, body(name, offset, offset))) for offset in offsets]


class Books:
    """Writes the four topics and audits them."""

    def __init__(self, kafka: str, new_topic: Callable[..., str]) -> None:
        self.kafka = kafka
        self.names = {name: new_topic(name) for name in ("in", "predictions", "explanations", "dead_letters")}

    def audit(self, predictions: list[Message], explanations: list[Message], letters: list[Message]) -> Audit:
        topics = {
            "in": [(b"k%d" % number, event(number)) for number in range(records)],
            "predictions": predictions,
            "explanations": explanations,
            "dead_letters": letters,
        }
        writer = Producer({"bootstrap.servers": self.kafka})
        for name, messages in topics.items():
            for key, value in messages:
                writer.produce(self.names[name], value, key, 0)
        assert writer.flush(30) == 0
        outputs = {name: topic for name, topic in self.names.items() if name != "in"}
        return audit(self.kafka, self.names["in"], outputs, records)


@pytest.fixture
def books(kafka: str, new_topic: Callable[..., str]) -> Books:
    return Books(kafka, new_topic)


def right() -> dict[str, list[Message]]:
    every = list(range(records))
    return {
        "predictions": stream("prediction", every),
        "explanations": stream("explanation", every),
        "letters": [],
    }


def test_what_is_right_has_no_fault(books: Books) -> None:
    found = books.audit(**right())
    assert found.faults == []
    assert (found.inputs, found.predictions, found.explanations) == (records, records, records)


def _lose(told: dict[str, list[Message]]) -> None:
    del told["predictions"][4], told["explanations"][4]


def _double(told: dict[str, list[Message]]) -> None:
    told["predictions"].append(told["predictions"][-1])
    told["explanations"].append(told["explanations"][-1])


def _tear(told: dict[str, list[Message]]) -> None:
    del told["explanations"][4]


def _reorder(told: dict[str, list[Message]]) -> None:
    messages = told["predictions"]
    messages[2], messages[3] = messages[3], messages[2]


def _change(told: dict[str, list[Message]], name: str, **changes: Any) -> None:
    told[f"{name}s"][4] = (b"k4", encoded(name, body(name, 4, 4, **changes)))


def _of_another(told: dict[str, list[Message]]) -> None:
    _change(told, "prediction", passed={"b": "6.0"})


def _wrong(told: dict[str, list[Message]]) -> None:
    _change(told, "prediction", outputs={"value": [1.0]})


def _badly_explained(told: dict[str, list[Message]]) -> None:
    _change(told, "explanation", base_value=1.5)


def _of_another_key(told: dict[str, list[Message]]) -> None:
    told["predictions"][4] = (b"k5", told["predictions"][4][1])


def _out_of_nothing(told: dict[str, list[Message]]) -> None:
    told["predictions"] += stream("prediction", [records])


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_lose, "lost"), (_double, "doubled"), (_tear, "torn"), (_reorder, "reordered"), (_of_another, "wrong"), (_wrong, "wrong"),
        (_badly_explained, "wrong"), (_of_another_key, "wrong"), (_out_of_nothing, "wrong"),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong_is_found(
    books: Books, spoil: Callable[[dict[str, list[Message]]], None], kind: str
) -> None:
    told = right()
    spoil(told)
    found = books.audit(**told)
    assert getattr(found, kind), str(found)
    assert found.faults


def test_a_range_that_was_set_aside_is_an_outcome_and_a_prediction_of_it_is_wrong(books: Books) -> None:
    told = right()
    told["letters"] = [(b"k2", encoded("dead_letter", body("dead_letter", 2, 2)))]
    del told["predictions"][2:4], told["explanations"][2:4]
    told["explanations"].insert(2, (b"k3", encoded("explanation", body("explanation", 3, 3))))
    found = books.audit(**told)
    assert found.set_aside == 2
    assert found.lost == found.torn == []
    assert len(found.wrong) == 1
