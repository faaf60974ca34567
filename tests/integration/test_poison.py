"""One record in a hundred is bad, in every way there is: each is set aside whole, and its neighbours never notice."""

import io
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from onnx import TensorProto, helper

from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import Manifest, ModelOutput
from tests.bundles import constant, graph_bytes, tensor
from tests.stream import Seen, Stream, partitions

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
records, poisons = 100_000, 1_000
schema: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "a", "type": ["null", "double"]},
        {"name": "b", "type": "double"},
        {"name": "c", "type": "string"},
        {"name": "g", "type": "double"},
        {"name": "v", "type": {"type": "array", "items": "double"}},
    ],
}
parsed = fastavro.parse_schema(schema)
prefix = single_object_prefix(schema)
table = np.array([0.25, 0.5, 1.0, 2.0], np.float32)


def encoded(**changes: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(
        stream, parsed, {"a": 0.0, "b": 1.0, "c": "x", "g": 0.0, "v": [0.0, 0.0], **changes}
    )
    return prefix + stream.getvalue()


def good(number: int) -> bytes:
    return encoded(
        a=number / 7, b=float(number % 50), c="xyz"[number % 3], g=float(number % 4), v=[number / 11, -0.5]
    )


poison_kinds: dict[str, tuple[bytes | None, str, str]] = {
    "no value": (None, "decode", "null_value"),
    "too long": (encoded(c="x" * 5000), "decode", "record_too_long"),
    "not framed": (b"\x00" * 40, "decode", "bad_framing"),
    "unknown schema": (prefix[:2] + b"\x01" * 8 + encoded()[10:], "decode", "unknown_schema"),
    "truncated": (encoded()[:-3], "decode", "truncated"),
    "trailing bytes": (encoded() + b"\x00", "decode", "trailing_bytes"),
    "corrupt": (prefix + b"\x0e" + encoded()[11:], "decode", "corrupt"),  # a union has no eighth branch
    "null": (encoded(a=None), "validate", "missing_value"),
    "NaN": (encoded(a=float("nan")), "validate", "missing_value"),
    "infinity": (encoded(a=float("-inf")), "validate", "not_finite"),
    "unseen category": (encoded(c="w"), "validate", "unseen_category"),
    "wrong length": (encoded(v=[1.0]), "validate", "wrong_type"),
    "the model throws": (encoded(g=9.0), "infer", "model_failed"),
    "the model answers NaN": (encoded(b=-1.0), "infer", "output_not_finite"),
}


def write_bundle(path: Path) -> None:
    """y = a + v[0] + table[g] + sqrt(b): it throws when g is no place in the table.

    Elementwise throughout: ONNX Runtime's reductions round by where a row lies in memory, which no batching can undo.
    """
    columns = {"a": 0, "b": 1, "g": 3, "v": 4}
    nodes = [
        *(helper.make_node("Gather", ["x", f"{name}_column"], [name], axis=1) for name in columns),
        helper.make_node("Cast", ["g"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["looked_up"]),
        helper.make_node("Sqrt", ["b"], ["root"]),
        helper.make_node("Add", ["a", "v"], ["a_v"]),
        helper.make_node("Add", ["looked_up", "root"], ["rest"]),
        helper.make_node("Add", ["a_v", "rest"], ["y"]),
    ]
    constants = [constant(f"{name}_column", np.array([column])) for name, column in columns.items()]
    model = graph_bytes(
        nodes, [tensor("x", ["N", 6])], [tensor("y", ["N", 1])], [*constants, constant("table", table)]
    )
    rows = np.array([[1, 4, 0, 2, 0.5, 0.25], [2, 9, 1, 3, 0, 1]], np.float32)
    answers = rows[:, 0] + rows[:, 4] + table[rows[:, 3].astype(int)] + np.sqrt(rows[:, 1])
    features = (
        Feature(name="a", field="a", kind="number", missing="reject"),
        Feature(name="b", field="b", kind="number"),
        Feature(name="c", field="c", kind="category", categories=("x", "y", "z"), unseen="reject"),
        Feature(name="g", field="g", kind="number"),
        Feature(name="v", field="v", kind="vector", width=2),
    )
    Bundle.write(
        path,
        manifest=Manifest(
            name="brittle", version="1", outputs=(ModelOutput(name="y", width=1),), labels=None,
            signature=Signature(features=features, inputs=(ModelInput(name="x", dtype="float32", start=0, width=6),)),
            trees=False, covers=False, provenance={"source": "test"},
        ),
        model=model,
        golden=Golden(rows=rows, outputs={"y": answers[:, None].astype(np.float64)}, labels=None),
        input_schema=orjson.dumps(schema),
    )  # fmt: skip


@pytest.fixture
def run_stream(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Stream]]:
    """Feeds records through one worker until all are done, or as `until` says."""
    write_bundle(tmp_path / "model")
    opened: list[Stream] = []

    def run(values: dict[bytes, bytes | None], **changes: Any) -> Stream:
        stream = Stream(
            tmp_path, kafka, f"poison-{time.time_ns()}", tmp_path / "model", explained=False,
            **{"input": {"record_bytes_max": 4096}, **changes},
        )  # fmt: skip
        opened.append(stream)
        stream.feed(list(values.values()), keys=list(values), per_s=1e6)
        return stream

    yield run
    for stream in opened:
        stream.close()


def by_key(topic: Any) -> dict[bytes | None, Seen]:
    found = [seen for rows in topic.values() for seen in rows]
    assert len({seen.key for seen in found}) == len(found)
    return {seen.key: seen for seen in found}


def test_poison_is_set_aside_and_its_neighbours_are_what_they_were(run_stream: Callable[..., Stream]) -> None:
    chance = random.Random(5)
    kinds = list(poison_kinds)
    bad = {
        place: kinds[i % len(kinds)] for i, place in enumerate(sorted(chance.sample(range(records), poisons)))
    }
    clean = {b"%d" % number: good(number) for number in range(records) if number not in bad}
    mixed = {
        b"%d" % number: poison_kinds[bad[number]][0] if number in bad else good(number)
        for number in range(records)
    }
    books = []
    for values in (clean, mixed):
        stream = run_stream(values)
        stream.start("a")
        stream.wait(1.0, 200.0)
        books.append(stream.books())
        assert books[-1].check(explained=False) == []
        stream.close()
    letters = by_key(books[1].letters)
    assert letters.keys() == {b"%d" % number for number in bad}
    for number, kind in bad.items():
        payload, stage, reason = poison_kinds[kind]
        body = letters[b"%d" % number].body
        assert (body["stage"], body["reason"]) == (stage, reason), (kind, body)
        assert body["payload"] == payload, kind
    assert not by_key(books[0].letters)
    before, after = by_key(books[0].predictions), by_key(books[1].predictions)
    assert before.keys() == after.keys() == clean.keys()
    changed = [key for key in clean if before[key].body["outputs"] != after[key].body["outputs"]]
    assert not changed, [
        (key, before[key].body["outputs"], after[key].body["outputs"]) for key in changed[:10]
    ]


def test_a_worker_stops_when_nearly_all_is_bad(run_stream: Callable[..., Stream]) -> None:
    bad = encoded()[:-1]
    stream = run_stream(
        {b"%d" % i: bad for i in range(9_000)},  # each partition has more than run_max
        dead_letters={"run_max": 1000},
        objective={"batch_rows_max": 128},
    )
    worker = stream.start("a")
    assert worker.wait(60) == 1
    assert "1000" in stream.said()
    assert "Traceback" not in stream.said()
    assert "from offset 0 on" in stream.said()
    assert len(by_key(stream.books().letters)) <= partitions * (1000 + 128)
