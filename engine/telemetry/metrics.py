"""The metrics of workers, declared once, on a registry that is passed in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector

import penstock
from penstock.engine.features.value_counts import ValueCounts
from penstock.engine.pipeline.batcher import CloseReason
from penstock.engine.telemetry.events import Event
from penstock.engine.telemetry.metric_declarations import (
    Example,
    Labels,
    MetricSet,
    array_histogram,
    counter,
    gauge,
    histogram,
)
from penstock.schemas.reasons import Reason

record_outcomes = ("predicted", "explained", "rejected", "skipped")
unexplained_reasons = ("policy", "budget")
stages = ("wait", "decode", "infer", "explain", "encode", "deliver")
delivery_outcomes = ("delivered", "aborted")
rewind_causes = ("abort", "revoke", "lost", "hold")
queues = ("batcher", "compute", "delivery")
held_states = ("waits", "stopped")
age_counted_max_s = 30 * 86_400.0
ahead_counted_min_s = 5.0
"""Clocks that are kept in step differ by less."""
cache_outcomes = ("hit", "miss")
runtimes = ("onnxruntime", "native")
work_kinds = ("predict", "explain")
telemetry_parts = ("observe", "scrape")
trace_outcomes = ("sent", "dropped", "failed")

feature_labels_max = 200
others = "(others)"

_place: Labels = {"topic": None, "partition": None}
_rows_buckets = tuple(2.0**power for power in range(17))
_stage_buckets_s = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_gap_buckets_s = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
# OpenTelemetry's buckets for messaging, with finer steps below (a record can pass in 2 ms) and longer ages above.
_age_buckets_s = (
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip


def age_buckets_s(objective_s: float | None) -> tuple[float, ...]:
    """Bounds of the end-to-end age in seconds: the declared ones, and the objective with its half and its double."""
    own = () if objective_s is None else (objective_s / 2, objective_s, objective_s * 2)
    return tuple(sorted({*_age_buckets_s, *own}))


class BatchOutcome(Protocol):
    """What the metrics read of a finished batch."""

    @property
    def predicted(self) -> int: ...
    @property
    def explained(self) -> int: ...
    @property
    def unexplained(self) -> Mapping[str, int]: ...
    @property
    def skipped(self) -> int: ...
    @property
    def rejections(self) -> Sequence["RejectionReason"]: ...
    @property
    def stage_s(self) -> Mapping[str, float]: ...


class RejectionReason(Protocol):
    """What the metrics read of a rejection."""

    @property
    def reason(self) -> Reason: ...


class Metrics(MetricSet):
    """The metrics of one worker. Counters move when a delivery is acknowledged, never before."""

    records = counter(
        "penstock_records_total",
        "Records delivered: predicted + rejected + skipped is every record; explained counts the predicted ones that carry an explanation.",
        {"outcome": record_outcomes},
    )
    unexplained = counter(
        "penstock_unexplained_records_total",
        "Predicted records without an explanation, by why: explain.policy passed them over, or explain.budget_ms was spent; with explained they are every predicted record where there is an explanations topic.",
        {"reason": unexplained_reasons},
    )
    rejected = counter(
        "penstock_rejected_records_total",
        "Records set aside in the dead-letter topic, by reason.",
        {"reason": tuple(Reason)},
    )
    batches = counter("penstock_batches_total", "Batches closed, by why.", {"reason": tuple(CloseReason)})
    batch_rows = histogram("penstock_batch_rows", "Records in a batch.", _rows_buckets)
    stage_seconds = histogram(
        "penstock_stage_seconds",
        "Duration of a stage for a whole batch: wait from the poll until it is computed, deliver from computed to acknowledged.",
        _stage_buckets_s,
        {"stage": stages},
    )
    end_to_end_seconds = array_histogram(
        "penstock_end_to_end_seconds",
        "Age of a record when its output is acknowledged, from the input record's timestamp.",
        _age_buckets_s,
    )
    lag_records = gauge(
        "penstock_lag_records",
        "Offsets of a partition that are not finished yet; commit markers count, which penstock_group_lag_records leaves out; NaN while the end is not known.",
        _place,
    )
    lag_seconds = gauge(
        "penstock_lag_seconds",
        "Age of the oldest unfinished record of a partition; 0 when nothing is unfinished, NaN while it cannot be known.",
        _place,
    )
    read = counter(
        "penstock_read_records_total",
        "Records taken from the input: delivered with an outcome, in flight, or dropped to be read again.",
    )
    dropped = gauge(
        "penstock_dropped_records",
        "Records read and dropped by a rewind or a revocation, since the start; they are read again, here or by their next owner.",
    )
    in_flight = gauge("penstock_in_flight_records", "Records read and not finished yet.")
    latency_objective = gauge(
        "penstock_latency_objective_seconds",
        "objective.latency_slo_ms: what a batch may take from its first record to its results.",
    )
    age_objective = gauge(
        "penstock_age_objective_seconds",
        "scaling.max_age_s: no unfinished record should become older than this.",
    )
    deliveries = counter(
        "penstock_deliveries_total",
        "Groups of finished batches sent together, with exactly_once each a Kafka transaction, by how they ended.",
        {"outcome": delivery_outcomes},
    )
    rewinds = counter(
        "penstock_rewinds_total",
        "Times work in flight was dropped, to be read again, by cause.",
        {"cause": rewind_causes},
    )
    rebalances = counter("penstock_rebalances_total", "Changes of the assigned partitions.")
    assigned_partitions = gauge("penstock_assigned_partitions", "Input partitions that this worker owns.")
    poll_gap_seconds = histogram(
        "penstock_poll_gap_seconds",
        "Time between two rounds of the polling loop; a gap past max.poll.interval.ms costs the partitions.",
        _gap_buckets_s,
    )
    queue_rows = gauge(
        "penstock_queue_rows",
        "Records that wait: in the batcher, with the compute side, or for their delivery to be acknowledged.",
        {"queue": queues},
    )
    reference_decoded = counter(
        "penstock_reference_decoded_records_total",
        "Records decoded by the slow reference path, because their schema is beyond the native codec.",
    )
    rows_read = counter(
        "penstock_rows_read_total",
        "Records whose fields could be read, counted as they are decoded: what the two below are a share of.",
    )
    missing_values = counter(
        "penstock_missing_values_total",
        f"Values that were null, absent or NaN, by feature, before its policy; each number of a vector counts. Features past the first {feature_labels_max} are counted together, as `{others}`.",
        {"feature": None},
    )
    unseen_values = counter(
        "penstock_unseen_values_total",
        "Categories that the feature's table does not hold, by feature, before its policy; labels as above.",
        {"feature": None},
    )
    model_info = gauge(
        "penstock_model_info",
        "1 for the model that is loaded.",
        {"name": None, "version": None, "digest": None, "device": None, "runtime": runtimes},
    )
    model_batch_seconds = gauge(
        "penstock_model_batch_seconds",
        "What a batch of so many rows took the model at warm-up, and the other runtime where the two were compared.",
        {"runtime": runtimes, "rows": None},
    )
    cache_rows = counter(
        "penstock_cache_rows_total",
        "Rows whose result was kept from before, and rows that the model had to answer; with model.cache_rows.",
        {"outcome": cache_outcomes},
    )
    native_proof_rows = gauge(
        "penstock_native_proof_rows",
        "Rows on which packaging compared the native tree kernel with ONNX Runtime; 0 where it could not.",
    )
    native_proof_difference = gauge(
        "penstock_native_proof_difference_ratio",
        "Largest difference of a score found on them, relative to the span of its output, rounded up to a power of ten.",
    )
    build_info = gauge("penstock_build_info", "1 for the running release.", {"version": None})
    ready = gauge("penstock_ready", "1 when assigned, verified and warmed, 0 otherwise.")
    capacity = gauge(
        "penstock_worker_capacity_records_per_second",
        "What this worker could do flat out with the present mix of work; 0 until it is known.",
    )
    capacity_measured = gauge(
        "penstock_worker_capacity_measured",
        "1 when the capacity was seen while more waited than the worker could do, 0 when busy time was all there is to go by.",
    )
    cpu_limit_cores = gauge(
        "penstock_cpu_limit_cores",
        "Cores that the kernel lets the container use (resources.limits.cpu of a pod), shared by its workers; NaN without a limit.",
    )
    saturated_rate = gauge(
        "penstock_worker_saturated_records_per_second",
        "Finished while saturated, by kind of work; 0 when never seen apart.",
        {"kind": work_kinds},
    )
    busy_seconds = counter("penstock_busy_seconds_total", "Seconds the compute side spent on records.")
    startup_seconds = gauge("penstock_startup_seconds", "Process start to ready; 0 until it is ready.")
    ages_left_out = counter(
        "penstock_end_to_end_left_out_total",
        "Records older than 30 days when acknowledged: their age says more of the clock that stamped them, and is left out of penstock_end_to_end_seconds.",
    )
    ahead_records = counter(
        "penstock_ahead_records_total",
        "Records stamped more than 5 s ahead of this machine's clock when acknowledged: a clock is wrong, and their age counts as 0.",
    )
    ahead_seconds = counter(
        "penstock_ahead_seconds_total",
        "By how much those of penstock_ahead_records_total were ahead, added up.",
    )
    events = counter(
        "penstock_events_total",
        "State changes that were logged, by kind; docs/operations.md has one row for each.",
        {"event": tuple(Event)},
    )
    broker_reachable = gauge(
        "penstock_broker_reachable", "1 while the Kafka cluster answers, 0 after 5 s without an answer."
    )
    broker_answer_age = gauge(
        "penstock_broker_answer_age_seconds",
        "Time since the cluster last answered; it is asked once a second.",
    )
    input_partitions = gauge(
        "penstock_input_partitions", "Partitions of the input topic, as the cluster last said."
    )
    output_partitions = gauge(
        "penstock_output_partitions",
        "Partitions of an output topic: as many as the input's, and records keep their number; else they go by their key.",
        {"topic": None},
    )
    held_partitions = gauge(
        "penstock_held_partitions",
        "Owned partitions that stand still while the others go on: they wait for something remote, or were stopped because nearly all of their records are bad.",
        {"state": held_states},
    )
    unreadable_offsets = counter(
        "penstock_unreadable_offsets_total",
        "Offsets whose bytes no client could read, set aside under input.unreadable; one dead letter names each range.",
    )
    lost_offsets = counter(
        "penstock_lost_offsets_total",
        "Offsets of the input that were deleted (retention) before the group read them, where reading went on behind them.",
    )
    topic_recreations = counter(
        "penstock_topic_recreations_total",
        "How often the input topic was found deleted and made anew.",
    )
    stalled_partitions = gauge(
        "penstock_stalled_partitions",
        "Partitions in which records wait and nothing was read for 30 s, or of which it could not be found out for 10 s where to begin.",
    )
    telemetry_seconds = counter(
        "penstock_telemetry_seconds_total",
        "What telemetry itself takes of this worker: observe on the polling thread, scrape on the threads that answer.",
        {"part": telemetry_parts},
    )
    traced_batches = counter(
        "penstock_traced_batches_total",
        "Batches chosen to be traced: sent, dropped (more were chosen than are sent in a second, or the worker ended), or failed (the collector did not take them).",
        {"outcome": trace_outcomes},
    )
    log_lines_held = counter(
        "penstock_log_lines_held_total",
        "Lines of a worker's log that were held back, because too many of one code came; each minute a line says how many.",
    )
    open_transaction_offsets = gauge(
        "penstock_open_transaction_offsets",
        "Offsets of owned partitions that wait for the end of a producer's transaction, where that takes longer than 30 s.",
    )

    def __init__(self, registry: CollectorRegistry, *, objective_s: float | None = None) -> None:
        """`objective_s`: objective.latency_slo_ms; the buckets of the end-to-end age then have it, its half and its double among
        their bounds, and ages past it an example."""
        super().__init__(registry, buckets={"penstock_end_to_end_seconds": age_buckets_s(objective_s)})
        self._objective_s = objective_s
        if objective_s is not None:
            self.latency_objective.set(objective_s)
        self.build_info.labels(version=penstock.__version__).set(1)
        # Looked up once: of a small batch the look-ups would be the greater part.
        self._outcomes = {outcome: self.records.labels(outcome=outcome) for outcome in record_outcomes}
        self._stages = {stage: self.stage_seconds.labels(stage=stage) for stage in stages}
        self._deliveries = {outcome: self.deliveries.labels(outcome=outcome) for outcome in delivery_outcomes}
        self._closed = {reason: self.batches.labels(reason=reason) for reason in CloseReason}
        self._counted: tuple[int, NDArray[np.int64] | int, NDArray[np.int64] | int] = (0, 0, 0)
        ProcessCollector(registry=registry)

    def count_closed(self, reason: CloseReason, *, rows: int, waited_s: float) -> None:
        """Count one batch that was handed to the compute side."""
        self._closed[reason].inc()
        self.batch_rows.observe(rows)
        self._stages["wait"].observe(waited_s)

    def count_delivery(self, *, took_s: float) -> None:
        """Count one delivery that was acknowledged."""
        self._deliveries["delivered"].inc()
        self._stages["deliver"].observe(took_s)

    def count_batch(self, outcome: BatchOutcome, *, busy_s: float) -> None:
        """Count one delivered batch."""
        self._outcomes["predicted"].inc(outcome.predicted)
        self._outcomes["explained"].inc(outcome.explained)
        self._outcomes["skipped"].inc(outcome.skipped)
        for reason, count in outcome.unexplained.items():
            self.unexplained.labels(reason=reason).inc(count)
        for stage, duration_s in outcome.stage_s.items():
            self._stages[stage].observe(duration_s)
        self.busy_seconds.inc(busy_s)
        if not outcome.rejections:
            return
        self._outcomes["rejected"].inc(len(outcome.rejections))
        for rejection in outcome.rejections:
            self.rejected.labels(reason=rejection.reason).inc()

    def count_values(self, counts: ValueCounts) -> None:
        """Count what was decoded since the last call."""
        now = (counts.rows, counts.missing.copy(), counts.unseen.copy())
        rows, missing, unseen = self._counted
        self._counted = now
        self.rows_read.inc(now[0] - rows)
        for metric, more in ((self.missing_values, now[1] - missing), (self.unseen_values, now[2] - unseen)):
            for place in np.flatnonzero(more).tolist():
                name = counts.features[place] if place < feature_labels_max else others
                metric.labels(feature=name).inc(int(more[place]))

    def count_ages(
        self,
        timestamps_ms: NDArray[np.int64],
        *,
        now_ms: int,
        place: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        """Count the end-to-end age of delivered records; those without a timestamp (-1) have none. `place`: partition and offset of one
        of them, asked for the oldest where it is past the objective.

        A producer's clock may run ahead of ours: such an age counts as 0, and far ahead it is counted separately, as is an age of
        more than 30 days.
        """
        stamped = timestamps_ms
        if stamped.min(initial=0) < 0:
            stamped = stamped[stamped >= 0]
        ages_s = (now_ms - stamped) / 1000.0
        if ages_s.min(initial=0.0) < 0:
            far_ahead = ages_s < -ahead_counted_min_s
            if far_ahead.any():
                self.ahead_records.inc(int(far_ahead.sum()))
                self.ahead_seconds.inc(-float(ages_s[far_ahead].sum()))
            ages_s = np.maximum(ages_s, 0.0)
        oldest_s = float(ages_s.max(initial=0.0))
        if oldest_s > age_counted_max_s:
            believed = ages_s[ages_s <= age_counted_max_s]
            self.ages_left_out.inc(len(ages_s) - len(believed))
            ages_s, oldest_s = believed, float(believed.max(initial=0.0))
        example = None
        if place is not None and self._objective_s is not None and oldest_s > self._objective_s:
            index = int(np.flatnonzero(timestamps_ms == now_ms - round(oldest_s * 1000))[0])
            partition, offset = place(index)
            labels = {"partition": str(partition), "offset": str(offset)}
            example = Example(value=oldest_s, labels=labels, at_s=now_ms / 1000)
        self.end_to_end_seconds.observe_many(ages_s, example=example)

    def forget_lag(self, topic: str, partitions: Iterable[int]) -> None:
        """These partitions are another worker's now: a series left behind would show an old lag for ever."""
        for partition in partitions:
            for lag in (self.lag_records, self.lag_seconds):
                lag.remove_by_labels({"topic": topic, "partition": str(partition)})
