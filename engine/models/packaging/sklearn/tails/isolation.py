"""Isolation forests: what is explained is how long a row's paths are on the mean; the score published is a function of that."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from penstock.engine.models.packaging.sklearn.moved_tests import NotFoldedError
from penstock.engine.models.packaging.sklearn.operators.nodes import Nodes
from penstock.engine.models.packaging.sklearn.tails.sums import Tail
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.readers.sklearn import read_isolation

_note = (
    "explanations are of path_length, the mean length of a record's paths through the trees, in which they add up exactly (as "
    "shap.TreeExplainer has it): long paths are usual, and anomaly_score = {offset:.6g} - 2^(-path_length / {unit:.6g}) rises with them"
)


def isolation_sums(model: IsolationForest, apply: Callable[[Any], Any]) -> tuple[Forest, Tail]:
    """Trees whose sum is the mean length of the paths, and what the forest makes of it.

    `apply`: from the original's rows to those that the forest is given. Raises NotFoldedError, ConfigError.
    """
    forest, unit_of_sum = read_isolation(model)
    unit, offset = unit_of_sum / forest.trees, float(model.offset_)
    if not unit > 0:
        raise NotFoldedError("its trees were grown on one row each")

    def add(graph: Nodes, raw: str) -> str:
        def number(value: float) -> str:
            return graph.tensor(np.array([value]))

        share = graph.node("Pow", [number(2.0), graph.node("Div", [raw, number(-unit)])])
        return graph.node("Sub", [graph.node("Neg", [share]), number(offset)])

    def ask(rows: Any) -> NDArray[np.float64]:
        scores = np.asarray(model.score_samples(apply(rows)), dtype=np.float64)
        return np.asarray(-unit * np.log2(-scores)).reshape(-1, 1)

    tail = Tail(
        name="anomaly_score",
        width=1,
        meaning="anomaly_score",
        sums="path_length",
        sums_meaning="value",
        weights=np.ones((1, 1)),
        whole=None,
        add=add,
        ask=ask,
        asks="score_samples",
        note=_note.format(unit=unit, offset=-offset),
    )
    return replace(forest, leaf_values=forest.leaf_values / forest.trees), tail
