"""Which of several ways to the same values is taken: on the CPU, where the graph can run too, and a GPU that is none."""

import gc
import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.tree.fused_shap import FusedShap
from penstock.engine.explain.tree.on_device import faster_shap
from penstock.engine.explain.tree.tensor_graph import GraphShap
from penstock.engine.explain.tree.tree_shap import Precision, TreeShap, TreeValues
from penstock.engine.gpu.device import Device
from tests.clocks import HandClock
from tests.fake_cuda import FakeCuda
from tests.forests import random_forest, random_rows


class Tampered(TreeShap):
    """Takes its time, and is off by so much."""

    clock = HandClock()
    takes_s = 0.0
    off = 0.0

    def contributions(
        self, rows: NDArray[np.float32], *, precision: Precision = "float32"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self.clock.sleep(self.takes_s)
        values, raw = super().contributions(rows, precision=precision)
        return values + self.off, raw


class SlowGraph(GraphShap):
    """On the CPU, wherever it should be, and takes its time."""

    takes_s = 0.5

    def __init__(self, *arguments: object, device: Device) -> None:
        super().__init__(*arguments, device=Device())  # type: ignore[arg-type]

    def contributions(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        Tampered.clock.sleep(self.takes_s)
        return super().contributions(rows)


def chosen(
    shap: Tampered, background: NDArray[np.float32] | None = None, *, cuda: FakeCuda | None = None
) -> TreeValues:
    rows = random_rows(1, 30, features=shap.forest.features)
    return faster_shap(
        shap,
        Device(cuda=0 if cuda else None),
        rows=rows,
        background=background,
        clock=shap.clock,
        libraries=cuda.libraries if cuda else None,
    )


@pytest.mark.parametrize("with_background", [False, True])
def test_the_graph_is_taken_where_it_is_faster_and_says_the_same(with_background: bool) -> None:
    forest = random_forest(3, trees=6, depth=4, features=5, sets=0)
    background = random_rows(2, 10, features=5)
    shap = Tampered(forest, background=background if with_background else None)
    assert chosen(shap, background) is shap
    shap.takes_s = 1.0
    graph = chosen(shap, background)
    assert isinstance(graph, GraphShap)
    assert (graph.method, graph.background_digest) == (shap.method, shap.background_digest)
    np.testing.assert_allclose(graph.base, shap.base, atol=1e-12)


def test_a_graph_that_says_something_else_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    shap = Tampered(random_forest(3, trees=6, depth=4, features=5, sets=0))
    shap.takes_s, shap.off = 1.0, 1e-3
    assert chosen(shap) is shap
    assert "differs by" in caplog.text


def test_trees_that_the_graph_cannot_say_stay_on_the_cpu() -> None:
    shap = Tampered(random_forest(1, sets=5))
    shap.takes_s = 1.0
    assert chosen(shap) is shap


@pytest.mark.parametrize("with_background", [False, True])
def test_the_fused_kernel_is_taken_where_it_is_fastest(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, with_background: bool
) -> None:
    monkeypatch.setattr("penstock.engine.explain.tree.on_device.GraphShap", SlowGraph)
    caplog.set_level(logging.INFO)
    background = random_rows(2, 10, features=5)
    forest = random_forest(3, trees=6, depth=4, features=5, sets=0)
    shap = Tampered(forest, background=background if with_background else None)
    shap.takes_s = 1.0
    fused = chosen(shap, background, cuda=cuda)
    assert isinstance(fused, FusedShap)
    assert (fused.method, fused.background_digest) == (shap.method, shap.background_digest)
    assert (
        "trees are explained by the fused kernel on cuda:0: 1024 rows take 0.00 ms by the fused kernel on cuda:0, "
        "500.00 ms by a tensor graph on cuda:0, 1000.00 ms by the CPU"
    ) in caplog.text
    X = random_rows(7, 50, features=5)
    np.testing.assert_allclose(fused.contributions(X)[0], shap.contributions(X)[0], atol=1e-5)


@pytest.mark.parametrize("fastest", ["the CPU", "a tensor graph"])
def test_a_fused_kernel_that_is_not_taken_leaves_the_gpu(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, fastest: str
) -> None:
    monkeypatch.setattr("penstock.engine.explain.tree.on_device.GraphShap", SlowGraph)
    monkeypatch.setattr(SlowGraph, "takes_s", 0.0 if fastest == "a tensor graph" else 0.5)
    shap = Tampered(random_forest(3, trees=6, depth=4, features=5, sets=0))
    shap.takes_s = 1.0 if fastest == "a tensor graph" else 0.0
    assert isinstance(chosen(shap, cuda=cuda), GraphShap if fastest == "a tensor graph" else Tampered)
    assert cuda.calls("cuLaunchKernel") > 0
    assert cuda.held == 0


@pytest.mark.parametrize("fault", ["differs by", "an illegal memory access was encountered", "out of memory"])
def test_a_gpu_that_cannot_be_relied_on_is_not_used(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    monkeypatch.setattr("penstock.engine.explain.tree.on_device.GraphShap", SlowGraph)
    caplog.set_level(logging.INFO)
    shap = Tampered(random_forest(3, trees=6, depth=4, features=5, sets=0))
    shap.takes_s = 0.1
    if fault == "differs by":
        shap.off = 1e-3
    elif fault == "out of memory":
        cuda.has_memory(1000)
    else:
        cuda.fail("cuMemcpyDtoHAsync_v2", 700)
    assert chosen(shap, cuda=cuda) is shap
    assert fault in caplog.text
    gc.collect()
    assert cuda.held == 0
