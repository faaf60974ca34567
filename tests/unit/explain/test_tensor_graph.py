"""Tree SHAP as a plain ONNX graph, against the oracle; on the CPU here, and on a GPU where there is one."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.tree import leaf_groups
from penstock.engine.explain.tree import reference as oracle
from penstock.engine.explain.tree.leaf_groups import cut
from penstock.engine.explain.tree.leaf_tables import LeafTables
from penstock.engine.explain.tree.tensor_graph import GraphShap, tensor_graph
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest, random_rows

devices = [
    pytest.param(Device(), id="cpu"),
    pytest.param(
        Device(cuda=0),
        id="cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not cuda_devices(), reason="no GPU here")],
    ),
]


def check(found: GraphShap, X: NDArray[np.float32], background: NDArray[np.float32] | None) -> None:
    forest = found.forest
    expected, base = (
        oracle.path_dependent(forest, X)
        if background is None
        else oracle.interventional(forest, X, background)
    )
    values, raw = found.contributions(X)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(values, expected, atol=2e-6 * scale)
    np.testing.assert_allclose(found.base, base, atol=1e-12)
    np.testing.assert_allclose(raw, forest.raw_scores(X), atol=2e-6 * scale)
    np.testing.assert_allclose(found.base + values.sum(axis=1), raw, atol=1e-5 * scale)


@pytest.mark.parametrize("device", devices)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_background", [False, True])
def test_the_graph_says_what_the_oracle_says(device: Device, seed: int, with_background: bool) -> None:
    forest = random_forest(
        seed, trees=1 + 3 * seed, depth=2 + seed, features=3 + seed, outputs=1 + seed % 3, sets=0
    )
    X = random_rows(seed, 40, features=forest.features)
    background = random_rows(seed + 50, 12, features=forest.features) if with_background else None
    check(GraphShap(LeafTables.of(forest, background), device=device), X, background)


def test_a_tree_that_is_one_leaf_and_batches_beyond_a_run() -> None:
    forest = random_forest(4, trees=3, depth=0, features=2, sets=0)
    check(GraphShap(LeafTables.of(forest), device=Device()), random_rows(1, 5, features=2), None)
    forest = random_forest(5, trees=4, depth=4, features=5, sets=0)
    check(GraphShap(LeafTables.of(forest), device=Device(), rows_max=7), random_rows(1, 50, features=5), None)
    mixed = random_forest(13, trees=12, depth=1, features=2, sets=0)
    assert (
        len(GraphShap(LeafTables.of(mixed), device=Device()).contributions(random_rows(1, 0, features=2))[0])
        == 0
    )


def test_groups_are_as_large_as_their_answers_allow_and_hold_every_leaf_once() -> None:
    forest = random_forest(2, trees=5, depth=7, features=6, sets=0)
    groups = cut(forest)
    assert max(len(group.nodes) for group in groups) <= leaf_groups.bits_max
    rows = [leaf.row for group in groups for leaf in group.leaves]
    assert sorted(rows) == list(range(len(forest.leaf_values)))
    assert len(groups) < len(rows)


def test_the_graph_is_made_of_standard_operators_only() -> None:
    forest = random_forest(1, trees=4, depth=5, features=4, sets=0)
    model = onnx.load_from_string(tensor_graph(LeafTables.of(forest)))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


def test_what_tables_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="categories"):
        LeafTables.of(random_forest(1, sets=5))
    with pytest.raises(ConfigError, match="8 tests"):
        LeafTables.of(random_forest(1, trees=2, depth=11, sets=0))
    with pytest.raises(ConfigError, match="covers"):
        LeafTables.of(random_forest(1, sets=0, covers=False))
    tables = LeafTables.of(random_forest(1, trees=9, depth=6, sets=0))
    monkeypatch.setattr("penstock.engine.explain.tree.tensor_graph.table_bytes_max", 1000)
    with pytest.raises(ConfigError, match="a tensor graph of these trees needs"):
        GraphShap(tables, device=Device())
    monkeypatch.setattr("penstock.engine.explain.tree.leaf_tables.table_bytes_max", 1000)
    with pytest.raises(ConfigError, match="of tables"):
        LeafTables.of(random_forest(1, trees=9, depth=6, sets=0))
