"""The native tree kernel beside ONNX Runtime: served only after it was proved equal, and by `auto` only when it is faster."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from prometheus_client import CollectorRegistry

from penstock.engine.clock import SystemClock
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.bundle.run_options import NativeProof, Runtime
from penstock.engine.models.probes.boundary_rows import threshold_rows
from penstock.engine.models.runtime import loader as served
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.native_trees import NativeModel, difference, difference_max, prove
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.ports import Predictions
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.worker.assembly import show_model
from penstock.schemas.errors import ConfigError
from tests.bundles import constant, graph_bytes, numbers, tensor, write_linear, write_stump
from tests.forests import categories, random_forest, random_rows

proved = Runtime(native=NativeProof(equal=True, reason="", rows=77, tests=1, tests_hit=1))


@dataclass(frozen=True, kw_only=True)
class Graph:
    model: bytes
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None
    table: None = None


def graph_of(forest: Forest) -> Graph:
    """Every third feature is a category, as in random_forest."""
    features = tuple(
        Feature(
            name=f"c{place}", kind="category", categories=tuple(map(str, range(categories))), infinite="pass"
        )
        if place % 3 == 0
        else Feature(name=f"x{place}", kind="number", infinite="pass")
        for place in range(forest.features)
    )
    inputs = (ModelInput(name="features", dtype="float32", start=0, width=forest.features),)
    return Graph(
        model=bytes(write_forest(forest).SerializeToString()),
        signature=Signature(features=features, inputs=inputs),
        outputs=(ModelOutput(name=forest.output_name, width=forest.classes),),
        labels=Labels(classes=forest.labels, output=forest.output_name, values=None)
        if forest.labels
        else None,
    )


def onnx_model(graph: Graph) -> OnnxModel:
    return OnnxModel(
        model=graph.model,
        signature=graph.signature,
        outputs=graph.outputs,
        labels=graph.labels,
        device=Device(),
        threads=1,
        batch_rows_max=512,
    )


def rows_of(seed: int, count: int) -> NDArray[np.float32]:
    rows = random_rows(seed, count)
    whole = np.floor(np.abs(np.where(np.isfinite(rows[:, ::3]), rows[:, ::3], 0))) % categories
    rows[:, ::3] = np.where(np.isnan(rows[:, ::3]), np.nan, whole)
    return rows


kinds: list[dict[str, Any]] = [
    {"outputs": 1},
    {"outputs": 3},
    {"outputs": 2, "post": PostTransform.EXP},
    {"labels": ("no", "yes"), "post": PostTransform.LOGISTIC},
    {"labels": ("no", "yes")},
    {"labels": ("0", "1"), "positive": True, "mirror": 1.0},
    {"outputs": 3, "labels": ("a", "b", "c"), "post": PostTransform.SOFTMAX},
    {"outputs": 3, "labels": ("a", "b", "c"), "post": PostTransform.LOGISTIC},
]


@pytest.mark.parametrize("kind", kinds, ids=lambda kind: "-".join(map(str, kind.values())))
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_kernel_says_what_onnx_runtime_says(kind: dict[str, Any], seed: int) -> None:
    graph = graph_of(random_forest(seed, depth=3, **kind))
    found = difference(onnx_model(graph), NativeModel(graph), rows_of(seed, 300))
    assert found.of_span <= difference_max
    proof, _ = prove(graph, onnx_model(graph), rows_of(seed, 50).astype(np.float64))
    assert proof.equal, proof.reason
    assert proof.rows > 50 + 3 * proof.tests_hit


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 299), max_size=4), threads=st.integers(1, 3)
)
def test_a_row_scores_the_same_bits_in_any_batch(seed: int, cuts: list[int], threads: int) -> None:
    graph = graph_of(random_forest(seed % 7, trees=30, labels=("no", "yes"), post=PostTransform.LOGISTIC))
    rows = rows_of(seed, 300)
    whole = NativeModel(graph, threads=threads).predict(rows).outputs["scores"]
    one = NativeModel(graph)
    parts = [one.predict(part).outputs["scores"] for part in np.split(rows, sorted(cuts)) if len(part)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_labels_that_the_graph_answers_are_compared_as_well() -> None:
    forest = random_forest(1, labels=("0", "1"), post=PostTransform.LOGISTIC)
    graph = replace(graph_of(forest), labels=Labels(classes=("no", "yes"), output="label", values=(0, 1)))
    found = NativeModel(graph).predict(rows_of(1, 50))
    expected = onnx_model(graph).predict(rows_of(1, 50))
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, expected.labels)
    swapped = replace(graph, labels=Labels(classes=("no", "yes"), output="label", values=(1, 0)))
    proof, _ = prove(swapped, onnx_model(swapped), rows_of(1, 50).astype(np.float64))
    assert not proof.equal
    assert proof.labels_different > 0
    assert "another class" in proof.reason


def test_a_threshold_that_is_off_by_one_float_is_found_wherever_it_is() -> None:
    forest = random_forest(5, sets=0, features=40)
    graph = graph_of(forest)
    base = np.abs(random_rows(5, 50, 40, infinite=False)).astype(np.float64)
    base[:, ::3] %= categories
    assert prove(graph, onnx_model(graph), base)[0].equal
    tried = 0
    for path in _paths(forest):
        features = forest.feature[path]
        if (features % 3 == 0).any() or len(set(features.tolist())) < len(path):
            continue  # codes have no floats beside them, and random tests of one feature may contradict each other
        moved = forest.threshold.copy()
        moved[path[-1]] = np.nextafter(moved[path[-1]], np.float32(np.inf))
        proof, _ = prove(graph, onnx_model(graph_of(replace(forest, threshold=moved))), base)
        assert not proof.equal
        assert "differs from ONNX Runtime's" in proof.reason
        tried += 1
    assert tried > 5


def _paths(forest: Forest) -> list[list[int]]:
    """The tests from the root to each test."""
    waiting, found = [[root] for root in forest.roots.tolist()], []
    while waiting:
        path = waiting.pop()
        if forest.leaf[path[-1]] < 0:
            found.append(path)
            waiting += [[*path, int(child[path[-1]])] for child in (forest.yes, forest.no)]
    return found


def test_every_test_is_met_on_its_threshold_and_beside_it() -> None:
    forest = random_forest(3, sets=0, depth=3, features=12)
    signature = graph_of(forest).signature
    base = np.abs(random_rows(3, 100, 12, infinite=False)).astype(np.float64)
    found = threshold_rows(forest, signature, base, tests_max=1000)
    rows = found.rows.astype(np.float32)
    met = 0
    for root in forest.roots.tolist():
        waiting = [(root, np.ones(len(rows), dtype=np.bool_))]
        while waiting:
            node, here = waiting.pop()
            if forest.leaf[node] >= 0:
                continue
            x, threshold = rows[:, forest.feature[node]], forest.threshold[node]
            if forest.feature[node] % 3:  # codes of categories have no floats beside them
                beside = [np.nextafter(threshold, np.float32(end)) for end in (-np.inf, np.inf)]
                met += all((x[here] == value).any() for value in (threshold, *beside))
            passes = forest.passes(np.full(len(x), node, dtype=np.int32), x)
            waiting += [(int(forest.yes[node]), here & passes), (int(forest.no[node]), here & ~passes)]
    numeric = int((forest.feature[forest.feature >= 0] % 3 != 0).sum())
    assert 0.8 * numeric < met <= numeric  # a few of these random tests contradict those above them
    assert found.tests_hit >= met


def test_what_the_kernel_does_not_take_is_said() -> None:
    graph = graph_of(random_forest(1))
    more = (ModelOutput(name="scores", width=1), ModelOutput(name="more", width=1))
    with pytest.raises(ConfigError, match="no output more"):
        NativeModel(replace(graph, outputs=more))
    wide = (replace(graph.signature.inputs[0], dtype="float64"),)
    with pytest.raises(ConfigError, match="inputs are float32"):
        NativeModel(replace(graph, signature=replace(graph.signature, inputs=wide)))


def _stump(path: Path, **options: Any) -> Bundle:
    bundle = write_stump(path)
    return Bundle.write(
        path,
        manifest=replace(bundle.manifest, runtime=options.get("runtime", proved)),
        model=bundle.model,
        golden=bundle.golden,
    )


def test_auto_serves_a_proved_kernel_that_is_faster(tmp_path: Path) -> None:
    class Clock:
        """ONNX Runtime seems to take a second longer."""

        now_s, calls = 0.0, 0

        def monotonic_s(self) -> float:
            self.calls += 1
            self.now_s += 1.0 if self.calls % 4 == 0 else 0.5  # two looks before, at the rows
            return self.now_s

        def wall_ms(self) -> int:
            raise AssertionError

        def sleep(self, duration_s: float) -> None:
            raise AssertionError

    bundle = _stump(tmp_path / "stump")
    model = open_model(bundle, device="cpu", batch_rows_max=1, clock=Clock())
    assert model.runtime == "native"
    assert "equal to ONNX Runtime on 77 rows when packaged, and 2.0 times as fast here" in model.reason
    assert [(each.rows, each.speed_up) for each in model.compared] == [(1, 2.0)]
    Clock.now_s, Clock.calls = 0.0, 2  # now it is the kernel that takes longer
    slow = open_model(bundle, device="cpu", batch_rows_max=1, clock=Clock())
    assert slow.runtime == "onnxruntime"
    assert "not faster here" in slow.reason
    rows = np.array([[0, 0, 0], [np.nan, 0, 0], [1, 0, 0], [-np.inf, 0, 0]], dtype=np.float32)
    for opened in (model, slow):
        np.testing.assert_array_equal(opened.predict(rows).outputs["value"], [[1], [2], [2], [1]])


def test_auto_does_not_serve_what_packaging_did_not_prove(tmp_path: Path) -> None:
    unproved = Runtime(native=NativeProof(equal=False, reason="3 rows get another class", rows=9))
    model = open_model(
        _stump(tmp_path / "b", runtime=unproved), device="cpu", batch_rows_max=4, clock=SystemClock()
    )
    assert (model.runtime, model.reason, model.compared) == ("onnxruntime", "3 rows get another class", ())
    for runtime in ("onnxruntime", "native"):  # asked for by name, it is proved here and now
        named = open_model(
            _stump(tmp_path / "b", runtime=unproved),
            device="cpu",
            runtime=runtime,
            batch_rows_max=4,
            clock=SystemClock(),
        )
        assert named.runtime == runtime
        assert "model.runtime asks for it" in named.reason


class _Wrong(NativeModel):
    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        found = super().predict(matrix)
        return replace(found, outputs={name: scores + 1e-4 for name, scores in found.outputs.items()})


def test_a_kernel_that_disagrees_at_start_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served, "NativeModel", _Wrong)
    bundle = _stump(tmp_path / "stump")
    with caplog.at_level(logging.WARNING):
        model = open_model(bundle, device="cpu", batch_rows_max=4, clock=SystemClock())
    assert model.runtime == "onnxruntime"
    assert "on this machine a score differs" in model.reason
    assert "the tree kernel is not used" in caplog.text
    with pytest.raises(ConfigError, match=r"runtime native: a score differs from ONNX Runtime's by 5e-05"):
        open_model(bundle, device="cpu", runtime="native", batch_rows_max=4, clock=SystemClock())


def test_the_native_runtime_takes_trees_on_the_cpu_only(tmp_path: Path) -> None:
    linear = write_linear(tmp_path / "linear")
    with pytest.raises(ConfigError, match=r"runtime native: our tree kernel takes tree ensembles only"):
        open_model(linear, device="cpu", runtime="native", batch_rows_max=4, clock=SystemClock())
    with pytest.raises(ConfigError, match="native runs on the CPU"):
        open_model(linear, device="cuda:0", runtime="native", batch_rows_max=4, clock=SystemClock())


def test_the_runtime_and_its_proof_are_shown(tmp_path: Path) -> None:
    bundle = _stump(tmp_path / "stump")
    model = open_model(bundle, device="cpu", runtime="native", batch_rows_max=2, clock=SystemClock())
    metrics = Metrics(CollectorRegistry())
    board = StatusBoard(worker="w", group="g", topic="t", clock=SystemClock(), rows_max=2)
    show_model(bundle, model, metrics, board)
    labels = {"name": "stump", "version": "1", "digest": bundle.digest, "device": "cpu", "runtime": "native"}
    value = metrics.registry.get_sample_value
    assert value("penstock_model_info", labels) == 1
    assert value("penstock_native_proof_rows") == 77
    for timing in model.warmup:
        at = {"runtime": "native", "rows": str(timing.rows)}
        assert value("penstock_model_batch_seconds", at) == timing.ms / 1000
    status = board.status().as_dict()["model"]
    assert status == {**labels, "runtime_reason": model.reason}


def test_what_a_mix_of_rows_would_break_is_measured_on_rows_as_they_are(tmp_path: Path) -> None:
    """The model throws unless i + j stays below 4, as it does in every golden row."""
    table = constant("table", np.arange(4, dtype=np.float32).reshape(4, 1))
    nodes = [
        helper.make_node("Add", ["i", "j"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["y"], axis=0),
    ]
    inputs = [tensor(name, ["N"], TensorProto.INT64) for name in "ij"]
    model = graph_bytes(nodes, inputs, [tensor("y", ["N", 1])], [table])
    rows = np.array([[0.0, 3.0], [3.0, 0.0]])
    bundle = write_linear(tmp_path / "linear")
    signature = Signature(
        features=numbers("i", "j", missing="reject"),
        inputs=tuple(ModelInput(name=name, dtype="int64", start=at, width=1) for at, name in enumerate("ij")),
    )
    gather = Bundle.write(
        tmp_path / "gather",
        manifest=replace(
            bundle.manifest, signature=signature, outputs=(ModelOutput(name="y", width=1),), labels=None
        ),
        model=model,
        golden=replace(bundle.golden, rows=rows, outputs={"y": np.full((2, 1), 3.0)}, labels=None),
    )
    opened = open_model(gather, device="cpu", batch_rows_max=8, clock=SystemClock())
    assert [timing.rows for timing in opened.warmup] == [1, 2, 4, 8]
