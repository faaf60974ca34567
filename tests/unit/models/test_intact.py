"""Estimators from files with parts that scikit-learn's compiled code would follow out of its arrays: refused before any row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from penstock.engine.models.packaging.sklearn.stored import skops_files
from penstock.engine.models.packaging.sklearn.stored.intact import check_intact
from penstock.engine.models.packaging.sklearn.stored.skops_files import load_skops
from penstock.engine.trees.readers.assemble import Tree
from penstock.schemas.errors import ConfigError
from tests.bundles import one_value

_chance = np.random.default_rng(16)
rows = _chance.normal(size=(200, 4))
answers = (rows[:, 0] + rows[:, 1] > 0).astype(int) + (rows[:, 2] > 1)
_strange = (2**35 + 4, 2**31, 10**6, 201, -2, -(2**33))
"""Places that are none; the first is 4 where only its lower half is kept."""


def _node(estimator: Any, field: str, value: int) -> None:
    """Changes an inner node of a tree of scikit-learn: the last that has children."""
    tree = estimator.tree_
    kind, arguments, state = tree.__reduce__()
    state["nodes"] = state["nodes"].copy()
    place = int(np.flatnonzero(state["nodes"]["left_child"] >= 0)[-1])
    state["nodes"][field][place] = place if value == _itself else value
    estimator.tree_ = kind(*arguments)
    estimator.tree_.__setstate__(state)


_itself = -1_000_000
_Break = Callable[[Any, int], None]


def _of_tree(field: str) -> _Break:
    return lambda model, value: _node(model, field, value)


def _of_member(field: str) -> _Break:
    return lambda model, value: _node(np.ravel(model.estimators_)[-1], field, value)


def _of_histogram(field: str) -> _Break:
    def change(model: Any, value: int) -> None:
        predictor = model._predictors[-1][-1]
        nodes = predictor.nodes.copy()
        place = int(np.flatnonzero(nodes["is_leaf"] == 0)[-1])
        nodes[field][place] = value % 2**32 if nodes[field].dtype == np.uint32 else value
        predictor.nodes = nodes

    return change


def _of_neighbours(part: int, field: str | None = None) -> _Break:
    def change(model: Any, value: int) -> None:
        state = list(model._tree.__getstate__())
        state[part] = np.array(state[part])
        (state[part] if field is None else state[part][field])[-1] = value
        model._tree.__setstate__(tuple(state))

    return change


def _of_vectors(name: str) -> _Break:
    def change(model: Any, value: int) -> None:
        held = getattr(model, name)
        if name == "_n_support":
            held = held.copy()
            held[0] = min(value, 2**31 - 1) if value > 0 else max(value, -(2**31))
        else:
            held = held[..., :-1].copy()
        setattr(model, name, held)

    return change


def _indices(model: Any, value: int) -> None:
    model._fit_X.indices = model._fit_X.indices.astype(np.int64)
    model._fit_X.indices[-1] = value


def _centres(model: Any, value: int) -> None:
    model.cluster_centers_ = model.cluster_centers_[:, :-1].copy()


def _shorter(name: str) -> _Break:
    def change(model: Any, value: int) -> None:
        setattr(model, name, getattr(model, name)[:-1].copy())

    return change


def _stages(model: Any, value: int) -> None:
    model.estimators_ = model.estimators_.reshape(1, -1)


_cases: dict[str, tuple[Callable[[], Any], _Break]] = {
    **{
        f"tree, {field}": (lambda: DecisionTreeClassifier(max_depth=4), _of_tree(field))
        for field in ("left_child", "right_child", "feature")
    },
    "forest": (lambda: RandomForestClassifier(3, max_depth=3), _of_member("right_child")),
    "bag of columns": (lambda: BaggingClassifier(n_estimators=3, max_features=0.5), _of_member("feature")),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=3), _of_member("left_child")),
    "boosting, stages": (lambda: GradientBoostingClassifier(n_estimators=3), _stages),
    **{f"neighbours, {name}": (KNeighborsClassifier, _shorter(name)) for name in ("_y", "_fit_X")},
    "isolation": (lambda: IsolationForest(n_estimators=3), _of_member("left_child")),
    **{
        f"histogram boosting, {field}": (
            lambda: HistGradientBoostingClassifier(max_iter=3),
            _of_histogram(field),
        )
        for field in ("left", "right", "feature_idx")
    },
    "k-d tree, rows": (lambda: KNeighborsClassifier(algorithm="kd_tree"), _of_neighbours(1)),
    "ball tree, nodes": (
        lambda: KNeighborsClassifier(algorithm="ball_tree"),
        _of_neighbours(2, "idx_start"),
    ),
    **{
        f"{kind.__name__}, {name}": (kind, _of_vectors(name))
        for kind in (SVC, SVR, OneClassSVM)
        for name in ("_n_support", "support_vectors_", "_dual_coef_", "support_")
    },
    "centres": (lambda: KMeans(3, n_init=1), _centres),
}


def _fitted(make: Callable[[], Any]) -> Any:
    return make().fit(rows, answers)


@pytest.mark.parametrize("name", _cases)
def test_a_place_that_is_none_is_refused_and_the_sound_one_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skops_files, "try_file", lambda *_: None)  # whose rows may pass such a place by
    make, change = _cases[name]
    sound = make_pipeline(StandardScaler(), _fitted(make))
    sound[0].fit(rows)
    assert hasattr(load_skops(skops.io.dumps(sound)), "predict")
    loops = (_itself,) if "child" in name else ()
    for value in (*_strange, *loops):
        broken = _fitted(make)
        change(broken, value)
        with pytest.raises(ConfigError, match="the file is broken"):
            check_intact(make_pipeline(StandardScaler(), broken))


def test_a_tree_changed_in_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was found: its trial went by the broken node, the proof did not, and took the command with it."""
    model = make_pipeline(StandardScaler(), RandomForestClassifier(2, max_depth=3, random_state=0)).fit(
        rows, answers
    )
    _node(model[-1].estimators_[0], "right_child", 2**35 + 4)
    monkeypatch.setattr(skops_files, "try_file", lambda *_: None)
    with pytest.raises(ConfigError, match="DecisionTreeClassifier: a child of a tree's node is not there"):
        load_skops(skops.io.dumps(model))


def test_a_tree_with_a_loop_is_refused_at_once() -> None:
    """Its trial in a process of its own would not come back, and be given up after a minute."""
    model = DecisionTreeClassifier(max_depth=3).fit(rows, answers)
    _node(model, "left_child", _itself)
    with pytest.raises(ConfigError, match="a child of a tree's node is not there"):
        load_skops(skops.io.dumps(model))


@pytest.mark.parametrize("value", [4, 2**31 - 1, -1])
def test_a_sparse_matrix_with_a_column_that_is_not_there_is_refused(value: int) -> None:
    model = KNeighborsClassifier().fit(scipy.sparse.csr_matrix(rows), answers)
    check_intact(model)
    _indices(model, value)
    with pytest.raises(ConfigError, match="the file is broken"):
        check_intact(model)


@pytest.mark.parametrize("column", ["yes", "no", "feature"])
@pytest.mark.parametrize("value", [2**32 + 1, 2**31, -(2**32) + 1])
def test_no_place_of_a_tree_becomes_another_by_being_made_narrow(column: str, value: int) -> None:
    """2**32 + 1 is 1 in half of its bytes, which is a node, and a feature."""
    columns = {"feature": [0, 0, 0], "yes": [1, -1, -1], "no": [2, -1, -1]}
    columns[column][0] = value
    made: dict[str, Any] = {name: np.array(each, dtype=np.int64) for name, each in columns.items()}
    tree = Tree(
        threshold=np.zeros(3, dtype=np.float32),
        missing_yes=np.zeros(3, dtype=np.bool_),
        cover=None,
        values=np.array([0.0, 1.0, 2.0]),
        **made,
    )
    with pytest.raises(ConfigError):
        one_value([tree], features=2)
