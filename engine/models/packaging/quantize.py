"""The graph of a model with narrower numbers, made by ONNX Runtime's own tools."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from penstock.engine.models.runtime.onnx_runtime import onnx_runtime, runtime_reason
from penstock.schemas.errors import ConfigError

_products = ("MatMul", "Gemm")
# What the tools raise on graphs that they do not understand; they share no class of their own.
_tool_errors = (
    ValueError, TypeError, RuntimeError, LookupError, AttributeError, AssertionError, NotImplementedError,
    onnx.checker.ValidationError, onnx.shape_inference.InferenceError,
)  # fmt: skip


def float16(model: bytes) -> bytes:
    """The graph with float16 inside, its inputs and outputs as they were. Raises ConfigError where that cannot be had."""
    onnx_runtime()  # as it is loaded everywhere else: it reports to nobody
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return _made(model, lambda proto: convert_float_to_float16(proto, keep_io_types=True))


def int8(model: bytes) -> bytes:
    """The graph with int8 weights in its matrix products, whose other factor is scaled to int8 batch by batch.

    Raises ConfigError where there is no such product, or that cannot be had.
    """
    onnx_runtime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantized(proto: onnx.ModelProto) -> onnx.ModelProto:
        if not any(node.op_type in _products for node in proto.graph.node):
            raise ConfigError("the graph has no matrix product with weights")
        mark = proto.metadata_props.add()  # it advises on its own preparation, in a log, unless it finds this
        mark.key, mark.value = "onnx.quant.pre_process", "onnxruntime.quant"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            # 7 bits: on x86 without VNNI two products of 8 bits each are added in 16, which saturates in silence.
            quantize_dynamic(proto, path, weight_type=QuantType.QInt8, reduce_range=True)
            made = onnx.load_model(path)
        kept = [entry for entry in made.metadata_props if entry.key != mark.key]
        del made.metadata_props[:]
        made.metadata_props.extend(kept)
        return made

    return _made(model, quantized)


def _made(model: bytes, make: Callable[[onnx.ModelProto], onnx.ModelProto]) -> bytes:
    proto = onnx.load_model_from_string(model)
    try:
        made = make(copy.deepcopy(proto))
    except _tool_errors as error:
        raise ConfigError(
            f"the graph cannot be brought into this form: {type(error).__name__}: {runtime_reason(error)}"
        ) from error
    return bytes(made.SerializeToString(deterministic=True))
