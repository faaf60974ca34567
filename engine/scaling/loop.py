"""The scaler's loop: observe, plan, hold, publish; a reading that fails leaves the old number to grow stale."""

import logging
import math
import threading
from dataclasses import asdict
from typing import Any

from penstock.engine.clock import Clock
from penstock.engine.scaling.collector import Collector, Observation
from penstock.engine.scaling.keda_service import Published
from penstock.engine.scaling.planner import Bounds, HoldDown, Plan, required
from penstock.engine.telemetry.http_server import Answer, Routes, json_answer, verdict_answer
from penstock.engine.telemetry.metrics import content_type, render
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics, scaling_bounds
from penstock.engine.telemetry.status import Verdict
from penstock.schemas.errors import UnavailableError

logger = logging.getLogger("penstock.scaler")

sample_every_s = 2.0
stale_after_s = 15.0
_turn_age_max_s = 120.0


class ScalerLoop:
    """Runs on one thread; `routes` are answered from others."""

    def __init__(
        self,
        *,
        collector: Collector,
        bounds: Bounds,
        published: Published,
        metrics: ScalerMetrics,
        topic: str,
        clock: Clock,
    ) -> None:
        self._collector = collector
        self._bounds = bounds
        self._published = published
        self._metrics = metrics
        self._topic = topic
        self._clock = clock
        self._held = HoldDown(bounds)
        self._lock = threading.Lock()
        self._last: tuple[Observation, Plan] | None = None
        self._turned_s = clock.monotonic_s()
        self._failing = False

    def run(self, stop: threading.Event) -> None:
        """Turn every `sample_every_s` until `stop` is set."""
        while not stop.is_set():
            self.turn()
            stop.wait(sample_every_s)

    def turn(self) -> None:
        """One reading and one decision."""
        self._turned_s = self._clock.monotonic_s()
        try:
            observation = self._collector.observe()
        except UnavailableError as error:
            self._metrics.reading_failures.inc()
            if not self._failing:
                logger.warning("cannot read the offsets, KEDA will be told to hold: %s", error)
            self._failing = True
            return
        if self._failing:
            logger.info("the offsets can be read again")
        self._failing = False
        demand = observation.demand
        plan = self._held.hold(
            required(demand, self._bounds),
            now_s=self._clock.monotonic_s(),
            replicas_now=demand.replicas_now,
        )
        self._published.publish(plan)
        with self._lock:
            self._last = (observation, plan)
        self._show(observation, plan)

    def routes(self) -> Routes:
        """Metrics, health and the reasons for the number."""
        return {
            "/metrics": self._exposition,
            "/live": lambda: verdict_answer(self._live()),
            "/ready": lambda: verdict_answer(self._ready()),
            "/status": lambda: json_answer(self.status()),
        }

    def status(self) -> dict[str, Any]:
        """The newest decision, whether it can be trusted, and what it was made from."""
        ready = self._ready()
        with self._lock:
            last = self._last
        if last is None:
            return {"trusted": False, "reason": ready.reason}
        observation, plan = last
        return {
            "trusted": ready.ok,
            "reason": ready.reason,
            "age_s": self._published.age_s,
            "plan": asdict(plan),
            "demand": asdict(observation.demand),
            "workers_reporting": observation.workers_reporting,
            "finished_records_per_s": observation.finished_records_per_s,
            "partitions": [asdict(lag) for lag in observation.lags],
        }

    def _live(self) -> Verdict:
        age_s = self._clock.monotonic_s() - self._turned_s
        return Verdict(ok=age_s <= _turn_age_max_s, reason=f"the loop turned {age_s:.0f} s ago")

    def _ready(self) -> Verdict:
        try:
            self._published.current()
        except UnavailableError as error:
            return Verdict(ok=False, reason=str(error))
        return Verdict(ok=True, reason="the offsets are read")

    def _exposition(self) -> Answer:
        if self._last is not None:  # an age without a reading would be no number
            self._metrics.signal_age.set(self._published.age_s)
        self._metrics.stale.set(not self._ready().ok)
        return Answer(body=render(self._metrics.registry), content_type=content_type)

    def _show(self, observation: Observation, plan: Plan) -> None:
        metrics, demand = self._metrics, observation.demand
        metrics.required_replicas.set(plan.replicas)
        metrics.active.set(plan.active)
        metrics.arrival_rate.set(demand.arrival_records_per_s)
        metrics.backlog.set(demand.backlog_records)
        metrics.oldest_age.set(demand.oldest_age_s)
        metrics.capacity.set(demand.capacity_records_per_s or 0.0)
        metrics.rate_term.set(plan.rate_term)
        metrics.drain_term.set(plan.drain_term)
        metrics.partitions.set(demand.partitions)
        metrics.workers_reporting.set(observation.workers_reporting)
        for bound in scaling_bounds:
            metrics.bound.labels(bound=bound).set(bound == plan.bound)
        for lag in observation.lags:
            place = {"topic": self._topic, "partition": str(lag.partition)}
            metrics.group_lag_records.labels(**place).set(lag.lag_records)
            metrics.group_lag_seconds.labels(**place).set(
                math.nan if lag.lag_seconds is None else lag.lag_seconds
            )
