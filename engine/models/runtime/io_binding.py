"""Runs whose arrays stay where they are: for each batch size, inputs and outputs on the device, bound once."""

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.gpu.device import Device
from penstock.engine.gpu.driver import Driver, Gpu
from penstock.engine.models.runtime.onnx_runtime import onnx_runtime, runtime_errors
from penstock.engine.models.runtime.session import OnnxModel, failure, run_options
from penstock.engine.models.runtime.timing import buckets
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, InvariantError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger(__name__)

bound_bytes_max = 1 << 30
"""Of the arrays on the device, for all batch sizes together."""
_shown_rows = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bucket:
    """A batch size with what is bound for it; `staged` are the inputs on this side, of as many rows."""

    rows: int
    binding: Any
    options: Any
    staged: Mapping[str, NDArray[Any]]
    inputs: Mapping[str, Any]
    outputs: Sequence[Any]


class BoundModel:
    """The Model port on the session of an OnnxModel, by IO binding. One thread at a time.

    A batch is filled up to the next size of `buckets` with copies of its first row, which fails no later and scales no
    quantized batch otherwise than it does itself. So the device sees few shapes, always at the same addresses. Where the
    model captures, the first run of a size becomes a CUDA graph and later ones replay it: one launch instead of one for
    each node. ONNX Runtime keeps these graphs by thread, and captures again on another (see OneThread).
    """

    def __init__(self, model: OnnxModel, rows: NDArray[np.generic], *, rows_max: int) -> None:
        """Bind every size up to `rows_max`; `rows` (R, F) are some that the model runs, to learn the outputs' shapes from.

        Raises ConfigError when an input or output is no tensor of numbers with a row for each row, or the arrays would take
        more than `bound_bytes_max`; ModelError and InvariantError as the model does.
        """
        self.wiring, self.device = model.wiring, model.device
        self._session = model.session
        fixed = model.wiring.fixed_rows
        shown = np.resize(rows, (fixed or _shown_rows, rows.shape[1]))
        inputs = {name: _row_of(name, feed, shown) for name, feed in model.wiring.feeds(shown).items()}
        found = zip(model.wiring.names, model.arrays(shown), strict=True)
        outputs = {name: _row_of(name, array, shown) for name, array in found}
        self._sizes = [fixed] if fixed else buckets(rows_max)
        size_bytes = sum(self._sizes) * sum(row.nbytes for row in (*inputs.values(), *outputs.values()))
        if size_bytes > bound_bytes_max:
            raise ConfigError(f"arrays for all batch sizes would take {size_bytes >> 20} MiB on the device")
        staged, self._gpu = _staged(inputs, self._sizes[-1], self.device)
        try:
            self._buckets = [
                self._bound(size, staged, outputs, capture_as=number + 1 if model.captures else -1)
                for number, size in enumerate(self._sizes)
            ]
        except runtime_errors() as error:
            raise ConfigError(f"its arrays cannot be bound: {failure(error, self.device)}") from error
        self.batch_rows_max = self._sizes[-1]

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row of a matrix (R, F) in the signature's dtype. Raises as OnnxModel.predict does."""
        return self.wiring.in_pieces(self._run, matrix, self.batch_rows_max)

    def _run(self, matrix: NDArray[np.generic]) -> Predictions:
        rows = len(matrix)
        bucket = self._buckets[bisect_left(self._sizes, rows)]
        feeds = self.wiring.feeds(matrix)
        try:
            for name, feed in feeds.items():
                staged = bucket.staged[name]
                staged[:rows] = feed
                staged[rows:] = feed[:1]
                bucket.inputs[name].update_inplace(staged)
            bucket.binding.synchronize_inputs()
            self._session.run_with_iobinding(bucket.binding, bucket.options)
            bucket.binding.synchronize_outputs()
            found = [output.numpy() for output in bucket.outputs]
        except runtime_errors() as error:
            raise failure(error, self.device) from error
        return self.wiring.predictions(found, ran=bucket.rows, rows=rows)

    def _bound(
        self,
        size: int,
        staged: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        capture_as: int,
    ) -> _Bucket:
        binding = self._session.io_binding()
        parts = {name: array[:size] for name, array in staged.items()}
        on_device = {name: _on_device(part.shape, part.dtype, self.device) for name, part in parts.items()}
        answers = {
            name: _on_device((size, *row.shape), row.dtype, self.device) for name, row in outputs.items()
        }
        for name, value in on_device.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in answers.items():
            binding.bind_ortvalue_output(name, value)
        return _Bucket(
            rows=size,
            binding=binding,
            options=run_options(capture_as=capture_as),
            staged=parts,
            inputs=on_device,
            outputs=tuple(answers.values()),
        )


def _row_of(name: str, array: NDArray[Any], rows: NDArray[np.generic]) -> NDArray[Any]:
    """The first row of what the graph takes or gives for these rows. Raises ConfigError where it cannot be bound."""
    if array.dtype == object:
        raise ConfigError(f"{name} is a tensor of texts, which cannot be bound")
    if array.ndim == 0 or len(array) != len(rows):
        raise ConfigError(f"{name} does not have a row for each row")
    return np.asarray(array[0])


def _on_device(shape: Sequence[int], dtype: np.dtype[Any], device: Device) -> Any:
    kind, number = ("cpu", 0) if device.cuda is None else ("cuda", device.cuda)
    return onnx_runtime().OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, kind, number)


def _staged(
    rows: Mapping[str, NDArray[Any]], size: int, device: Device
) -> tuple[dict[str, NDArray[Any]], Gpu | None]:
    """Room for the inputs of the largest batch, page-locked where there is a GPU to read it; then with the GPU that gave it,
    which must be kept as long."""
    shapes = {name: (size, *row.shape) for name, row in rows.items()}
    if device.cuda is not None:
        try:
            gpu = Gpu(device.cuda, driver=Driver())
            with gpu.current():
                return {name: gpu.page_locked(shape, rows[name].dtype) for name, shape in shapes.items()}, gpu
        except (ConfigError, InvariantError) as error:
            logger.warning(
                "inputs go to %s from ordinary memory: %s",
                device.name,
                error,
                extra=LogCode.GPU_MEMORY_ORDINARY.extra,
            )
    return {name: np.zeros(shape, dtype=rows[name].dtype) for name, shape in shapes.items()}, None
