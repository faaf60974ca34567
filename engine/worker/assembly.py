"""Puts a worker together: the only place that knows both the engine and the connectors."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry

from penstock.engine.clock import Clock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import ServedModel
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.pipeline.batcher import Batcher
from penstock.engine.pipeline.compute import ComputeThread
from penstock.engine.pipeline.hooks import Contact, Pausing, nothing_paused
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.rejection_limit import PartitionBreakers
from penstock.engine.pipeline.sampling import Sampler
from penstock.engine.ports import AssignmentListener, Source
from penstock.engine.settings.model import Settings
from penstock.engine.telemetry.events import Event, EventLog
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState, WorkerStatus
from penstock.engine.worker.calibration import batch_bound_s, cost_curve
from penstock.engine.worker.poison_records import InFlightLog, Isolation
from penstock.engine.worker.startup.startup import Startup, walk
from penstock.engine.worker.startup.tracing import choosing, open_traces
from penstock.engine.worker.startup.worker import worker_steps
from penstock.engine.worker.telemetry import Observer
from penstock.schemas.errors import InvariantError, PenstockError
from penstock.schemas.log_codes import LogCode
from penstock.schemas.reading import Reading

if TYPE_CHECKING:
    from penstock.engine.telemetry.tracing.sender import TraceSender

logger = logging.getLogger("penstock.worker")

compute_close_s, clients_close_s, traces_close_s = 0.3, 1.4, 0.1
"""What a stop may take beyond the drain: an abort, and to leave the group; and to send a last trace."""

compute_batches_max = 4
"""One in work and three that wait: enough to keep the compute side busy through a commit."""


class OpenSource(Protocol):
    """Joins the group."""

    def __call__(self, listener: AssignmentListener) -> Source:
        """A member that tells the listener of rebalances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The input of a broker, Kafka's or the one in memory, and what is known of the broker while it is read."""

    open_source: OpenSource
    ends: Callable[[Iterable[int]], Mapping[int, int]]
    report: Callable[[WorkerStatus], None]
    contact: Callable[[bool], Contact | None] = lambda _: None
    member: Callable[[], bool | None] = lambda: None
    reading: Callable[[], Reading] = Reading
    over: Callable[[], bool] = lambda: False  # it has done what it was opened for, and another should follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """A worker that is ready to run: its model is verified and warm."""

    pipeline: Pipeline
    compute: ComputeThread
    metrics: Metrics
    board: StatusBoard
    model: ServedModel
    bundle: Bundle
    report: Callable[[WorkerStatus], None]
    over: Callable[[], bool] = lambda: False
    traces: "TraceSender | None" = None

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Work until asked to stop, then drain and leave; see Pipeline.run for what is raised."""
        try:
            self.pipeline.run(until=until)
        finally:
            self.board.set_state(WorkerState.STOPPED)
            self.pipeline.tell_stopped()
            self.report(self.board.status())  # the scaler need not wait for silence to know
            if self.traces is not None:
                self.traces.close(timeout_s=traces_close_s)
            self.compute.close(timeout_s=compute_close_s)
            self.pipeline.close(timeout_s=clients_close_s)


def make_worker(
    startup: Startup,
    link: Link,
    *,
    run_folder: Path,
    board: StatusBoard,
    events: EventLog,
    slot: int = 0,
    pausing: Callable[[], Pausing] = lambda: nothing_paused,
    view: WorkerView | None = None,
) -> Worker:
    """Prove and warm what is not proved yet, then join the group. Raises ConfigError for whatever would go wrong at the first record."""
    settings, metrics, clock = startup.settings, startup.the(startup.metrics), startup.clock
    board.set_state(WorkerState.WARMING)
    note = InFlightLog(run_folder / f"note-{slot}")
    if not note.kept:
        logger.warning(
            "records in hand cannot be noted in %s: %s; working on without",
            run_folder,
            note.fault,
            extra=LogCode.IN_HAND_NOT_NOTED.extra,
        )
    isolation = Isolation(note=note, verdicts=run_folder / "verdicts.json", in_hand=board.computing)
    startup.condemned = isolation.condemned
    startup.sampler = None if view is None else Sampler(clock)
    walk(startup, worker_steps, "kafka", "registry", "model")
    bundle, model = startup.the(startup.bundle), startup.the(startup.model)
    scorer, decoder = startup.the(startup.scorer), startup.the(startup.decoder)
    if startup.cached is not None:
        startup.cached.begin()
    show_model(bundle, model, metrics, board)
    bound_s = settings.model.batch_s_max or batch_bound_s(startup.rehearsed, model.batch_rows_max)
    board.batch_bound(bound_s)
    note.warm(bound_s=bound_s)
    events.note(
        Event.MODEL_LOADED,
        f"model {bundle.name} {bundle.version}, digest {bundle.digest}, on {model.device.name} with {model.runtime} "
        "is verified and warm",
    )
    board.set_state(WorkerState.JOINING)

    traces = open_traces(settings, metrics, name=startup.name, bundle=bundle)
    compute = ComputeThread(
        isolation.guard(scorer.score),
        batches_max=compute_batches_max,
        monotonic_s=clock.monotonic_s,
        error_of=error_of,
        on_retry=board.progressed,
        require=scorer.require,
    )
    rows_max = model.batch_rows_max
    observer = Observer(
        metrics=metrics,
        board=board,
        clock=clock,
        topic=settings.input.topic,
        ends=link.ends,
        report=link.report,
        on_rebalance=isolation.reload,
        reference_records=lambda: decoder.reference_records,
        events=events,
        contact=link.contact,
        reading=link.reading,
        member=link.member,
        beat=note.beat,
        values=decoder.counts,
        view=view,
        tracing=None if traces is None else choosing(settings, clock=clock, take=traces.take),
    )
    letters = settings.dead_letters
    walk(startup, worker_steps, "delivery")  # the predecessor is fenced, now that everything else holds
    pipeline = Pipeline(
        source=link.open_source,
        sink=startup.the(startup.sink),
        compute=compute,
        batcher=Batcher(
            rows_max=rows_max,
            latency_slo_s=settings.objective.latency_slo_ms / 1000,
            cost=cost_curve(startup.rehearsed),
        ),
        breaker=lambda: PartitionBreakers(
            run_max=letters.run_max, share_max=letters.share_max, window=letters.window
        ),
        watcher=observer,
        clock=clock,
        commits=CommitBySource() if settings.kafka.delivery == "at_least_once" else CommitInTransaction(),
        limits=PipelineLimits(drain_budget_s=settings.kafka.drain_budget_s),
        pausing=pausing,
    )
    return Worker(
        pipeline=pipeline,
        compute=compute,
        metrics=metrics,
        board=board,
        model=model,
        bundle=bundle,
        report=link.report,
        over=link.over,
        traces=traces,
    )


def show_model(bundle: Bundle, model: ServedModel, metrics: Metrics, board: StatusBoard) -> None:
    """Which model is loaded, where and how it runs, and why so, for whoever asks."""
    facts = {"name": bundle.name, "version": bundle.version, "digest": bundle.digest}
    where = {"device": model.device.name, "runtime": model.runtime}
    metrics.model_info.labels(**facts, **where).set(1)
    seconds = {(model.runtime, timing.rows): timing.ms / 1000 for timing in model.warmup}
    for each in model.compared:
        seconds.setdefault(("onnxruntime", each.rows), each.onnxruntime_ms / 1000)
        seconds.setdefault(("native", each.rows), each.native_ms / 1000)
    for (runtime, rows), took_s in seconds.items():
        metrics.model_batch_seconds.labels(runtime=runtime, rows=str(rows)).set(took_s)
    proof = bundle.manifest.runtime.native
    metrics.native_proof_rows.set(proof.rows)
    metrics.native_proof_difference.set(proof.difference_max)
    board.verified(ModelIdentity(**facts, **where, runtime_reason=model.reason))


def error_of(error: BaseException) -> PenstockError:
    """What a worker says of an exception that nobody expected."""
    if isinstance(error, PenstockError):
        return error
    return InvariantError(f"unexpected {type(error).__name__}: {error}")


def event_log(metrics: Metrics, clock: Clock) -> EventLog:
    """A worker's events: in the log, in the metrics, and kept for /status."""
    return EventLog(logger=logger, count=lambda event: metrics.events.labels(event=event).inc(), clock=clock)


def new_metrics(settings: Settings) -> Metrics:
    """A worker's metrics on a registry of their own."""
    metrics = Metrics(CollectorRegistry(), objective_s=settings.objective.latency_slo_ms / 1000)
    metrics.age_objective.set(settings.scaling.max_age_s)
    return metrics
