"""The metrics of the scaler."""

from prometheus_client import CollectorRegistry, ProcessCollector

from penstock.engine.telemetry.metric_declarations import Labels, MetricSet, counter, gauge

scaling_bounds = (
    "rate", "packing", "drain", "idle", "minimum", "maximum", "partitions", "held", "kept", "settling", "unhealthy",
    "ineffective", "capacity_unknown",
)  # fmt: skip
scaler_faults = ("broker", "no_partitions", "not_a_number")
_place: Labels = {"topic": None, "partition": None}


class ScalerMetrics(MetricSet):
    """The metrics of the scaler: the number it publishes, and every term it was made from."""

    required_replicas = gauge(
        "penstock_required_replicas",
        "Workers needed, as published to KEDA; the last good value while stale.",
    )
    needed_replicas = gauge(
        "penstock_scaling_needed_replicas", "Workers that this moment asks for, before anything is held."
    )
    replicas_now = gauge(
        "penstock_scaling_replicas_now", "Workers that have partitions or report, as far as can be told."
    )
    active = gauge("penstock_scaling_active", "1 when there is work for at least one worker.")
    stale = gauge(
        "penstock_scaling_stale",
        "1 when the inputs are too old to decide on; KEDA then gets an error and holds.",
    )
    arrival_rate = gauge(
        "penstock_scaling_arrival_records_per_second",
        "Records that arrive, averaged over the rate window.",
    )
    backlog = gauge(
        "penstock_scaling_backlog_records", "Records that are not finished yet, over all partitions."
    )
    oldest_age = gauge(
        "penstock_scaling_oldest_age_seconds",
        "How long the oldest unfinished record has waited in the log, over all partitions; its own time stamp does not count.",
    )
    event_age = gauge(
        "penstock_scaling_event_age_seconds",
        "Age of the oldest unfinished record by its time stamp, over all partitions.",
    )
    forecast_rate = gauge(
        "penstock_scaling_forecast_records_per_second",
        "Records expected to arrive when a number asked for now has its effect.",
    )
    capacity = gauge(
        "penstock_scaling_capacity_records_per_second",
        "What one worker can do flat out, as the decision used it; 0 while unknown.",
    )
    capacity_measured = gauge(
        "penstock_scaling_capacity_measured",
        "1 when that was seen while workers were saturated, 0 when it is a guess from their busy time.",
    )
    rate_term = gauge(
        "penstock_scaling_rate_term_replicas", "Share of the decision that keeps up with arrivals."
    )
    drain_term = gauge(
        "penstock_scaling_drain_term_replicas", "Share of the decision that works off the backlog."
    )
    packing_term = gauge(
        "penstock_scaling_packing_term_replicas",
        "Least number for which the fullest worker keeps up, as the assignor places the partitions.",
    )
    drain_seconds = gauge("penstock_scaling_drain_seconds", "Time in which the backlog is to be worked off.")
    fullest = gauge(
        "penstock_scaling_fullest_worker_ratio",
        "Load of the fullest worker over its capacity with the published number; 0 while the capacity is unknown.",
    )
    horizon = gauge(
        "penstock_scaling_horizon_seconds",
        "Until a number asked for now has its effect: start, rebalance and the autoscaler's period.",
    )
    startup = gauge(
        "penstock_scaling_startup_seconds", "How long a new worker takes, as the decision used it."
    )
    rebalance = gauge(
        "penstock_scaling_rebalance_seconds",
        "How long partitions stand still when they change hands, as the decision used it.",
    )
    unscalable = gauge(
        "penstock_scaling_unscalable_partitions",
        "Partitions that get more records than one worker can do; the log and /status name them.",
    )
    left_out = gauge(
        "penstock_scaling_left_out_partitions",
        "Partitions that no worker gets on with, left out of the number; the log and /status name them.",
    )
    decisions = counter(
        "penstock_scaling_decisions_total",
        "Changes of the published number, by what decided the new one.",
        {"bound": scaling_bounds},
    )
    fault = gauge(
        "penstock_scaling_fault",
        "1 at why nothing can be told, while the number is held; all 0 while it can.",
        {"reason": scaler_faults},
    )
    bound = gauge(
        "penstock_scaling_bound",
        "1 at what decided the published number, 0 at the others.",
        {"bound": scaling_bounds},
    )
    partitions = gauge(
        "penstock_scaling_partitions",
        "Partitions of the input topic: the most workers that can have work.",
    )
    workers_reporting = gauge("penstock_scaling_workers_reporting", "Workers whose report is fresh.")
    signal_age = gauge("penstock_scaling_signal_age_seconds", "Age of the newest reading of the offsets.")
    group_lag_records = gauge(
        "penstock_group_lag_records", "Records of a partition that the group has not finished yet.", _place
    )
    group_lag_seconds = gauge(
        "penstock_group_lag_seconds",
        "Age of the oldest unfinished record of a partition; 0 when nothing is unfinished.",
        _place,
    )
    reading_failures = counter(
        "penstock_scaling_reading_failures_total", "Readings of the offsets that failed."
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        ProcessCollector(registry=registry)
