"""Whether what scikit-learn's compiled code follows without looking is whole: nodes, places and widths of an estimator from a file.

Its own loading checks the types and shapes of arrays; where a child, a feature or a row lies outside them, a prediction reads
memory that is not the model's. A process that fitted the model itself holds no such thing, so only files are looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

_objects_max: Final = 5_000_000
_values_of_arrays = (str, bytes, int, float, complex, bool, type(None), np.generic, np.dtype)
Integers = NDArray[np.int64]


def check_intact(model: object) -> None:
    """Raises ConfigError for an estimator, anywhere in this one, with a part that compiled code would leave its arrays by."""
    for held in _held(model):
        for name, check in _checks.items():
            if _is_a(held, name) and (fault := check(held)):
                raise ConfigError(f"{type(held).__name__}: {fault}: the file is broken")


def _held(model: object) -> Iterator[object]:
    """The model and every object that it holds, each once."""
    waiting, seen = [model], set[int]()
    while waiting:
        held = waiting.pop()
        if isinstance(held, _values_of_arrays) or id(held) in seen:
            continue
        seen.add(id(held))
        if len(seen) > _objects_max:
            raise ConfigError(f"the model holds more than {_objects_max:,} objects")
        yield held
        if isinstance(held, np.ndarray):
            inside = held.ravel().tolist() if held.dtype == object else []
        elif isinstance(held, Mapping):
            inside = [*held.keys(), *held.values()]
        elif isinstance(held, (list, tuple, set, frozenset)):
            inside = [*held]
        else:
            inside = [*getattr(held, "__dict__", {}).values()]
        waiting += inside


def _is_a(held: object, name: str) -> bool:
    return any(f"{each.__module__}.{each.__qualname__}" == name for each in type(held).__mro__)


def _integers(values: object) -> Integers:
    return np.asarray(values).astype(np.int64)


def _outside(places: Integers, length: int, first: int = 0) -> bool:
    return bool(len(places)) and bool(places.min() < first or places.max() >= length)


def _nodes_fault(left: Integers, right: Integers, inner: NDArray[np.bool_]) -> str:
    """A child comes behind its parent in all trees that scikit-learn grows; so one that does not is no child of theirs, and a
    tree whose children all do has no loop."""
    own = np.flatnonzero(inner)
    for children in (left[own], right[own]):
        if _outside(children, len(left)) or (children <= own).any():
            return "a child of a tree's node is not there"
    return ""


def _tree_owner(owner: Any) -> str:
    """A tree by its owner, who says how wide a row is."""
    tree = getattr(owner, "tree_", None)
    if tree is None:
        return ""
    left, right = _integers(tree.children_left), _integers(tree.children_right)
    leaf = left == -1
    if not len(left) or ((right == -1) != leaf).any():
        return "a node of a tree has one child"
    if _outside(_integers(tree.feature)[~leaf], int(owner.n_features_in_)):
        return "a node of a tree asks for a feature that no row has"
    if tree.n_features != owner.n_features_in_:
        return f"its tree is of {tree.n_features} features, and its rows are of {owner.n_features_in_}"
    return _nodes_fault(left, right, ~leaf)


def _histogram_boosting(owner: Any) -> str:
    for predictor in (each for stage in getattr(owner, "_predictors", ()) for each in stage):
        nodes = predictor.nodes
        inner = nodes["is_leaf"] == 0
        if not len(nodes):
            return "a tree without nodes"
        if _outside(_integers(nodes["feature_idx"])[inner], int(owner.n_features_in_)):
            return "a node of a tree asks for a feature that no row has"
        by_set = inner & (nodes["is_categorical"] != 0)
        sets = predictor.raw_left_cat_bitsets
        if by_set.any() and (sets.ndim != 2 or sets.shape[1] != 8):
            return "a set of categories of another size"
        if _outside(_integers(nodes["bitset_idx"])[by_set], len(sets)):
            return "a set of categories is not there"
        if fault := _nodes_fault(_integers(nodes["left"]), _integers(nodes["right"]), inner):
            return fault
    return ""


def _gradient_boosting(owner: Any) -> str:
    stages = getattr(owner, "estimators_", None)
    wide = getattr(owner, "n_trees_per_iteration_", None)
    if stages is None or wide is None:
        return ""
    if np.ndim(stages) != 2 or stages.shape[1] != wide:
        return f"stages of shape {np.shape(stages)}, for {wide} trees each"
    return ""


def _neighbours(owner: Any) -> str:
    if not hasattr(owner, "_fit_X"):
        return ""
    rows = owner._fit_X.shape[0]
    if owner._fit_X.shape[1:] != (owner.n_features_in_,):
        return f"neighbours of shape {owner._fit_X.shape}, for {owner.n_features_in_} features"
    if hasattr(owner, "_y") and len(owner._y) != rows:
        return f"{len(owner._y)} answers of {rows} neighbours"
    if getattr(owner, "_tree", None) is not None and len(owner._tree.__getstate__()[0]) != rows:
        return "its tree is of other rows than its neighbours"
    return ""


def _neighbour_tree(tree: Any) -> str:
    rows, order, nodes, bounds, _, levels, count, *_ = tree.__getstate__()
    rows, order, nodes, bounds = (np.asarray(each) for each in (rows, order, nodes, bounds))
    if not 1 <= levels < 40 or count != 2**levels - 1 or len(nodes) != count:
        return "the nodes of a tree of neighbours are not all there"
    if len(order) != len(rows) or _outside(_integers(order), len(rows)):
        return "a row of a tree of neighbours is not there"
    first, end = _integers(nodes["idx_start"]), _integers(nodes["idx_end"])
    if _outside(first, len(rows) + 1) or _outside(end, len(rows) + 1) or (first > end).any():
        return "a node of a tree of neighbours holds rows that are not there"
    last_level = np.arange(count) >= count // 2
    if (last_level & (nodes["is_leaf"] == 0)).any():
        return "a node of a tree of neighbours has children that are not there"
    if bounds.ndim != 3 or bounds.shape[1:] != (count, rows.shape[1]):
        return "the bounds of a tree of neighbours are of another shape"
    return ""


def _support_vectors(owner: Any) -> str:
    if not hasattr(owner, "support_vectors_"):
        return ""
    vectors, coefficients = owner.support_vectors_, owner._dual_coef_
    counts = _integers(owner._n_support)
    classes = len(getattr(owner, "classes_", ())) or 2
    of_classes = hasattr(owner, "classes_")
    pairs = classes * (classes - 1) // 2
    found = int(counts.sum()) if of_classes else int(counts[0])
    if (counts < 0).any() or (of_classes and len(counts) != classes):
        return "its support vectors are not those of its classes"
    if owner.shape_fit_[-1] != owner.n_features_in_ or vectors.shape != (found, owner.n_features_in_):
        return f"{vectors.shape} numbers of support vectors, for {found} of {owner.n_features_in_} features"
    if coefficients.shape != (classes - 1, found) or np.shape(owner._intercept_) != (pairs,):
        return "its coefficients are not those of its support vectors"
    if len(owner.support_) != found:
        return "its support vectors are not all named"
    for name in ("_probA", "_probB"):
        if len(getattr(owner, name, ())) not in (0, pairs if of_classes else 1):
            return "its probabilities are not those of its classes"
    return ""


def _centres(owner: Any) -> str:
    centres = getattr(owner, "cluster_centers_", None)
    if centres is not None and (np.ndim(centres) != 2 or centres.shape[1] != owner.n_features_in_):
        return f"centres of {np.shape(centres)}, for {owner.n_features_in_} features"
    return ""


def _sparse(matrix: Any) -> str:
    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        return f"a sparse matrix whose {error}"
    if matrix.format == "coo" and any(
        _outside(_integers(places), length)
        for places, length in zip((matrix.row, matrix.col), matrix.shape, strict=True)
    ):
        return "a sparse matrix has a value outside of itself"
    return ""


_checks: Final[Mapping[str, Callable[[Any], str]]] = {
    "sklearn.tree._classes.BaseDecisionTree": _tree_owner,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": _histogram_boosting,
    "sklearn.ensemble._gb.BaseGradientBoosting": _gradient_boosting,
    "sklearn.neighbors._base.NeighborsBase": _neighbours,
    "sklearn.neighbors._kd_tree.BinaryTree64": _neighbour_tree,
    "sklearn.neighbors._kd_tree.BinaryTree32": _neighbour_tree,
    "sklearn.neighbors._ball_tree.BinaryTree64": _neighbour_tree,
    "sklearn.neighbors._ball_tree.BinaryTree32": _neighbour_tree,
    "sklearn.svm._base.BaseLibSVM": _support_vectors,
    "sklearn.cluster._kmeans._BaseKMeans": _centres,
    "scipy.sparse._base._spbase": _sparse,
}
"""By the full name of a type, so that nothing is imported that the model does not hold."""
