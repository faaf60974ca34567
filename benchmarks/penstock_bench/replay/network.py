"""The model of the replay: a network that takes its time over every record, and whose answer is known all the same."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import Manifest, ModelOutput

fields: Final = ("a", "b", "c")
_channels: Final = 64
_side: Final = 48
_layers: Final = 1


def write_network(folder: Path, *, version: str) -> None:
    """A bundle whose one output is the mean of the three fields: convolutions that average planes which are the same everywhere.

    Some 80 million multiplications a record, in a batch as well as alone.
    """
    rows = np.random.default_rng(1).uniform(1.0, 100.0, size=(4, len(fields))).astype(np.float32)
    Bundle.write(
        folder,
        manifest=Manifest(
            name="replay",
            version=version,
            signature=Signature(
                features=tuple(Feature(name=name, kind="number") for name in fields),
                inputs=(ModelInput(name="x", dtype="float32", start=0, width=len(fields)),),
            ),
            outputs=(ModelOutput(name="mean", width=1),),
            labels=None,
            trees=False,
            covers=False,
            provenance={"source": "penstock bench replay"},
        ),
        model=_graph(),
        golden=Golden(
            rows=rows, outputs={"mean": rows.astype(np.float64).mean(axis=1, keepdims=True)}, labels=None
        ),
        background=rows,
    )


def _graph() -> bytes:
    weights: dict[str, NDArray[Any]] = {
        "one_plane": np.array([-1, 1, 1, 1], np.int64),
        "planes": np.ones((1, _channels, _side, _side), np.float32),
        "kernel": np.full((_channels, _channels, 3, 3), 1.0 / (_channels * 9), np.float32),
        "flat": np.array([-1, _channels], np.int64),
    }
    nodes: list[NodeProto] = [
        helper.make_node("ReduceMean", ["x"], ["first"], axes=[1], keepdims=1),
        helper.make_node("Reshape", ["first", "one_plane"], ["point"]),
        helper.make_node("Mul", ["point", "planes"], ["layer0"]),
        *(
            helper.make_node("Conv", [f"layer{layer}", "kernel"], [f"layer{layer + 1}"])
            for layer in range(_layers)
        ),
        helper.make_node("GlobalAveragePool", [f"layer{_layers}"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "flat"], ["channels"]),
        helper.make_node("ReduceMean", ["channels"], ["mean"], axes=[1], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "replay",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(fields)])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 1])],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
