"""What the page of the model draws: a network's graph, a feature's dependence, the strengths over the background."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

import penstock
from penstock.engine.clock import SystemClock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pages.documents.dependence import (
    attribution_steps,
    dependence_document,
    values_apart_max,
)
from penstock.engine.pages.documents.model import model_document
from penstock.engine.pages.model_watch import ModelWatch
from penstock.engine.pages.worker import background as strengths
from penstock.engine.pages.worker.background import BackgroundStrengths
from penstock.engine.pages.worker.model_graph import graph_of, nodes_told_max
from penstock.engine.pages.worker.points import Points, cells_max, rows_max
from penstock.engine.pipeline.sampling import Pairs, Sampler
from penstock.engine.settings.model import ExplainSettings
from penstock.engine.telemetry.ask_workers import Reply
from tests.clocks import HandClock
from tests.pages.running import package_model
from tests.unit.pages.test_worker_side import batch


def network(middle: int) -> bytes:
    """x (N, 3) -> two branches -> their sum, and `middle` operators in a row behind it."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], np.ones(12))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="left"),
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])),
        helper.make_node("Mul", ["a", "c"], ["b"], name="right"),
        helper.make_node("Add", ["a", "b"], ["y0"], name="\u202e<b>"),
        *(helper.make_node("LeakyRelu", [f"y{at}"], [f"y{at + 1}"], alpha=0.25) for at in range(middle)),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(f"y{middle}", TensorProto.FLOAT, ["N", 4])], [weight],
    )  # fmt: skip
    written: bytes = helper.make_model(graph).SerializeToString()
    return written


def test_a_graph_tells_each_operator_with_its_layer_its_makers_and_what_it_learned() -> None:
    found = graph_of(network(1))
    assert found is not None
    assert [(each["operator"], each["layer"], each["comes_from"]) for each in found["nodes"]] == [
        ("MatMul", 1, []), ("Mul", 2, [0]), ("Add", 3, [0, 1]), ("LeakyRelu", 4, [2]),
    ]  # fmt: skip
    assert (found["nodes_total"], found["layers"], found["parameters"]) == (4, 4, 12)
    first, last = found["nodes"][0], found["nodes"][-1]
    assert (first["inputs"], first["shape"], first["parameters"]) == (["x"], "N × 4", 12)
    assert last["attributes"] == "alpha=0.25"
    assert found["outputs"] == [{"output": "y1", "comes_from": 3}]
    assert all(each["name"].isprintable() for each in found["nodes"])


def test_of_a_large_graph_the_first_operators_are_told_and_all_are_counted() -> None:
    found = graph_of(network(1000))
    assert found is not None
    assert (len(found["nodes"]), found["nodes_total"], found["layers"]) == (nodes_told_max, 1003, 1003)


@pytest.mark.parametrize("model", [b"", b"\xff\xff\xff", b"PK\x03\x04"])
def test_bytes_that_are_no_graph_have_none(model: bytes) -> None:
    found = graph_of(model)
    assert found is None or found["nodes_total"] == 0


@pytest.mark.parametrize("width", [1, 30, 2000, cells_max * 2])
def test_points_are_the_newest_and_bounded_by_the_width(width: int) -> None:
    points = Points()
    room = max(min(cells_max // width, rows_max), 1)
    added = 0
    while added < room * 2.5:
        rows = min(room, 200) + 1
        values = np.repeat(np.arange(added, added + rows, dtype=np.float32)[:, None], width, axis=1)
        points.add(
            Pairs(values=values, attributions=-values.astype(np.float64), outputs=np.zeros(rows, np.int64))
        )
        added += rows
    told = points.of_column(width - 1, two_classes=False)
    assert sorted(told["values"]) == list(range(added - room, added))
    assert [-each for each in told["values"]] == told["attributions"]
    assert points.of_column(width, two_classes=True)["values"] == []


def test_of_two_classes_all_attributions_are_of_the_second() -> None:
    points = Points()
    outputs = np.array([0, 1, 0])
    points.add(Pairs(values=np.ones((3, 1)), attributions=np.array([[1.0], [2.0], [-3.0]]), outputs=outputs))
    assert points.of_column(0, two_classes=True)["attributions"] == [-1.0, 2.0, 3.0]
    assert points.of_column(0, two_classes=True)["outputs"] == [1]
    assert points.of_column(0, two_classes=False)["attributions"] == [1.0, 2.0, -3.0]
    assert points.of_column(0, two_classes=False)["outputs"] == [0, 1]


@pytest.mark.parametrize(
    ("outputs", "code"),
    [
        ([], "dependence.range"),
        (["fraud"], "dependence.range_of_class"),
        (["a", "b", "c"], "dependence.range_of_predicted"),
    ],
)
def test_what_an_attribution_is_of_is_said(outputs: list[str], code: str) -> None:
    said = dependence_document(0, 0, [told([1.0, 2.0], [1.0, 2.0], outputs=outputs)])["summary"][0]
    assert said["code"] == code
    assert all(each in said["text"] for each in outputs)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_sample_holds_rows_beside_the_attributions_of_the_class_that_was_predicted(outputs: int) -> None:
    given_batch: dict[str, Any] = batch(20, 2)
    if outputs > 1:
        part, found = given_batch["explained"].parts[0]
        labels = np.arange(20) % outputs
        wide = np.repeat(found.values, outputs, axis=0) * 10 + np.tile(np.arange(outputs), 20)[:, None]
        replaced = type(found)(
            **{name: getattr(found, name) for name in found.__dataclass_fields__}
            | {
                "values": wide,
                "base": np.zeros(20 * outputs),
                "output_index": np.tile(np.arange(outputs), 20),
                "additivity_error": np.zeros(20 * outputs),
            }
        )
        given_batch["explained"] = type(given_batch["explained"])(
            parts=((part, replaced),), failed=given_batch["explained"].failed, skipped=given_batch["explained"].skipped
        )  # fmt: skip
        predictions = given_batch["predictions"]
        given_batch["predictions"] = type(predictions)(
            outputs=predictions.outputs, labels=labels, classes=("a", "b", "c")
        )
    sample = Sampler(HandClock()).take(**given_batch)
    assert sample is not None
    assert sample.pairs is not None
    values: NDArray[Any] = sample.pairs.values[:, 0]
    attributions = sample.pairs.attributions[:, 0]
    wanted = values if outputs == 1 else values * 10 + np.arange(20) % outputs
    assert attributions.tolist() == wanted.tolist()
    assert sample.pairs.outputs.tolist() == [at % outputs for at in range(20)]


def told(values: list[float | None], attributions: list[float], **more: Any) -> dict[str, Any]:
    return {
        "feature": "amount", "kind": "number", "categories": [], "masked": False, "space": "log_odds", "outputs": [], "values": values,
        "attributions": attributions, **more,
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(allow_nan=False, width=32)), st.floats(-1e6, 1e6, allow_nan=False)
        ),
        max_size=80,
    )
)
def test_every_record_is_in_one_step_of_the_dependence(records: list[tuple[float | None, float]]) -> None:
    document = dependence_document(0, 0, [told([each for each, _ in records], [each for _, each in records])])
    steps = document["steps"]
    assert sum(each["records"] for each in steps) == document["records"] == len(records)
    for step in steps:
        assert len(step["counts"]) == attribution_steps
        assert sum(step["counts"]) == step["records"] > 0
        inside = [
            amount
            for value, amount in records
            if (value is None) == step["missing"] and (step["missing"] or _within(value, step))  # type: ignore[arg-type]
        ]
        assert len(inside) >= step["records"]
        assert step["lowest"] - 1e-9 <= step["mean"] <= step["highest"] + 1e-9
    assert len(document["summary"]) == 1
    assert "nan" not in document["summary"][0]["text"].lower()


def _within(value: float, step: dict[str, Any]) -> bool:
    low = -np.inf if step["from"] is None else step["from"]
    high = np.inf if step["to"] is None else step["to"]
    return bool(low <= value <= high)


def test_the_dependence_of_several_workers_is_of_all_their_records_and_follows_the_values() -> None:
    draw = np.random.default_rng(4)
    values = draw.normal(0, 1, 900)
    halves = [told(part.tolist(), (part * 2).tolist()) for part in np.array_split(values, 3)]
    document = dependence_document(0, 3, halves)
    assert document["records"] == 900
    means = [each["mean"] for each in document["steps"]]
    assert len(means) > values_apart_max / 2
    assert means == sorted(means)


def test_categories_have_their_names_and_masked_columns_nothing() -> None:
    document = dependence_document(
        0, 1, [told([0.0, 1.0, 1.0, 7.0], [1.0, 2.0, 4.0, 0.0], kind="category", categories=["CH", "<b>"])]
    )
    assert [(each["category"], each["mean"]) for each in document["steps"]] == [("CH", 1.0), ("<b>", 3.0), ("7", 0.0)]  # fmt: skip
    hidden = dependence_document(0, 1, [told([], [], masked=True)])
    assert (hidden["steps"], hidden["summary"][0]["code"]) == ([], "dependence.masked")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    package_model(folder / "model", trees=10)
    return Bundle.load(folder / "model")


def worked_out(bundle: Bundle, settings: ExplainSettings) -> dict[str, Any]:
    asked = BackgroundStrengths(bundle, settings, clock=SystemClock())
    until_s = time.monotonic() + 60
    while (found := asked.told())["state"] == "working":
        assert time.monotonic() < until_s
        time.sleep(0.02)
    return found


def test_strengths_over_the_background_are_those_of_explaining_it(bundle: Bundle, tmp_path: Path) -> None:
    found = worked_out(bundle, ExplainSettings())
    assert bundle.background is not None
    assert found["rows"] == len(bundle.background) == 100
    package_model(tmp_path / "model", trees=10)
    held = penstock.load(tmp_path / "model")
    expected = np.abs(held.explain(bundle.background).values).sum(axis=0)
    assert found["sums"] == pytest.approx(expected.tolist(), rel=1e-9)


def test_where_nothing_is_explained_or_the_model_is_too_large_there_are_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worked_out(bundle, ExplainSettings(policy="none"))["state"] == "none"
    monkeypatch.setattr(strengths, "model_bytes_max", 10)
    assert worked_out(bundle, ExplainSettings())["state"] == "none"


@pytest.mark.parametrize(
    ("records", "sums", "word"),
    [
        (100, [50.0, 10.0], "more"),
        (100, [500.0, 10.0], "less"),
        (100, [198.0, 20.1], "about"),
        (5, [50.0, 10.0], ""),
        (100, [], ""),
    ],
)
def test_the_feature_furthest_from_the_background_is_named(
    records: int, sums: list[float], word: str
) -> None:
    described = {
        "model": {"name": "m", "version": "1", "runtime": "r", "device": "d", "runtime_reason": ""}, "columns": ["a", "b"], "features_total": 2,
        "trees": None, "graph": None, "outputs": [], "complete": True,
    }  # fmt: skip
    reasons = [{"lately": {"rows": records, "sums": [2.0 * records, 0.2 * records], "span_s": 5.0}, "before": {"rows": 0, "sums": []},
                "space": "value", "scores": None}]  # fmt: skip
    document = model_document(
        0, described, reasons, ["d"], {"state": "known", "rows": 100 if sums else 0, "sums": sums}
    )
    spoken = [each["text"] for each in document["summary"] if "background" in each["code"]]
    assert [
        f"a changed most: it moves the output {word}, by" in each or f"is {word} as strong as" in each
        for each in spoken
    ] == [True] * bool(word)
    strengths_told = [each["background"] for each in document["importance"]["features"]]
    assert strengths_told == ([sums[0] / 100, sums[1] / 100] if sums else [None, None])


def test_a_whole_graph_of_onnx_is_read_as_it_was_written() -> None:
    """The count of its operators is the file's own."""
    model = onnx.load_model_from_string(network(7))
    found = graph_of(network(7))
    assert found is not None
    assert found["nodes_total"] == sum(each.op_type != "Constant" for each in model.graph.node)


def test_workers_that_serve_another_model_have_no_part_in_a_dependence_and_one_of_each_works_out_the_background() -> (
    None
):
    asked: list[tuple[str, str]] = []

    def ask(path_of: Any) -> dict[str, Reply]:
        paths = {slot: path_of(slot) for slot in digests}
        asked.extend((slot, path) for slot, path in paths.items() if path is not None)
        body = orjson.dumps(told([1.0], [2.0], state="known", rows=1, sums=[1.0]))
        return {slot: Reply(status=200, body=body) for slot, path in paths.items() if path is not None}

    digests = {"0": "new", "1": "old", "2": "old"}
    watch = ModelWatch(ask, digests=lambda: digests, clock=HandClock())
    found = watch.dependence(0)
    assert found is not None
    assert found["records"] == 2
    assert {slot for slot, _ in asked} == {"1", "2"}
    asked.clear()
    watch.look()
    assert len([slot for slot, path in asked if path == "/pages/background"]) == 2
