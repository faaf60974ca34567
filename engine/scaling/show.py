"""Every term of a decision as a metric."""

import math

from penstock.engine.scaling.collector import Observation
from penstock.engine.scaling.steadier import Plan
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics, scaling_bounds


def show(metrics: ScalerMetrics, observation: Observation, plan: Plan, *, topic: str, fullest: float) -> None:
    """The gauges are of this observation and this plan now."""
    snapshot, need = observation.snapshot, plan.need
    for gauge, value in (
        (metrics.required_replicas, plan.published),
        (metrics.needed_replicas, need.replicas),
        (metrics.active, plan.active),
        (metrics.arrival_rate, float(snapshot.arrivals_now.sum())),
        (metrics.forecast_rate, float(snapshot.arrivals.sum())),
        (metrics.backlog, float(snapshot.backlog.sum())),
        (metrics.oldest_age, max(observation.waited_s)),
        (metrics.event_age, observation.event_age_s),
        (metrics.capacity, snapshot.capacity_records_per_s or 0.0),
        (metrics.capacity_measured, observation.capacity is not None and observation.capacity.measured),
        (metrics.rate_term, need.rate_term),
        (metrics.packing_term, need.packing_term),
        (metrics.drain_term, need.drain_term),
        (metrics.drain_seconds, need.drain_s),
        (metrics.fullest, fullest),
        (metrics.horizon, snapshot.horizon_s),
        (metrics.startup, snapshot.startup_s),
        (metrics.rebalance, snapshot.rebalance_s),
        (metrics.partitions, snapshot.partitions),
        (metrics.unscalable, len(need.unscalable)),
        (metrics.left_out, len(snapshot.left_out)),
        (metrics.replicas_now, snapshot.replicas_now),
        (metrics.workers_reporting, observation.workers_reporting),
    ):
        gauge.set(value)
    for bound in scaling_bounds:
        metrics.bound.labels(bound=bound).set(bound == plan.bound)
    for lag in observation.lags:
        place = {"topic": topic, "partition": str(lag.partition)}
        metrics.group_lag_records.labels(**place).set(lag.lag_records)
        metrics.group_lag_seconds.labels(**place).set(
            math.nan if lag.lag_seconds is None else lag.lag_seconds
        )
