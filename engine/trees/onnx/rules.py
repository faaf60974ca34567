"""What the operators that converters put around a tree ensemble make of its columns and scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest, PostTransform, features_max, joined, leaf_cells_max


class Numbers(Enum):
    """What the numbers of a tensor are, as far as comparing the row in float32 goes."""

    FLOAT32 = auto()
    INTEGER = auto()  # a tree ensemble rounds them to float32 itself
    FLOAT64 = auto()  # comparing them is finer than comparing the row


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """A tensor (N, width) of the row's columns: `place[j]` is the column at j; None: all, as they are."""

    place: NDArray[np.int64] | None
    numbers: Numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of a forest, after its post_transform."""

    forest: Forest


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """`whole` less the scores of a forest that has one."""

    forest: Forest
    whole: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Classes, or what was made of them; `names` where they were looked up in a table, in its order."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """Numbers that stand in the file."""

    array: NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Something that no tree ensemble explains."""

    why: str


Value = Columns | Scores | Rest | Labels | Constant | Refused
Rule = Callable[[onnx.NodeProto, Sequence[Value]], Value | None]


def applied(node: onnx.NodeProto, values: Sequence[Value]) -> Value:
    """What the outputs of a node other than a tree ensemble are."""
    for value in values:
        if isinstance(value, Refused):
            return value
    if any(isinstance(value, Labels) for value in values):
        return _labels(node, values)
    rule = _rules.get(node.op_type)
    with np.errstate(over="ignore", invalid="ignore"):  # a forest of infinite values is refused as such
        result = rule(node, values) if rule and values and node.domain in _domains else None
    return result or Refused(why=f"operator {node.op_type[:40]} around the trees, which is not explained")


def _labels(node: onnx.NodeProto, values: Sequence[Value]) -> Labels:
    table = values[0]
    if node.op_type in ("ArrayFeatureExtractor", "Gather") and isinstance(table, Constant):
        items = table.array.reshape(-1).tolist()
        return Labels(
            names=tuple(i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in items)
        )
    known = [value for value in values if isinstance(value, Labels)]
    return known[0]


def _same(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    return values[0]


def _cast(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    value, to = values[0], _attribute(node, "to", 0)
    if to not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return None
    if isinstance(value, Columns):
        narrow = to == onnx.TensorProto.FLOAT or value.numbers is Numbers.FLOAT32
        return replace(value, numbers=Numbers.FLOAT32 if narrow else Numbers.FLOAT64)
    return value if isinstance(value, (Scores, Rest)) else None


def _reshape(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """Kept where the columns certainly stay columns."""
    value = values[0]
    if isinstance(value, Columns):
        width = None if value.place is None else len(value.place)
    elif isinstance(value, (Scores, Rest)):
        width = value.forest.classes
    else:
        return None
    if width == 1 or (node.op_type == "Flatten" and _attribute(node, "axis", 1) == 1):
        return value
    shape = values[1] if node.op_type == "Reshape" and len(values) == 2 else None
    if isinstance(shape, Constant) and shape.array.shape == (2,):
        rows, columns = shape.array.tolist()
        if (rows == -1 and columns == width) or (rows == 0 and columns in (width, -1, 0)):
            return value
    return None


def _concat(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    if _attribute(node, "axis", 0) not in (1, -1):
        return None
    if len(values) == 2 and isinstance(values[0], Rest) and isinstance(values[1], Scores):
        forest = values[1].forest
        if forest is not values[0].forest:
            return None
        plain = forest.post_transform is PostTransform.NONE
        return Scores(forest=replace(forest, labels=("0", "1"), mirror=values[0].whole if plain else 0.0))
    places = [value.place for value in values if isinstance(value, Columns) and value.place is not None]
    if len(places) != len(values) or sum(len(place) for place in places) > features_max:
        return None
    kinds = {value.numbers for value in values if isinstance(value, Columns)}
    numbers = kinds.pop() if len(kinds) == 1 else Numbers.FLOAT64
    return Columns(place=np.concatenate(places), numbers=numbers)


def _extract(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """ArrayFeatureExtractor and Gather: some of the columns."""
    if node.op_type == "Gather" and _attribute(node, "axis", 0) not in (1, -1):
        return None
    if len(values) != 2 or not isinstance(values[0], Columns) or not isinstance(values[1], Constant):
        return None
    index = values[1].array.reshape(-1)
    if index.dtype.kind not in "iu" or not len(index) or index.min() < 0:
        return None
    columns = values[0]
    if columns.place is None:
        return replace(columns, place=index.astype(np.int64))
    return replace(columns, place=columns.place[index]) if index.max() < len(columns.place) else None


def _negated(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """The margin of the first class of two."""
    forest = _raw(values[0])
    return None if forest is None or forest.outputs > 1 or forest.labels else Rest(forest=forest, whole=0.0)


def _mapped(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """MatMul of the scores by a matrix that stands in the file."""
    if len(values) != 2 or not isinstance(values[1], Constant):
        return None
    forest, matrix = _raw(values[0]), values[1].array
    if forest is None or forest.labels or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        return None
    if len(matrix) != forest.outputs or not matrix.size or not np.isfinite(matrix).all():
        return None
    if len(forest.leaf_values) * matrix.shape[1] > leaf_cells_max:
        return None
    return Scores(forest=mapped(forest, matrix.astype(np.float64)))


def mapped(forest: Forest, matrix: NDArray[np.float64]) -> Forest:
    """The forest of the raw scores times a matrix (K, k), the same to the last bit on every machine."""

    def product(values: NDArray[np.float64]) -> NDArray[np.float64]:  # (n, K) to (n, k)
        made = np.zeros((len(values), matrix.shape[1]))
        for place, row in enumerate(matrix):
            made += values[:, place, None] * row
        return made

    return replace(
        forest,
        outputs=matrix.shape[1],
        leaf_values=product(forest.leaf_values),
        base_values=product(forest.base_values[None])[0],
    )


def _sigmoid(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    forest = _raw(values[0])
    if forest is None or forest.mirror:
        return None
    return Scores(forest=replace(forest, post_transform=PostTransform.LOGISTIC))


def _softmax(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    forest = _raw(values[0])
    if forest is None or forest.outputs == 1 or _attribute(node, "axis", -1) not in (1, -1):
        return None
    return Scores(forest=replace(forest, post_transform=PostTransform.SOFTMAX))


def _exp(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    forest = _raw(values[0])
    return None if forest is None else Scores(forest=replace(forest, post_transform=PostTransform.EXP))


def _scaled(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """Mul and Div by one number; by 1, as onnxmltools does to rename, also after the post_transform."""
    scored, constant = _scores_and_constant(values, commutes=node.op_type == "Mul")
    if scored is None or constant is None or constant.size != 1 or not np.isfinite(constant).all():
        return None
    number = float(constant.reshape(-1)[0])
    if number == 1:
        return scored
    factor = number if node.op_type == "Mul" else 1 / number if number else 0.0
    if scored.forest.post_transform is PostTransform.EXP and factor > 0 and not scored.forest.labels:
        return Scores(forest=replace(scored.forest, base_values=scored.forest.base_values + np.log(factor)))
    scores = _raw(scored)
    if scores is None or factor == 0:
        return None
    return Scores(
        forest=replace(
            scores,
            leaf_values=scores.leaf_values * factor,
            base_values=scores.base_values * factor,
            mirror=scores.mirror * factor,
        )
    )


def _shifted(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    """Add and Sub of numbers, one less a score, and the sum of several ensembles."""
    if all(isinstance(value, Scores) for value in values) and node.op_type != "Sub":
        return _summed(node, values)
    if node.op_type == "Sub" and isinstance(values[0], Constant) and isinstance(values[1], Scores):
        forest = values[1].forest
        one = values[0].array.size == 1 and float(values[0].array.reshape(-1)[0]) == 1.0
        plain = forest.post_transform in (PostTransform.NONE, PostTransform.LOGISTIC)
        fits = forest.outputs == 1 and not forest.labels and plain
        return Rest(forest=forest) if one and fits else None
    scored, constant = _scores_and_constant(values, commutes=node.op_type != "Sub")
    scores = None if scored is None else _raw(scored)
    if scores is None or scores.labels or constant is None or constant.size not in (1, scores.outputs):
        return None
    if not np.isfinite(constant).all():
        return None
    shift = constant.reshape(-1) if node.op_type != "Sub" else -constant.reshape(-1)
    return Scores(forest=replace(scores, base_values=scores.base_values + shift))


def _summed(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    forests = [forest for value in values if (forest := _raw(value)) is not None]
    if len(forests) != len(values) or any(forest.labels for forest in forests):
        return None
    return Scores(forest=joined(forests)) if len({forest.outputs for forest in forests}) == 1 else None


def _zip_map(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    return values[0] if isinstance(values[0], Scores) else None


def _arg_max(node: onnx.NodeProto, values: Sequence[Value]) -> Value | None:
    return Labels() if isinstance(values[0], Scores) else None


def _raw(value: Value) -> Forest | None:
    """The forest of untransformed scores."""
    if isinstance(value, Scores) and value.forest.post_transform is PostTransform.NONE:
        return value.forest
    return None


def _scores_and_constant(
    values: Sequence[Value], *, commutes: bool
) -> tuple[Scores | None, NDArray[np.float64] | None]:
    if len(values) != 2:
        return None, None
    first, second = values
    if commutes and isinstance(first, Constant):
        first, second = second, first
    if not isinstance(first, Scores) or not isinstance(second, Constant):
        return None, None
    return (first, second.array.astype(np.float64)) if second.array.dtype.kind in "fiu" else (None, None)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


_domains = ("", "ai.onnx", "ai.onnx.ml")
_rules: Mapping[str, Rule] = {
    "Identity": _same,
    "Cast": _cast,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Concat": _concat,
    "ArrayFeatureExtractor": _extract,
    "Gather": _extract,
    "MatMul": _mapped,
    "Neg": _negated,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Exp": _exp,
    "Mul": _scaled,
    "Div": _scaled,
    "Add": _shifted,
    "Sub": _shifted,
    "Sum": _shifted,
    "ZipMap": _zip_map,
    "ArgMax": _arg_max,
}
