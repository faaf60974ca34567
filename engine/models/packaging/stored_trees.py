"""A tree ensemble as a bundle keeps it: an ONNX graph, or a table where it is too large for one."""

from collections.abc import Collection

from onnx import TensorProto, helper

from penstock.engine.trees.forest import Forest, ordered
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.table_file import read_table, same_trees, table_nodes_min, write_table
from penstock.schemas.errors import InvariantError


def stored(
    forest: Forest, *, input_name: str, exponential: str = "", numbers: Collection[int] = ()
) -> tuple[bytes, Forest | None]:
    """The file, and where it is a table the trees in it. `exponential`: the name of a second output, exp() of the scores;
    `numbers`: features whose sets hold numbers, not codes.

    Raises ConfigError for a forest that the ONNX operators cannot express.
    """
    if forest.nodes >= table_nodes_min:
        return _table(forest, exponential)
    proto = write_forest(forest, input_name=input_name, numbers=numbers)
    if exponential:
        proto.graph.node.append(helper.make_node("Exp", [forest.output_name], [exponential]))
        proto.graph.output.insert(
            0, helper.make_tensor_value_info(exponential, TensorProto.FLOAT, [None, forest.classes])
        )
    return proto.SerializeToString(deterministic=True), None


def _table(forest: Forest, exponential: str) -> tuple[bytes, Forest]:
    forest = ordered(forest)
    data = write_table(forest, exponential=exponential)
    back = read_table(data)
    if not same_trees(forest, back):
        raise InvariantError("a table of trees was written that reads back as another one")
    return data, back
