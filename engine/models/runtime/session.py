"""ONNX Runtime behind the Model port."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.engine.gpu.device import Device, cuda_devices, parse_device
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.bundle.run_options import Optimization
from penstock.engine.models.runtime.feeds import feed_of
from penstock.engine.models.runtime.graph_io import Wiring, fixed_rows, row_shape
from penstock.engine.models.runtime.onnx_runtime import onnx_runtime, runtime_errors, runtime_reason
from penstock.engine.models.runtime.timing import bucket_of
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, InvariantError, ModelError

_fatal_only = 4
_cpu_provider, _cuda_provider = "CPUExecutionProvider", "CUDAExecutionProvider"
_graph_types = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(string)": "string",
    "tensor(bool)": "bool",
}
_device_faults = ("CUDA", "CUBLAS", "CUDNN", "Failed to allocate memory")

_levels: Mapping[Optimization, str] = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}


class OnnxModel:
    """The Model port on one ONNX Runtime session. One thread at a time.

    With threads=1 a row's scores are the same bits whatever else is in its batch. A batch of more than
    `batch_rows_max` rows is run in pieces. No batch is padded, unless the graph takes one number of rows only, or the
    device is a GPU: there the first run of a shape is many times slower, so batches are filled up to the next of `buckets`.
    """

    def __init__(
        self,
        *,
        model: bytes,
        signature: Signature,
        outputs: Sequence[ModelOutput],
        labels: Labels | None,
        device: Device,
        threads: int,
        batch_rows_max: int,
        optimization: Optimization = "all",
        captures: bool = False,
    ) -> None:
        """Load the graph on the device. Raises ConfigError when it cannot be, or when it ended on another device.

        `captures`: bound runs (penstock.engine.models.runtime.io_binding) are captured as CUDA graphs; ONNX Runtime refuses that for a graph
        with a node that does not run on the GPU.
        """
        self.session = _open_session(model, device, threads, optimization, captures)
        graph_inputs = {graph_input.name: graph_input for graph_input in self.session.get_inputs()}
        _check_inputs(signature, graph_inputs)
        _check_outputs(self.session, outputs, labels)
        self.wiring = Wiring(
            signature=signature,
            outputs=outputs,
            labels=labels,
            shapes={name: graph_input.shape for name, graph_input in graph_inputs.items()},
        )
        self._run_options = run_options()
        self.captures = captures
        self.device = device
        self.batch_rows_max = batch_rows_max
        self.fills_up = device.cuda is not None
        """Batches are filled up to the next of `buckets`."""

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row of a matrix (R, F) in the signature's dtype.

        Raises ModelError when the graph throws on these rows, InvariantError when the device itself has failed.
        """
        return self.wiring.in_pieces(self._run, matrix, self.batch_rows_max)

    def arrays(self, matrix: NDArray[np.generic]) -> list[NDArray[Any]]:
        """What the graph answers to a matrix (R, F), output by output of `wiring.names`. Raises as predict does."""
        feeds = self.wiring.feeds(matrix)
        try:
            return list(self.session.run(self.wiring.names, feeds, self._run_options))
        except runtime_errors() as error:
            raise failure(error, self.device) from error

    def _run(self, matrix: NDArray[np.generic]) -> Predictions:
        rows = ran = len(matrix)
        if self.wiring.fixed_rows:
            ran = self.wiring.fixed_rows
        elif self.fills_up:
            ran = bucket_of(rows, self.batch_rows_max)
        if ran > rows:
            matrix = np.resize(matrix, (ran, matrix.shape[1]))
        return self.wiring.predictions(self.arrays(matrix), ran=ran, rows=rows)


def run_options(*, capture_as: int = -1) -> Any:
    """Of a run, which says nothing. `capture_as`: number of the CUDA graph that it is captured as and replayed from, where
    the session captures; -1: it is not captured."""
    options = onnx_runtime().RunOptions()
    options.log_severity_level = _fatal_only
    # Without the entry, run_with_iobinding raises and catches an exception on its way, which takes 50 us.
    options.add_run_config_entry("gpu_graph_id", str(capture_as))
    return options


def failure(error: Exception, device: Device) -> ModelError | InvariantError:
    """What an exception of a run means: the rows are at fault, or the device is."""
    text = runtime_reason(error)
    if device.cuda is not None and any(sign in str(error) for sign in _device_faults):
        # A poisoned context fails every later row too, and none of them is at fault.
        return InvariantError(f"{device.name} has failed: {text}")
    return ModelError(f"ONNX Runtime: {text}")


def raw_runner(model: bytes, signature: Signature) -> Callable[[NDArray[np.generic]], dict[str, Any]]:
    """A function from matrix rows to whatever the graph answers, by output name: for comparing, not for serving.

    Raises ConfigError when the graph does not load or does not run.
    """
    session = _open_session(model, Device(), 1)
    shapes = {graph_input.name: graph_input.shape for graph_input in session.get_inputs()}
    feeds = {
        each.name: feed_of(signature, each, row_shape(shapes[each.name], each.width))
        for each in signature.inputs
    }
    names = [graph_output.name for graph_output in session.get_outputs()]
    fixed = fixed_rows(shapes.values())

    def run_piece(matrix: NDArray[np.generic]) -> list[Any]:
        try:
            return list(session.run(names, {name: feed(matrix) for name, feed in feeds.items()}))
        except runtime_errors() as error:
            raise ConfigError(f"ONNX Runtime cannot run the model: {runtime_reason(error)}") from error

    def run(matrix: NDArray[np.generic]) -> dict[str, Any]:
        if not fixed:
            return dict(zip(names, run_piece(matrix), strict=True))
        whole = np.resize(matrix, (math.ceil(len(matrix) / fixed) * fixed, matrix.shape[1]))
        pieces = [run_piece(piece) for piece in np.split(whole, len(whole) // fixed)]
        found = [
            [row for piece in each for row in piece][: len(matrix)]
            if isinstance(each[0], list)
            else np.concatenate(each)[: len(matrix)]
            for each in zip(*pieces, strict=True)
        ]
        return dict(zip(names, found, strict=True))

    return run


def run_once(model: bytes) -> None:
    """Load the graph on the CPU and run one row of zeros (empty texts): for trying a file, not for serving.

    Raises ConfigError when it does not load or run.
    """
    session = _open_session(model, Device(), 1)
    feeds = {}
    for graph_input in session.get_inputs():
        shape = [extent if isinstance(extent, int) and extent > 0 else 1 for extent in graph_input.shape]
        kind = _graph_types.get(graph_input.type, "float32")
        feeds[graph_input.name] = (
            np.full(shape, "", dtype=object) if kind == "string" else np.zeros(shape, dtype=kind)
        )
    try:
        session.run(None, feeds, run_options())
    except runtime_errors() as error:
        raise ConfigError(f"ONNX Runtime cannot run the model: {runtime_reason(error)}") from error


def rewritten(model: bytes, device: Device) -> bytes:
    """The graph as ONNX Runtime rewrites it for any processor of the device's kind, so that it need not at every start.

    Raises ConfigError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        options = _options(1, "extended")
        options.optimized_model_filepath = str(path)
        try:
            _new_session(model, device, options)
        except runtime_errors() as error:
            raise ConfigError(f"ONNX Runtime refuses the model: {runtime_reason(error)}") from error
        return path.read_bytes()


def choose_device(asked: str) -> Device:
    """The device to run on. Raises ConfigError when a GPU was asked for by name and cannot be had."""
    index = parse_device(asked)
    if asked == "cpu":
        return Device()
    count = cuda_devices()
    fault = None
    if not count:
        fault = "there is no GPU here"
    elif index is not None and index >= count:
        fault = f"there are {count} GPUs here, counted from 0"
    elif _cuda_provider not in onnx_runtime().get_available_providers():
        fault = "this ONNX Runtime is built without CUDA"
    else:
        fault = _cuda_fault(index or 0)
    if fault is None:
        return Device(cuda=index or 0)
    if asked != "auto":
        raise ConfigError(f"device {asked} was asked for, but {fault}")
    return Device(note=f"{fault}: the model runs on the CPU")


def _cuda_fault(index: int) -> str | None:
    """Why no session would run on this GPU: the CUDA libraries are missing, or do not suit the driver."""
    onnx_runtime().set_default_logger_severity(_fatal_only)
    try:
        onnx_runtime().preload_dlls()
        session = _new_session(_smallest_model(), Device(cuda=index), _options(1, "all"))
    except runtime_errors() as error:
        return f"ONNX Runtime cannot use the GPU ({runtime_reason(error)})"
    if session.get_providers()[0] != _cuda_provider:
        return "the CUDA and cuDNN libraries that ONNX Runtime needs are not here"
    return None


def _smallest_model() -> bytes:
    from onnx import TensorProto, helper  # only where there is a GPU

    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", edges[:1], edges[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _open_session(
    model: bytes, device: Device, threads: int, optimization: Optimization = "all", captures: bool = False
) -> Any:
    try:
        session = _new_session(model, device, _options(threads, optimization), captures)
    except runtime_errors() as error:
        raise ConfigError(f"ONNX Runtime refuses the model: {runtime_reason(error)}") from error
    wanted = _cpu_provider if device.cuda is None else _cuda_provider
    if session.get_providers()[0] != wanted:  # it falls back to the CPU with no more than a warning
        raise ConfigError(f"asked for {wanted}, but ONNX Runtime took {session.get_providers()[0]}")
    return session


def _new_session(model: bytes, device: Device, options: Any, captures: bool = False) -> Any:
    providers: list[Any] = [_cpu_provider]
    if device.cuda is not None:
        # TF32 rounds the factors of float32 products to 10 bits; timing convolutions makes starts differ.
        cuda = {"device_id": str(device.cuda), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        if captures:
            cuda["enable_cuda_graph"] = "1"
        providers.insert(0, (_cuda_provider, cuda))
    # Falling back, it would print on standard output and go on, on the CPU, even in the middle of a stream.
    return onnx_runtime().InferenceSession(
        model, sess_options=options, providers=providers, enable_fallback=False
    )


def _options(threads: int, optimization: Optimization) -> Any:
    options = onnx_runtime().SessionOptions()
    options.graph_optimization_level = getattr(onnx_runtime().GraphOptimizationLevel, _levels[optimization])
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnx_runtime().ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _fatal_only  # what matters is raised; the rest is red noise
    # A spinning thread burns the core that the poll thread and the neighbours need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # It takes a number beside a product of matrices into that product as a float32, of doubles as well: 8 digits of 16 are lost.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulScaleFusion")
    return options


def _check_inputs(signature: Signature, graph_inputs: Mapping[str, Any]) -> None:
    named = {model_input.name for model_input in signature.inputs}
    if named != set(graph_inputs):
        odd = sorted(named ^ set(graph_inputs))
        raise ConfigError(f"the signature and the graph do not have the same inputs: {', '.join(odd)}")
    for model_input in signature.inputs:
        graph_input = graph_inputs[model_input.name]
        found = _graph_types.get(graph_input.type, graph_input.type)
        if found != model_input.dtype:
            raise ConfigError(
                f"input {model_input.name} of the graph takes {found}, the signature says {model_input.dtype}"
            )
        known = [extent for extent in graph_input.shape[1:] if isinstance(extent, int)]
        if len(known) == len(graph_input.shape[1:]) and math.prod(known) != model_input.width:
            columns = signature.columns[model_input.start : model_input.start + model_input.width]
            raise ConfigError(
                f"input {model_input.name} of the graph takes {math.prod(known)} numbers a row, "
                f"the features give it {model_input.width}: {', '.join(columns)}"
            )


def _check_outputs(session: Any, outputs: Sequence[ModelOutput], labels: Labels | None) -> None:
    types = {graph_output.name: graph_output.type for graph_output in session.get_outputs()}
    for name in [output.name for output in outputs] + ([labels.output] if labels else []):
        if name not in types:
            raise ConfigError(f"the graph has no output {name}")
    for output in outputs:
        if types[output.name] not in ("tensor(float)", "tensor(double)", "tensor(float16)"):
            raise ConfigError(f"output {output.name} is a {types[output.name]}, not a tensor of floats")
