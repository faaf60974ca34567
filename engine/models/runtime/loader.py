"""A bundle's model ready to serve: its runtime chosen, checked against its golden batch, run at every bucket size."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.run_options import Runtime
from penstock.engine.models.probes.probe_rows import rows_mixed
from penstock.engine.models.runtime.golden import check_golden
from penstock.engine.models.runtime.gpu_modes import ChosenMode, ExecutionMode, fastest_way
from penstock.engine.models.runtime.native_trees import NativeModel, check_rows, difference
from penstock.engine.models.runtime.one_thread import LimitedModel
from penstock.engine.models.runtime.session import OnnxModel, choose_device
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.models.runtime.timing import (
    batch_of,
    buckets,
    compared_rows,
    compared_rows_on_gpu,
    compared_times,
)
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import ConfigError, InvariantError, ModelError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger(__name__)

RuntimeName = Literal["onnxruntime", "native"]

warmup_runs = 4
"""ONNX Runtime allocates on the first run, plans its memory on the second and replays on the third."""
warmup_run_s_max = 2.0
"""A bucket that takes longer than this is the last: no batch will be larger."""
mixed_rows = 1024
tried_rows = 64
tried_s_max = 0.5
"""So long rows are tried, so many at a time: a model that takes 14 ms a row would start a quarter of a minute later for them."""
slower_max = 1.2
"""Our kernel may seem this much slower at a size before it counts as slower: one run of a few microseconds is noisy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketTiming:
    """What a batch of `rows` rows takes: the very first, and a warm one (the median of those after it)."""

    rows: int
    first_ms: float
    ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What a batch of `rows` rows takes on either runtime, here and now: the fastest of a few runs in turn."""

    rows: int
    onnxruntime_ms: float
    native_ms: float

    @property
    def speed_up(self) -> float:
        """How many times as fast our kernel is."""
        return self.onnxruntime_ms / max(self.native_ms, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ServedModel:
    """The Model port on the runtime that was chosen, warm at every batch size up to `batch_rows_max`."""

    model: Model
    device: Device
    runtime: RuntimeName
    reason: str
    """Why this runtime, in a sentence."""
    compared: tuple[Comparison, ...]
    """Empty where there was nothing to choose."""
    ways: tuple[ExecutionMode, ...]
    """How else ONNX Runtime could run it on its GPU, the plain way first; empty on the CPU."""
    batch_rows_max: int
    warmup: tuple[BucketTiming, ...]
    rows: NDArray[np.generic]
    """(R, F): what it was warmed up on, see `varied_rows`."""

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """See penstock.engine.ports.Model; raises InvariantError when the device itself has failed."""
        return self.model.predict(matrix)


def open_model(
    bundle: Bundle,
    *,
    device: str = "auto",
    runtime: str = "auto",
    threads: int = 1,
    batch_rows_max: int,
    clock: Clock,
) -> ServedModel:
    """A bundle's model, checked against its golden batch and run at every bucket size up to `batch_rows_max`.

    `device`: auto, cpu, cuda or cuda:INDEX. `runtime`: native is our kernel for trees on the CPU, opened only when it
    agrees with ONNX Runtime here and now; auto takes it when packaging proved them equal as well and it is the faster one
    here. Raises ConfigError: the device or runtime is not to be had, the graph does not load, or the model does not say
    what it said when it was packaged.
    """
    if runtime == "native":
        device = "cpu" if device == "auto" else device
        if device != "cpu":
            raise ConfigError(f"model.runtime native runs on the CPU, and model.device is {device}")
    if bundle.table is not None:
        return _open_table(
            bundle, device=device, runtime=runtime, threads=threads, rows_max=batch_rows_max, clock=clock
        )
    kept = bundle.manifest.runtime
    opening = Opening(
        device=choose_device(device),
        threads=threads,
        batch_rows_max=batch_rows_max,
        optimization=kept.optimization,
    )
    onnx = opening.open(bundle)
    if onnx.device.note:
        logger.info("%s", onnx.device.note, extra=LogCode.DEVICE_CHOSEN.extra)
    slack = _slack(kept, onnx.device)
    check_golden(onnx, bundle.golden, onnx.device.name, slack=slack)
    rows = varied_rows(bundle, onnx, clock)
    native, why = _native(bundle, onnx, device=device, runtime=runtime, threads=threads)
    serving: LimitedModel = onnx
    way: ChosenMode | None = None
    if onnx.device.cuda is not None:
        way = fastest_way(bundle, onnx, opening, rows=rows, slack=slack, clock=clock)
        serving = way.model
    compared: tuple[Comparison, ...] = ()
    if native is not None and runtime == "auto":
        sizes = compared_rows_on_gpu if way else compared_rows
        compared = compare(serving, native, rows, batch_rows_max, clock, sizes=sizes)
        native, why = _faster(native, why, compared)
    chosen: LimitedModel | NativeModel = native or serving
    warmup = warm_up(chosen, rows, batch_rows_max, clock)
    for each in (onnx, serving):
        each.batch_rows_max = min(each.batch_rows_max, warmup[-1].rows)
    return ServedModel(
        model=chosen,
        device=Device() if native else onnx.device,
        runtime="native" if native else "onnxruntime",
        reason=f"{why}; {way.reason}" if way and not native else why,
        compared=compared,
        ways=way.ways if way else (),
        batch_rows_max=warmup[-1].rows,
        warmup=warmup,
        rows=rows,
    )


def _open_table(
    bundle: Bundle, *, device: str, runtime: str, threads: int, rows_max: int, clock: Clock
) -> ServedModel:
    """Trees that are no ONNX graph: our kernel, which is all that reads them. Raises ConfigError for anything else asked."""
    if runtime == "onnxruntime" or device not in ("auto", "cpu"):
        asked = f"device {device}" if runtime != "onnxruntime" else f"runtime {runtime}"
        raise ConfigError(
            f"the bundle keeps its trees as a table that our kernel reads, on the CPU, and model.{asked} asks for something "
            "else: leave it at auto"
        )
    native = NativeModel(bundle, threads=threads)
    check_golden(native, bundle.golden, "our tree kernel")
    rows = varied_rows(bundle, native, clock)
    warmup = warm_up(native, rows, rows_max, clock)
    return ServedModel(
        model=native,
        device=Device(),
        runtime="native",
        reason="the bundle keeps its trees as a table for it, compared with the original when packaged",
        compared=(),
        ways=(),
        batch_rows_max=warmup[-1].rows,
        warmup=warmup,
        rows=rows,
    )


def _slack(kept: Runtime, device: Device) -> float:
    """What scores may wander by more than rounding: a row's in int8 depend on its batch, which need not be as large as the
    golden one here; float16 is rounded where the kernels of a device round it."""
    elsewhere = kept.measured_on_gpu != (device.cuda is not None)
    wanders = kept.form == "int8" or (kept.form == "float16" and elsewhere)
    return kept.difference_max if wanders else 0.0


def varied_rows(bundle: Bundle, model: Model, clock: Clock) -> NDArray[np.generic]:
    """Rows (R, F) to measure on, as many as the model gets through in `tried_s_max`; where it cannot run a mix of the rows it was
    packaged with, those rows."""
    rows = bundle.golden.rows
    if bundle.background is not None:
        rows = np.concatenate((rows, bundle.background[:mixed_rows]))
    mixed = rows_mixed(rows, mixed_rows)
    began_s, tried = clock.monotonic_s(), 0
    while tried < len(mixed):
        try:
            model.predict(mixed[tried : tried + tried_rows])
        except ModelError:
            return rows
        tried += tried_rows
        if clock.monotonic_s() - began_s >= tried_s_max:
            break
    return mixed[:tried]


def _native(
    bundle: Bundle, onnx: OnnxModel, *, device: str, runtime: str, threads: int
) -> tuple[NativeModel | None, str]:
    """Our kernel where it may serve, and why it may or may not. Raises ConfigError where it must and cannot."""
    proof = bundle.manifest.runtime.native
    if runtime == "onnxruntime":
        return None, "model.runtime asks for it"
    if runtime == "auto" and device not in ("auto", "cpu"):
        return None, f"model.device asks for {device}, and our tree kernel runs on the CPU"
    if runtime == "auto" and not proof.equal:
        return None, proof.reason
    try:
        native = NativeModel(bundle, threads=threads)
        fault = difference(onnx, native, check_rows(bundle, native.forest, bundle.golden.rows)).reason
    except ConfigError as error:
        if runtime == "native":
            raise ConfigError(f"model.runtime native: {error}") from error
        return None, str(error)
    if fault and runtime == "native":
        raise ConfigError(f"model.runtime native: {fault}")
    if fault:
        logger.warning(
            "the tree kernel is not used, although packaging proved it: %s",
            fault,
            extra=LogCode.TREE_KERNEL_UNUSED.extra,
        )
        return None, f"on this machine {fault}"
    check_golden(native, bundle.golden, "our tree kernel")
    proved = (
        f"equal to ONNX Runtime on {proof.rows} rows when packaged" if proof.equal else "equal here and now"
    )
    return native, proved if runtime == "auto" else f"model.runtime asks for it; {proved}"


def _faster(native: NativeModel, why: str, compared: Sequence[Comparison]) -> tuple[NativeModel | None, str]:
    """Our kernel if it is faster at the largest size compared, and nowhere slower."""
    slower = [each for each in compared if each.native_ms > each.onnxruntime_ms * slower_max]
    last = compared[-1]
    if slower or last.native_ms >= last.onnxruntime_ms:
        worst = min(compared, key=lambda each: each.speed_up)
        return None, f"our tree kernel is not faster here: {worst.native_ms:.3f} ms against {worst.onnxruntime_ms:.3f} ms for {worst.rows} rows"  # fmt: skip
    return native, f"{why}, and {last.speed_up:.1f} times as fast here at {last.rows} rows"


def compare(
    onnx: Model,
    native: Model,
    rows: NDArray[np.generic],
    batch_rows_max: int,
    clock: Clock,
    *,
    sizes: Sequence[int] = compared_rows,
) -> tuple[Comparison, ...]:
    """Both runtimes in turn on batches of these rows, at these sizes up to `batch_rows_max`."""
    timed = compared_times((onnx, native), rows, sizes=sizes, batch_rows_max=batch_rows_max, clock=clock)
    return tuple(Comparison(rows=size, onnxruntime_ms=ms[0], native_ms=ms[1]) for size, ms in timed)


def warm_up(
    model: Model, rows: NDArray[np.generic], batch_rows_max: int, clock: Clock
) -> tuple[BucketTiming, ...]:
    """Run every bucket size `warmup_runs` times, on these rows in turn, and say how long each takes.

    Raises ConfigError when a bucket cannot be run, for instance because it does not fit the device's memory.
    """
    timings: list[BucketTiming] = []
    for bucket in buckets(batch_rows_max):
        durations_ms = []
        for run in range(warmup_runs):
            batch = batch_of(rows, bucket, run=run)
            before_s = clock.monotonic_s()
            try:
                model.predict(batch)
            except (ModelError, InvariantError) as error:
                raise ConfigError(f"the model cannot run a batch of {bucket} rows: {error}") from error
            durations_ms.append((clock.monotonic_s() - before_s) * 1000)
        timings.append(
            BucketTiming(rows=bucket, first_ms=durations_ms[0], ms=statistics.median(durations_ms[1:]))
        )
        if timings[-1].ms > warmup_run_s_max * 1000:
            break
    return tuple(timings)
