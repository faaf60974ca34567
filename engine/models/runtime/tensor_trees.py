"""Predictions of a tree ensemble by a plain ONNX graph: ONNX Runtime has no kernels for trees on a GPU.

Every row walks down all trees at once, one level at a time: the nodes where it stands say which feature to look up and what
to compare it with, and the answer where to go on (Gather, LessOrEqual). That is a few operators for each level, over as many
numbers as there are trees; evaluating every test of every tree, as the graph for SHAP values must, is work in proportion to
the nodes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.runtime.one_thread import LimitedModel
from penstock.engine.models.runtime.tree_outputs import TreeAnswers
from penstock.engine.ports import Predictions
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.graph_writer import GraphWriter
from penstock.schemas.errors import ConfigError

table_bytes_max = 256 << 20
codes_max = 4096
levels_max = 64
"""Deeper trees would take too many operators, each a launch."""
run_bytes_max = 256 << 20
"""Of what the rows of one run carry from level to level."""
_walk_bytes, _column_bytes = 24, 32
_output = "raw"


class TensorTrees:
    """The Model port on a graph of raw scores; what they mean is worked out as for our own kernel.

    Leaves are added up in float64 and the scores rounded to float32, as the graph's outputs are.
    """

    def __init__(self, answers: TreeAnswers, raw_scores: LimitedModel) -> None:
        """`raw_scores` runs the graph RawScores.of(answers.forest)."""
        self._answers, self._raw_scores = answers, raw_scores

    @property
    def batch_rows_max(self) -> int:
        """Larger batches are run in pieces."""
        return self._raw_scores.batch_rows_max

    @batch_rows_max.setter
    def batch_rows_max(self, rows_max: int) -> None:
        self._raw_scores.batch_rows_max = rows_max

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row of a matrix (R, F) of float32. Raises as OnnxModel.predict does."""
        raw = self._raw_scores.predict(matrix).outputs[_output]
        return self._answers.predictions(raw + self._answers.forest.base_values)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawScores:
    """A graph of the raw scores of trees, as a bundle would describe it."""

    model: bytes
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None = None
    table: None = None

    @staticmethod
    def of(forest: Forest) -> "RawScores":
        """From `X` (n, F) float32 to `raw` (n, K) float64, the sums of the leaves without base_values.

        Raises ConfigError: there is no test at all, or the trees are deeper than `levels_max`, their tables larger than
        `table_bytes_max`, their categories anything but codes below `codes_max`.
        """
        return RawScores(
            model=_graph(forest),
            signature=Signature(
                features=tuple(Feature(name=f"f{i}", kind="number") for i in range(forest.features)),
                inputs=(ModelInput(name="X", dtype="float32", start=0, width=forest.features),),
            ),
            outputs=(ModelOutput(name=_output, width=forest.outputs),),
        )


def rows_at_once(forest: Forest, rows_max: int) -> int:
    """How many rows, at most `rows_max`, a run may take at once."""
    width = max(forest.features, int((forest.set_index >= 0).sum()))
    row_bytes = forest.trees * (_walk_bytes + 8 * forest.outputs) + width * _column_bytes
    return max(1, min(rows_max, run_bytes_max // row_bytes))


def _graph(forest: Forest) -> bytes:
    levels = sum(1 for _ in forest.levels()) - 1
    if not 1 <= levels <= levels_max:
        raise ConfigError(f"a tensor graph takes trees of 1 to {levels_max} tests on a path, not {levels}")
    if forest.leaf_values.nbytes > table_bytes_max:
        raise ConfigError(f"a tensor graph of these trees needs {forest.leaf_values.nbytes >> 20} MiB")
    writer = GraphWriter()
    row, column, threshold = _columns(writer, forest)
    following, ends = _ways_on(forest)
    columns, thresholds = writer.constant(np.repeat(column, 2)), writer.constant(np.repeat(threshold, 2))
    following_places = writer.constant(following)
    place = writer.constant(2 * forest.roots[None])
    for level in range(levels):
        if level:
            asked = writer.emit("GatherElements", row, writer.emit("Gather", columns, place), axis=1)
            against = writer.emit("Gather", thresholds, place)
        else:
            asked = writer.emit("Gather", row, writer.constant(column[forest.roots]), axis=1)
            against = writer.constant(threshold[forest.roots])
        yes = writer.emit("Cast", writer.emit("LessOrEqual", asked, against), to=TensorProto.INT32)
        table = following_places if level < levels - 1 else writer.constant(ends)
        place = writer.emit("Gather", table, writer.emit("Add", place, yes))
    # With one output the leaves are a column less: sums along the last axis are what GPUs do best.
    values = forest.leaf_values if forest.outputs > 1 else forest.leaf_values[:, 0]
    reached = writer.emit("Gather", writer.constant(values), place, axis=0)
    keep = int(forest.outputs == 1)
    writer.name("ReduceSum", [reached, writer.integers((1,))], _output, keepdims=keep)
    return writer.model(
        "tree_scores",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, forest.features])],
        [helper.make_tensor_value_info(_output, TensorProto.DOUBLE, [None, forest.outputs])],
    )


def _ways_on(forest: Forest) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """By place, which is twice the number of a node, and one more after the answer yes: the place to go on to, and the leaf
    at the end of the way. A leaf leads to itself."""
    own = np.arange(forest.nodes)
    inner = forest.leaf < 0
    children = np.stack((np.where(inner, forest.no, own), np.where(inner, forest.yes, own)), axis=1)
    children = children.reshape(-1)
    return (2 * children).astype(np.int32), np.maximum(forest.leaf[children], 0)


def _columns(writer: GraphWriter, forest: Forest) -> tuple[str, NDArray[np.int32], NDArray[np.float32]]:
    """What the tests look up, row by row, and of each node the column to look up and what it must not exceed.

    First X itself; then X again, where a test is passed by what is missing, with that below every threshold; last a column
    for each category test, 0 where it is passed and 1 where not. The parts are equally wide: to join unequal ones ONNX
    Runtime reads their sizes from host memory, and a captured graph would do so again when that holds something else.
    """
    numeric = (forest.leaf < 0) & (forest.set_index < 0)
    of_sets = np.flatnonzero(forest.set_index >= 0)
    width = max(forest.features, len(of_sets))
    column = np.where(numeric, forest.feature, 0)
    threshold = forest.threshold.copy()
    wide = "X"
    if width > forest.features:
        wide = writer.emit(
            "Gather", "X", writer.integers(np.resize(np.arange(forest.features), width)), axis=1
        )
    parts = [wide]
    passing = numeric & (forest.missing_yes != 0)
    if passing.any():
        column[passing] += width * len(parts)
        below = writer.constant(np.array(-np.inf, dtype=np.float32))
        parts.append(writer.emit("Where", writer.emit("IsNaN", wide), below, wide))
    if len(of_sets):
        column[of_sets] = width * len(parts) + np.arange(len(of_sets))
        threshold[of_sets] = 0.5
        parts.append(_outside(writer, forest, of_sets, width))
    row = writer.emit("Concat", *parts, axis=1) if len(parts) > 1 else wide
    return row, column.astype(np.int32), threshold


def _outside(writer: GraphWriter, forest: Forest, nodes: NDArray[np.int64], width: int) -> str:
    """Whether each row fails the category tests of these S nodes, as 0 and 1, over and over, (n, width)."""
    members = forest.set_values
    if ((members != np.floor(members)) | (members < 0) | (members >= codes_max)).any():
        raise ConfigError(f"a tensor graph takes categories of codes from 0 to {codes_max - 1}")
    codes = int(members.max(initial=0.0)) + 1
    if len(nodes) * (codes + 2) * 4 > table_bytes_max:
        raise ConfigError("a tensor graph of these category tests needs too large a table")
    table = np.ones((len(nodes), codes + 2), dtype=np.float32)  # last: any other number, and missing
    for place, node in enumerate(nodes.tolist()):
        start, stop = forest.set_offsets[forest.set_index[node] : forest.set_index[node] + 2]
        table[place, members[start:stop].astype(np.int64)] = 0
        table[place, codes + 1] = forest.missing_yes[node] == 0
    features, owner = np.unique(forest.feature[nodes], return_inverse=True)
    asked = writer.emit("Gather", "X", writer.constant(features.astype(np.int32)), axis=1)

    def number(value: float) -> str:
        return writer.constant(np.array(value, dtype=np.float32))

    whole = writer.emit("Equal", writer.emit("Floor", asked), asked)
    inside = writer.emit(
        "And", writer.emit("LessOrEqual", number(0), asked), writer.emit("Less", asked, number(codes))
    )
    code = writer.emit("Where", writer.emit("And", whole, inside), asked, number(codes))
    code = writer.emit("Where", writer.emit("IsNaN", asked), number(codes + 1), code)
    code = writer.emit("Cast", code, to=TensorProto.INT32)
    first = writer.constant(np.resize(np.arange(len(nodes)) * (codes + 2), width).astype(np.int32))
    of_nodes = writer.emit("Gather", code, writer.constant(np.resize(owner, width).astype(np.int32)), axis=1)
    return writer.emit("Gather", writer.constant(table.reshape(-1)), writer.emit("Add", of_nodes, first))
