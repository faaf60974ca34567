"""Which of two ways to the same values is taken: on the CPU, where the graph can run too."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.explain.on_device import faster_shap
from engine.explain.tensor_graph import GraphShap
from engine.explain.tree_shap import Precision, TreeShap
from engine.models.device import Device
from tests.forests import random_forest, random_rows


class HandClock:
    """Stands still unless moved."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


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


def chosen(shap: Tampered, background: NDArray[np.float32] | None = None) -> TreeShap | GraphShap:
    rows = random_rows(1, 30, features=shap.forest.features)
    return faster_shap(shap, Device(), rows=rows, background=background, clock=shap.clock)


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
