"""Puts a worker together: the only place that knows both the engine and the connectors."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import OutputPrefixes, load_schema, output_prefixes
from penstock.engine.codec.decode import RowDecoder, SchemaStore, make_decoder
from penstock.engine.codec.passed_fields import PassedFields
from penstock.engine.dead_letters.message import DeadLetterEncoder
from penstock.engine.dead_letters.message import ModelIdentity as LetterModel
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle, Trust
from penstock.engine.models.runtime.cache import CachedModel, check_alone
from penstock.engine.models.runtime.loader import ServedModel, open_model, varied_rows
from penstock.engine.pipeline.batcher import Batcher
from penstock.engine.pipeline.compute import ComputeThread
from penstock.engine.pipeline.hooks import Contact, Pausing, nothing_paused
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.pacing import CommitBySource, CommitInTransaction, PipelineLimits
from penstock.engine.pipeline.pipeline import Pipeline
from penstock.engine.pipeline.rejection_limit import PartitionBreakers
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import AssignmentListener, Sink, Source
from penstock.engine.settings.explain_policy import Every, parse_policy
from penstock.engine.settings.model import Settings
from penstock.engine.telemetry.events import Event, EventLog
from penstock.engine.telemetry.metrics import Metrics, cache_outcomes
from penstock.engine.telemetry.status import ModelIdentity, StatusBoard, WorkerState, WorkerStatus
from penstock.engine.worker.calibration import batch_bound_s, cost_curve, rehearse
from penstock.engine.worker.model_copy import ModelCopy
from penstock.engine.worker.poison_records import InFlightLog, Isolation
from penstock.engine.worker.result_encoders import explanation_encoder, passed_fields, prediction_encoder
from penstock.engine.worker.telemetry import Observer
from penstock.schemas.errors import ConfigError, InvariantError, PenstockError
from penstock.schemas.reading import Reading
from penstock.schemas.records import Records

logger = logging.getLogger("penstock.worker")

limits_default = OutputLimits(
    predictions_bytes_max=1_000_000, explanations_bytes_max=1_000_000, dead_letters_bytes_max=1_000_000
)
"""What Kafka's producers and topics take by default, less the envelope."""

compute_close_s, clients_close_s = 0.3, 1.4
"""What a stop may take beyond the drain: an abort, and to leave the group."""

compute_batches_max = 4
"""One in work and three that wait: enough to keep the compute side busy through a commit."""


class OpenSource(Protocol):
    """Joins the group."""

    def __call__(self, listener: AssignmentListener) -> Source:
        """A member that tells the listener of rebalances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The two ends of a broker, Kafka's or the one in memory."""

    cluster: str
    open_source: OpenSource
    open_sink: Callable[[], Sink]
    ends: Callable[[Iterable[int]], Mapping[int, int]]
    report: Callable[[WorkerStatus], None]
    contact: Callable[[bool], Contact | None] = lambda _: None
    member: Callable[[], bool | None] = lambda: None
    reading: Callable[[], Reading] = Reading
    schemas: SchemaStore | None = None
    prefixes: OutputPrefixes | None = None
    limits: OutputLimits = limits_default


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

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Work until asked to stop, then drain and leave; see Pipeline.run for what is raised."""
        try:
            self.pipeline.run(until=until)
        finally:
            self.board.set_state(WorkerState.STOPPED)
            self.pipeline.tell_stopped()
            self.report(self.board.status())  # the scaler need not wait for silence to know
            self.compute.close(timeout_s=compute_close_s)
            self.pipeline.close(timeout_s=clients_close_s)


def worker_name(group: str, slot: int, environ: Mapping[str, str] = os.environ) -> str:
    """Stable across restarts of the same place: group, identity (PENSTOCK_IDENTITY, else the host's name) and slot."""
    return f"{group}-{environ.get('PENSTOCK_IDENTITY') or socket.gethostname()}-{slot}"


def open_bundle(settings: Settings, copy: ModelCopy | None = None) -> Bundle:
    """The bundle that the settings name, or the supervisor's copy of it.

    Raises ConfigError: it is none, it does not have the digest that was asked for, or `model.trust` refuses it.
    """
    policy = settings.model.trust.in_force
    say = logger.warning if policy == "warn" else logger.info
    trust = (
        None
        if policy == "off"
        else Trust(keys=settings.model.trust.keys, enforce=policy == "enforce", say=say)
    )
    bundle = Bundle.load(copy.folder if copy else settings.model.path, trust=trust)
    wanted = settings.model.digest
    if wanted is not None and bundle.digest != wanted:
        raise ConfigError(
            f"model bundle {settings.model.path} has digest {bundle.digest}, and model.digest asks for {wanted}"
        )
    if copy is not None and bundle.digest != copy.digest:
        raise ConfigError(
            f"model bundle {settings.model.path} was exchanged while it was opened: digest {bundle.digest}, not {copy.digest}"
        )
    return bundle


def make_worker(
    settings: Settings,
    link: Link,
    *,
    name: str,
    run_folder: Path,
    board: StatusBoard,
    metrics: Metrics,
    bundle: Bundle,
    clock: Clock,
    events: EventLog,
    slot: int = 0,
    pausing: Callable[[], Pausing] = lambda: nothing_paused,
) -> Worker:
    """Prove and warm everything, then join the group. Raises ConfigError for whatever would go wrong at the first record."""
    board.set_state(WorkerState.WARMING)
    model = open_model(
        bundle,
        device=settings.model.device,
        runtime=settings.model.runtime,
        threads=settings.model.threads,
        batch_rows_max=settings.objective.batch_rows_max,
        clock=clock,
    )
    note = InFlightLog(run_folder / f"note-{slot}")
    if not note.kept:
        logger.warning(
            "records in hand cannot be noted in %s: %s; working on without", run_folder, note.fault
        )
    isolation = Isolation(note=note, verdicts=run_folder / "verdicts.json", in_hand=board.computing)
    schema_path = settings.input.record_schema
    reader_schema = load_schema(schema_path) if schema_path else bundle.input_schema
    decoder = make_decoder(
        settings=settings,
        signature=bundle.signature,
        reader_schema=reader_schema,
        schemas=link.schemas,
        record_bytes_max=settings.input.record_bytes_max,
    )
    cached = _cached(settings, bundle, model, metrics)
    scorer = make_scorer(
        settings,
        cluster=link.cluster,
        prefixes=link.prefixes,
        limits=link.limits,
        name=name,
        bundle=bundle,
        model=model,
        cached=cached,
        decoder=decoder,
        passing=passed_fields(settings, reader_schema, link.schemas),
        condemned=isolation.condemned,
        clock=clock,
    )
    rehearsed = rehearse(scorer, varied_rows(bundle, model), batch_rows_max=model.batch_rows_max, clock=clock)
    if cached is not None:
        cached.begin()
    show_model(bundle, model, metrics, board)
    bound_s = settings.model.batch_s_max or batch_bound_s(rehearsed, model.batch_rows_max)
    board.batch_bound(bound_s)
    note.warm(bound_s=bound_s)
    events.note(
        Event.MODEL_LOADED,
        f"model {bundle.name} {bundle.version}, digest {bundle.digest}, on {model.device.name} with {model.runtime} "
        "is verified and warm",
    )
    board.set_state(WorkerState.JOINING)

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
    )
    letters = settings.dead_letters
    pipeline = Pipeline(
        source=link.open_source,
        sink=link.open_sink(),
        compute=compute,
        batcher=Batcher(
            rows_max=rows_max,
            latency_slo_s=settings.objective.latency_slo_ms / 1000,
            cost=cost_curve(rehearsed),
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


def _cached(settings: Settings, bundle: Bundle, model: ServedModel, metrics: Metrics) -> CachedModel | None:
    if not settings.model.cache_rows:
        return None
    check_alone(model, varied_rows(bundle, model))
    hits, misses = (metrics.cache_rows.labels(outcome=outcome) for outcome in cache_outcomes)

    def count(found: int, asked: int) -> None:
        hits.inc(found)
        misses.inc(asked)

    return CachedModel(model, rows_max=settings.model.cache_rows, count=count)


def make_scorer(
    settings: Settings,
    *,
    cluster: str,
    prefixes: OutputPrefixes | None,
    limits: OutputLimits,
    name: str,
    bundle: Bundle,
    model: ServedModel,
    cached: CachedModel | None,
    decoder: RowDecoder,
    passing: PassedFields | None,
    condemned: Callable[[Records], Sequence[int]],
    clock: Clock,
) -> Scorer:
    """The stages from bytes to bytes for one bundle; `cached` answers in place of the model, but explains nothing."""
    output = settings.output
    prefixes = prefixes or output_prefixes(
        predictions=output.predictions,
        explanations=output.explanations,
        dead_letters=output.dead_letters,
        framing=settings.output_framing,
        registrar=None,
    )
    return Scorer(
        decoder=decoder,
        model=model if cached is None else cached,
        messages=OutgoingMessages(
            topics=Topics(
                predictions=output.predictions,
                explanations=output.explanations,
                dead_letters=output.dead_letters,
            ),
            limits=limits,
            headers=frozenset(output.headers),
        ),
        encode_predictions=prediction_encoder(settings, cluster, bundle, prefixes.predictions),
        encode_dead_letters=DeadLetterEncoder(
            prefix=None if output.format == "json" else prefixes.dead_letters,
            cluster=cluster,
            model=LetterModel(name=bundle.name, version=bundle.version, digest=bundle.digest),
            worker=name,
            message_bytes_max=limits.letter_bytes_max,
        ),
        explaining=_explaining(settings, cluster, bundle, model, prefixes.explanations, clock),
        passing=passing,
        condemned=condemned,
        clock=clock,
    )


def error_of(error: BaseException) -> PenstockError:
    """What a worker says of an exception that nobody expected."""
    if isinstance(error, PenstockError):
        return error
    return InvariantError(f"unexpected {type(error).__name__}: {error}")


def _explaining(
    settings: Settings, cluster: str, bundle: Bundle, model: ServedModel, prefix: bytes, clock: Clock
) -> Explaining | None:
    policy = parse_policy(settings.explain.policy)
    if settings.output.explanations is None or policy == Every(False):
        return None
    explainer = make_explainer(bundle, model, settings.explain, device=model.device, clock=clock)
    budget_ms = settings.explain.budget_ms
    return Explaining(
        policy=policy,
        explainer=explainer,
        encode=explanation_encoder(settings, cluster, bundle, prefix),
        budget_s=None if budget_ms is None else budget_ms / 1000,
    )


def event_log(metrics: Metrics, clock: Clock) -> EventLog:
    """A worker's events: in the log, in the metrics, and kept for /status."""
    return EventLog(logger=logger, count=lambda event: metrics.events.labels(event=event).inc(), clock=clock)


def new_metrics(settings: Settings) -> Metrics:
    """A worker's metrics on a registry of their own."""
    metrics = Metrics(CollectorRegistry(), objective_s=settings.objective.latency_slo_ms / 1000)
    metrics.age_objective.set(settings.scaling.max_age_s)
    return metrics


def require_topics(found: Mapping[str, int | None]) -> None:
    """Raises ConfigError naming every topic that is not there (None partitions)."""
    missing = sorted(topic for topic, partitions in found.items() if partitions is None)
    if missing:
        raise ConfigError(
            f"missing topics: {', '.join(missing)}; create them first, Penstock makes none by itself"
        )
