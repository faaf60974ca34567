"""The metrics of the scaler."""

from prometheus_client import CollectorRegistry, ProcessCollector

from penstock.engine.telemetry.metric_declarations import Labels, MetricSet, counter, gauge

scaling_bounds = ("rate", "drain", "idle", "minimum", "maximum", "partitions", "held", "capacity_unknown")
_place: Labels = {"topic": None, "partition": None}


class ScalerMetrics(MetricSet):
    """The metrics of the scaler: the number it publishes, and every term it was made from."""

    required_replicas = gauge(
        "penstock_required_replicas",
        "Workers needed, as published to KEDA; the last good value while stale.",
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
        "penstock_scaling_oldest_age_seconds", "Age of the oldest unfinished record, over all partitions."
    )
    capacity = gauge(
        "penstock_scaling_capacity_records_per_second",
        "What one worker can do flat out, as the decision used it; 0 while unknown.",
    )
    rate_term = gauge(
        "penstock_scaling_rate_term_replicas", "Share of the decision that keeps up with arrivals."
    )
    drain_term = gauge(
        "penstock_scaling_drain_term_replicas", "Share of the decision that works off the backlog."
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
