"""ONNX Runtime's reasons survive its file names and signatures."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper

from penstock.engine.models.runtime.onnx_runtime import reason_characters_max, runtime_errors, runtime_reason


def raised(nodes: list[NodeProto], data: np.ndarray, constants: list[TensorProto]) -> Exception:
    shape = [None, data.shape[1]]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(runtime_errors()) as caught:
        _run(model.SerializeToString(), options, data)
    return caught.value


def _run(model: bytes, options: ort.SessionOptions, data: np.ndarray) -> None:
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": data})


def test_a_reason_behind_a_signature_is_told() -> None:
    reshape = helper.make_node("Reshape", ["x", "i"], ["y"])
    told = runtime_reason(
        raised(
            [reshape], np.zeros((2, 3), np.float32), [helper.make_tensor("i", TensorProto.INT64, [1], [7])]
        )
    )
    assert "Input shape:{2,3}, requested shape:{7}" in told
    assert "onnxruntime_src" not in told
    assert "ReshapeHelper" not in told

    tree = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0],
        nodes_modes=["BRANCH_LEQ"], nodes_values=[0.0], nodes_truenodeids=[5], nodes_falsenodeids=[6],
        nodes_missing_value_tracks_true=[0], nodes_hitrates=[1.0], target_treeids=[0], target_nodeids=[0], target_ids=[0],
        target_weights=[1.0], n_targets=1,
    )  # fmt: skip
    told = runtime_reason(raised([tree], np.zeros((2, 3), np.float32), []))
    assert told.startswith("Exception during initialization: (coor.node_id")
    assert "was false" in told


def test_a_reason_on_later_lines_is_told() -> None:
    text = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x\n index: 1 Got: 4 Expected: 3\n"
    assert (
        runtime_reason(ValueError(text)) == "Got invalid dimensions for input: x index: 1 Got: 4 Expected: 3"
    )


def test_a_long_text_keeps_its_end() -> None:
    told = runtime_reason(ValueError("a" * 500 + " the reason"))
    assert len(told) == reason_characters_max
    assert told.endswith("the reason")
    assert runtime_reason(ValueError("")) == "ValueError"


def test_an_error_that_carries_another_shows_the_marks_of_neither() -> None:
    text = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: [ONNXRuntimeError] : 1 : FAIL : Initializer 'a': 0 of 2"
    assert runtime_reason(RuntimeError(text)) == "Exception during initialization: Initializer 'a': 0 of 2"
