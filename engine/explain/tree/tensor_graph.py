"""Tree SHAP as a plain ONNX graph of comparisons, products and look-ups, for runtimes that know no trees: a GPU's.

Every node's test is answered (Gather, LessOrEqual), the answers of a group of leaves make the number of a table row (MatMul
by powers of two), and the rows are fetched and added (Gather, ReduceSum); see leaf_tables for what they hold.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.explain.tree.leaf_tables import GroupTable, LeafTables, table_bytes_max
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.manifest import ModelOutput
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.graph_writer import GraphWriter
from penstock.schemas.errors import ConfigError

fetched_bytes_max = 256 << 20
"""Table rows that one run may have fetched and not added yet."""
_groups_at_once = 128


class GraphShap:
    """SHAP values of a tree ensemble by a tensor graph on one device; what TreeExplainer asks of TreeShap.

    In float32: to 1e-5 of the largest value, as the tables are added in the order that the device likes.
    """

    def __init__(self, tables: LeafTables, *, device: Device, rows_max: int = 4096) -> None:
        """Raises ConfigError: more than `table_bytes_max` with a number for every feature, or no session on the device."""
        self.forest = forest = tables.forest
        self.method, self.base = tables.method, tables.base
        self.background_digest = tables.background_digest
        width = (forest.features + 1) * forest.outputs
        fetched = min(_groups_at_once, len(tables.tables)) * width * 4
        self._model = OnnxModel(
            model=tensor_graph(tables),
            signature=Signature(
                features=tuple(Feature(name=f"f{i}", kind="number") for i in range(forest.features)),
                inputs=(ModelInput(name="X", dtype="float32", start=0, width=forest.features),),
            ),
            outputs=[ModelOutput(name="values", width=width)],
            labels=None,
            device=device,
            threads=1,
            batch_rows_max=max(1, min(rows_max, fetched_bytes_max // fetched)),
        )

    def contributions(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, features, outputs), and the raw scores (n, outputs) that they must add up to."""
        found = self._model.predict(rows).outputs["values"]
        shaped = found.reshape(len(rows), self.forest.features + 1, self.forest.outputs)
        return shaped[:, :-1], shaped[:, -1] + self.forest.base_values


def tensor_graph(tables: LeafTables) -> bytes:
    """An ONNX model from `X` (n, F) float32 to `values` (n, (F + 1) K) float32: the features' values, and last the raw
    scores without base_values. Only operators of the standard's main domain, opset 17. Raises ConfigError when it is too
    large."""
    forest = tables.forest
    width = (forest.features + 1) * forest.outputs
    table_bytes = sum(len(table.values) for table in tables.tables) * width * 4
    if table_bytes > table_bytes_max:
        raise ConfigError(f"a tensor graph of these trees needs {table_bytes >> 20} MiB of tables")
    writer = GraphWriter()
    inner = np.flatnonzero(forest.leaf < 0)
    column = np.zeros(forest.nodes, dtype=np.int64)
    column[inner] = np.arange(len(inner))
    passes = _answers(writer, forest, inner) if len(inner) else ""
    by_bits: dict[int, list[GroupTable]] = {}
    for table in tables.tables:
        by_bits.setdefault(len(table.group.nodes), []).append(table)
    sums = []
    for bits, same in by_bits.items():
        for start in range(0, len(same), _groups_at_once):
            part = same[start : start + _groups_at_once]
            nodes = np.array([table.group.nodes for table in part], dtype=np.int64).reshape(len(part), bits)
            filled = np.stack([_with_every_feature(table, forest) for table in part])
            sums.append(_looked_up(writer, passes, column[nodes], filled))
    writer.name("Sum", sums, "values")
    return writer.model(
        "tree_shap",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, forest.features])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, width])],
    )


def _with_every_feature(table: GroupTable, forest: Forest) -> NDArray[np.float32]:
    """The table as (2^b, (F + 1) K), with 0 for features that the group does not ask."""
    filled = np.zeros((len(table.values), forest.features + 1, forest.outputs), dtype=np.float32)
    filled[:, table.features] = table.values[:, :-1]
    filled[:, -1] = table.values[:, -1]
    return filled.reshape(len(filled), -1)


def _answers(writer: GraphWriter, forest: Forest, inner: NDArray[np.int64]) -> str:
    """Whether each row goes to `yes` at each inner node, as 0 and 1, (n, inner)."""
    asked = writer.emit("Gather", "X", writer.constant(forest.feature[inner].astype(np.int64)), axis=1)
    fits = writer.emit("LessOrEqual", asked, writer.constant(forest.threshold[inner]))
    missing = writer.constant(forest.missing_yes[inner].astype(np.bool_))
    routed = writer.emit("Or", fits, writer.emit("And", writer.emit("IsNaN", asked), missing))
    return writer.emit("Cast", routed, to=TensorProto.FLOAT)


def _looked_up(writer: GraphWriter, passes: str, nodes: NDArray[np.int64], table: NDArray[np.float32]) -> str:
    """The sum over g groups of their table rows, (n, W), from the columns of their nodes (g, b) and tables (g, 2^b, W)."""
    groups, bits = nodes.shape
    flat = writer.constant(table.reshape(-1, table.shape[2]))
    first = np.arange(groups, dtype=np.int64) << bits
    if bits == 0:  # a lone leaf says the same of every row
        rows = writer.emit("Slice", writer.emit("Shape", "X"), *map(writer.integers, ((0,), (1,))))
        ones = writer.emit(
            "Expand",
            writer.constant(np.ones((1, 1), dtype=np.float32)),
            writer.emit("Concat", rows, writer.integers((1,)), axis=0),
        )
        return writer.emit("MatMul", ones, writer.constant(table.sum(axis=(0, 1))[None]))
    picked = writer.emit("Gather", passes, writer.constant(nodes), axis=1)  # (n, g, b)
    powers = writer.constant((1 << np.arange(bits)).astype(np.float32))
    number = writer.emit("Cast", writer.emit("MatMul", picked, powers), to=TensorProto.INT64)
    fetched = writer.emit("Gather", flat, writer.emit("Add", number, writer.constant(first)), axis=0)
    return writer.emit("ReduceSum", fetched, writer.integers((1,)), keepdims=0)
