"""Which way a model runs on a GPU: the fastest that says the same. A clock that is moved by hand, and the CPU, stand in for it."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.run_options import NativeProof, Runtime
from penstock.engine.models.runtime import gpu_modes as ways
from penstock.engine.models.runtime.golden import disagreement
from penstock.engine.models.runtime.gpu_modes import (
    Candidate,
    ChosenMode,
    choose_way,
    fastest_way,
    of_graph,
    of_trees,
)
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.one_thread import LimitedModel
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.models.runtime.tree_outputs import TreeAnswers
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, ModelError
from tests.bundles import linear_scores, write_linear, write_stump
from tests.clocks import HandClock
from tests.pretended_gpu import pretend_gpu

with_gpu = [pytest.mark.gpu, pytest.mark.skipif(not cuda_devices(), reason="no GPU here")]
Takes = Callable[[int], float]


class Timed:
    """Says the sum of each row, and takes `takes_ms(rows)`; `wrong(rows, run)` says when it is off by one."""

    def __init__(
        self, clock: HandClock, takes_ms: Takes, wrong: Callable[[int, int], bool] = lambda rows, run: False
    ) -> None:
        self.batch_rows_max = 1 << 20
        self._clock, self._takes_ms, self._wrong = clock, takes_ms, wrong
        self._runs: dict[int, int] = {}

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        rows = len(matrix)
        self._runs[rows] = self._runs.get(rows, 0) + 1
        self._clock.sleep(self._takes_ms(rows) / 1000)
        scores = matrix.astype(np.float64).sum(axis=1, keepdims=True)
        if self._wrong(rows, self._runs[rows]):
            scores[-1] += 1
        return Predictions(outputs={"y": scores}, labels=None, classes=())


def rows_of(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def chosen(clock: HandClock, plain: LimitedModel, *candidates: Candidate, rows_max: int = 4096) -> ChosenMode:
    return choose_way(
        plain,
        candidates,
        where="cuda:0",
        checked=rows_of(9),
        rows=rows_of(50),
        differs=disagreement,
        batch_rows_max=rows_max,
        clock=clock,
    )


def candidate(name: str, model: LimitedModel) -> Candidate:
    return Candidate(name=name, make=lambda: model)


@pytest.mark.parametrize(
    ("takes_ms", "taken"),
    [
        (lambda rows: 0.5 + rows / 1000, True),
        (lambda rows: 1.5 + rows / 1000, True),  # less than a millisecond more on one row
        (lambda rows: 2.5 + rows / 1000, False),  # more than that
        (lambda rows: 0.5 + rows / 250, False),  # no faster where batches are large
    ],
)
def test_a_way_is_taken_if_large_batches_gain_and_small_ones_lose_little(
    takes_ms: Takes, taken: bool
) -> None:
    clock = HandClock()
    plain = Timed(clock, lambda rows: 1 + rows / 300)
    fast = Timed(clock, takes_ms)
    found = chosen(clock, plain, candidate("captured", fast))
    assert found.model is (fast if taken else plain)
    assert found.reason.startswith("captured on cuda:0, " if taken else "plain runs on cuda:0: captured")
    assert [way.name for way in found.ways] == ["plain", "captured"]
    assert (
        [rows for rows, _ in found.ways[0].ms]
        == [rows for rows, _ in found.ways[1].ms]
        == [1, 16, 256, 1024, 4096]
    )
    assert found.ways[1].ms[0][1] == pytest.approx(takes_ms(1))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (lambda rows, run: rows == 9, "row 8 differs by 1"),
        (lambda rows, run: rows == 64, "in batches of 64 row 63 differs by 1"),
        (lambda rows, run: rows == 2 and run == 2, "in batches of 2 row 1 differs by 1"),  # a stale replay
    ],
)
def test_a_way_that_says_something_else_is_not_taken(
    wrong: Callable[[int, int], bool], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    plain, fine = Timed(clock, lambda rows: 1), Timed(clock, lambda rows: 0.5)
    with caplog.at_level(logging.WARNING):
        found = chosen(
            clock,
            plain,
            candidate("captured", Timed(clock, lambda rows: 0.1, wrong)),
            candidate("bound", fine),
        )
    assert found.model is fine
    assert [(way.name, bool(way.fault), bool(way.ms)) for way in found.ways] == [
        ("plain", False, True),
        ("captured", True, False),
        ("bound", False, True),
    ]
    assert where in found.ways[1].fault
    assert f"on cuda:0 the model does not run captured: {where}" in caplog.text


def test_what_cannot_be_had_is_said_once_and_plain_runs_remain(caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> LimitedModel:
        raise ConfigError("a node runs on the CPU")

    class Throws(Timed):
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            raise ModelError("no")

    clock = HandClock()
    plain = Timed(clock, lambda rows: 1)
    with caplog.at_level(logging.INFO):
        found = chosen(
            clock,
            plain,
            Candidate(name="captured", make=refused),
            candidate("bound", Throws(clock, lambda rows: 1)),
        )
    assert found.model is plain
    assert found.reason == "plain runs on cuda:0"
    assert [record.getMessage() for record in caplog.records] == [
        "on cuda:0 the model does not run captured: a node runs on the CPU",
        "on cuda:0 the model does not run bound: no",
        "plain runs on cuda:0",
    ]


def test_a_batch_size_that_takes_seconds_is_the_last_one_run_at_once() -> None:
    clock = HandClock()
    fast = Timed(clock, lambda rows: 5.0 * rows)
    chosen(clock, Timed(clock, lambda rows: 300.0 * rows), candidate("bound", fast))
    assert fast.batch_rows_max == 8


def test_a_graph_and_trees_have_ways_that_say_the_same(tmp_path: Path) -> None:
    """On the CPU, where nothing is captured, all of them run."""
    for bundle in (write_linear(tmp_path / "linear"), write_stump(tmp_path / "stump")):
        opening = Opening(device=Device(), threads=1, batch_rows_max=32)
        plain, rows = opening.open(bundle), bundle.golden.rows
        candidates = (
            of_trees(TreeAnswers(bundle), opening, rows)
            if bundle.trees
            else of_graph(bundle, opening, plain, rows)
        )
        assert [each.name for each in candidates] == (
            ["tensors, captured", "tensors, bound", "tensors"] if bundle.trees else ["captured", "bound"]
        )
        for each in candidates:
            assert disagreement(plain.predict(rows), each.make().predict(rows)) == ""
        way = fastest_way(bundle, plain, opening, rows=rows, slack=0.0, clock=SystemClock())
        assert len(way.ways) == 2
        assert ("ONNX Runtime has no kernels for trees on a GPU" in way.reason) == bundle.trees


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)


@pytest.mark.usefixtures("pretended")
def test_a_model_is_opened_on_a_gpu_in_the_way_that_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = write_linear(tmp_path / "linear")
    with caplog.at_level(logging.INFO):
        model = open_model(bundle, device="cuda:0", batch_rows_max=16, clock=SystemClock())
    assert (model.runtime, model.device.name, model.batch_rows_max) == ("onnxruntime", "cuda:0", 16)
    assert [(way.name, bool(way.fault)) for way in model.ways] == [
        ("plain", False),
        ("captured", True),
        ("bound", False),
    ]
    assert "cannot use the graph capture feature" in caplog.text
    assert "on cuda:0" in model.reason
    assert Opening(device=Device(cuda=0), threads=1, batch_rows_max=16).open(bundle).fills_up
    rows = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict(rows).outputs["scores"], linear_scores(rows), atol=1e-6)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("device", ["auto", "cuda:0"])
def test_trees_run_as_tensors_only_where_that_is_faster_and_our_kernel_only_where_it_may(
    tmp_path: Path, device: str
) -> None:
    bundle = write_stump(tmp_path / "stump")
    proof = Runtime(native=NativeProof(equal=True, reason="", rows=9, tests=1, tests_hit=1))
    bundle = Bundle.write(
        tmp_path / "stump",
        manifest=replace(bundle.manifest, runtime=proof),
        model=bundle.model,
        golden=bundle.golden,
    )
    model = open_model(bundle, device=device, batch_rows_max=8, clock=SystemClock())
    assert [way.name for way in model.ways] == ["plain", "tensors, captured", "tensors, bound"]
    assert bool(model.compared) == (device == "auto")
    if model.runtime == "onnxruntime":
        assert "ONNX Runtime has no kernels for trees on a GPU" in model.reason
    rows = np.array([[0, 0, 0], [np.nan, 0, 0], [1, 0, 0], [-np.inf, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(model.predict(rows).outputs["value"], [[1], [2], [2], [1]])


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("faster", [True, False])
def test_what_a_run_takes_at_once_is_not_raised_by_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    monkeypatch.setattr(ways, "rows_at_once", lambda forest, rows_max: 3)
    monkeypatch.setattr(
        ways, "_faster", lambda plain, other, timed, where: (other if faster else plain, "wanted")
    )
    model = open_model(
        write_stump(tmp_path / "stump"), device="cuda:0", batch_rows_max=16, clock=SystemClock()
    )
    assert model.batch_rows_max == 16
    rows = np.array([[-1, 0, 0], [1, 0, 0]] * 8, dtype=np.float32)
    np.testing.assert_array_equal(model.predict(rows).outputs["value"], [[1], [2]] * 8)


@pytest.mark.usefixtures("pretended")
def test_check_shows_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_linear(tmp_path / "bundle")
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "bundle", "device": "cuda:0"},
        "objective": {"batch_rows_max": 32},
    }
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert main(["check", str(path), "--no-kafka", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runtime"]["ways"]
    assert [way["name"] for way in found] == ["plain", "captured", "bound"]
    assert "graph capture" in found[1]["fault"]
    assert [each["rows"] for each in found[2]["ms"]] == [1, 16, 32]
    assert main(["check", str(path), "--no-kafka"]) == 0
    shown = capsys.readouterr().out
    assert "ways to run it compared" in shown
    assert "captured: ONNX Runtime refuses the model: This session cannot use" in shown


@pytest.mark.parametrize("trees", [pytest.param(False, marks=with_gpu), pytest.param(True, marks=with_gpu)])
def test_on_a_gpu_the_first_way_is_to_be_had(tmp_path: Path, trees: bool) -> None:
    """Nothing in these models keeps ONNX Runtime from capturing them."""
    bundle = write_stump(tmp_path / "stump") if trees else write_linear(tmp_path / "linear")
    model = open_model(bundle, device="cuda:0", batch_rows_max=256, clock=SystemClock())
    assert [(way.name, way.fault) for way in model.ways] == [
        ("plain", ""),
        ("tensors, captured" if trees else "captured", ""),
    ]
