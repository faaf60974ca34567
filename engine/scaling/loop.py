"""The scaler's loop: observe, plan, hold, publish; a reading that fails leaves the old number to grow stale."""

import logging
import math
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from penstock.engine.clock import Clock
from penstock.engine.pages.scaler_turns import Turn
from penstock.engine.scaling.collector import Collector, NoPartitionsError, Observation
from penstock.engine.scaling.keda_service import Published
from penstock.engine.scaling.planner import Bounds, fullest_share, required
from penstock.engine.scaling.show import show
from penstock.engine.scaling.steadier import Plan, Steadier
from penstock.engine.telemetry.http_server import Answer, Routes, json_answer
from penstock.engine.telemetry.metric_declarations import content_type, render
from penstock.engine.telemetry.port_routes import verdict_answer
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics, scaler_faults
from penstock.engine.telemetry.worker_status import Verdict
from penstock.schemas.errors import InvariantError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.scaler")

sample_every_s = 2.0
idle_look_every_s = 0.1
"""With nothing to do the log's ends alone are looked at so often: the first record is to start a worker within a second."""
stale_after_s = 15.0
blind_max_s = 60.0
"""Without a reading for so long, while the cluster answers others: only a new process helps."""
_turn_age_max_s = 120.0
_heard_age_max_s = 5.0
_decisions_kept = 100
_turns_kept = 900


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
        cluster_age_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`cluster_age_s`: since the cluster last answered another client than the one that reads the offsets."""
        self._collector = collector
        self._bounds = bounds
        self._published = published
        self._metrics = metrics
        self._topic = topic
        self._clock = clock
        self._cluster_age_s = cluster_age_s
        self._steadier = Steadier(bounds)
        self._lock = threading.Lock()
        self._last: tuple[Observation, Plan] | None = None
        self._decisions: deque[dict[str, Any]] = deque(maxlen=_decisions_kept)
        self._turns: deque[Turn] = deque(maxlen=_turns_kept)
        self._named: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._turned_s = self._read_s = self._away_s = clock.monotonic_s()
        self._fault = ""

    def run(self, stop: threading.Event) -> None:
        """Turn every `sample_every_s`, and as soon as something comes while there is nothing to do, until `stop` is set."""
        while not stop.is_set():
            self.turn()
            self._rest(stop)

    def turn(self) -> None:
        """One reading and one decision."""
        self._turned_s = now_s = self._clock.monotonic_s()
        if self._cluster_age_s() > _heard_age_max_s:
            self._away_s = now_s
        try:
            observation = self._collector.observe()
            need = required(observation.snapshot, self._bounds)
        except (UnavailableError, InvariantError) as error:
            self._hold(error)
            return
        if self._fault:
            logger.info(
                "the offsets can be read again, after %.0f s",
                self._clock.monotonic_s() - self._read_s,
                extra=LogCode.SCALER_SEES_AGAIN.extra,
            )
            self._fault = ""
            for fault in scaler_faults:
                self._metrics.fault.labels(reason=fault).set(0)
        self._read_s = self._clock.monotonic_s()
        plan = self._steadier.decide(need, observation.snapshot, now_s=self._read_s)
        self._published.publish(plan)
        self._tell(observation, plan)
        with self._lock:
            self._last = (observation, plan)
            self._turns.append(
                Turn(
                    at_ms=self._clock.wall_ms(),
                    running=observation.snapshot.replicas_now,
                    published=plan.published,
                    arrival_records_per_s=float(observation.snapshot.arrivals_now.sum()),
                    forecast_records_per_s=float(observation.snapshot.arrivals.sum()),
                    horizon_s=observation.snapshot.horizon_s,
                )
            )
        show(
            self._metrics, observation, plan, topic=self._topic,
            fullest=fullest_share(observation.snapshot, plan.replicas, self._bounds),
        )  # fmt: skip

    def routes(self) -> Routes:
        """Metrics, health and the reasons for the number."""
        return {
            "/metrics": self._exposition,
            "/live": lambda: verdict_answer(self._live()),
            "/ready": lambda: verdict_answer(self._ready()),
            "/status": lambda: json_answer(self.status()),
            "/replicas": self._replicas,
        }

    def turns(self) -> tuple[Turn, ...]:
        """Of the last half hour, oldest first."""
        with self._lock:
            return tuple(self._turns)

    def status(self) -> dict[str, Any]:
        """The newest decision, whether it can be trusted, what it was made from, and those before it."""
        ready = self._ready()
        with self._lock:
            last, decisions = self._last, list(self._decisions)
        if last is None:
            return {"trusted": False, "reason": ready.reason, "fault": self._fault}
        observation, plan = last
        snapshot = observation.snapshot
        return {
            "trusted": ready.ok,
            "reason": ready.reason,
            "fault": self._fault,
            "age_s": self._published.age_s,
            "required_replicas": plan.published,
            "plan": asdict(plan),
            "demand": {
                "arrival_records_per_s": float(snapshot.arrivals_now.sum()),
                "forecast_records_per_s": float(snapshot.arrivals.sum()),
                "backlog_records": float(snapshot.backlog.sum()),
                "oldest_age_s": max(observation.waited_s),
                "event_age_s": observation.event_age_s,
                "capacity": asdict(observation.capacity) if observation.capacity else None,
                "startup_s": snapshot.startup_s,
                "rebalance_s": snapshot.rebalance_s,
                "horizon_s": snapshot.horizon_s,
                "partitions": snapshot.partitions,
                "replicas_now": snapshot.replicas_now,
                "left_out": {str(place): why for place, why in snapshot.left_out.items()},
            },
            "workers_reporting": observation.workers_reporting,
            "finished_records_per_s": observation.finished_records_per_s,
            "partitions": [
                asdict(lag) | {"waited_s": waited_s, "arrival_records_per_s": rate}
                for lag, waited_s, rate in zip(
                    observation.lags, observation.waited_s, snapshot.arrivals_now.tolist(), strict=True
                )
            ],
            "decisions": decisions,
        }

    def _replicas(self) -> Answer:
        """For KEDA's metrics-api trigger: the number, or an error where there is none that can be trusted."""
        try:
            plan = self._published.current()
        except UnavailableError:
            return verdict_answer(self._ready())
        return json_answer({"required_replicas": plan.published, "active": plan.active})

    def _rest(self, stop: threading.Event) -> None:
        idle = self._last is not None and not self._last[1].active and not self._fault
        due_s = self._clock.monotonic_s() + sample_every_s
        while not stop.wait(idle_look_every_s if idle else sample_every_s):
            if not idle or self._clock.monotonic_s() >= due_s:
                return
            try:
                if self._collector.grown():
                    return
            except UnavailableError:
                return  # the turn says why, and what follows from it

    def _hold(self, error: UnavailableError | InvariantError) -> None:
        """No number comes of this turn: the one before stays until it is stale. Each new reason is told."""
        self._metrics.reading_failures.inc()
        reason = "broker"
        if isinstance(error, NoPartitionsError):
            reason = "no_partitions"
        elif isinstance(error, InvariantError):
            reason = "not_a_number"
        for fault in scaler_faults:
            self._metrics.fault.labels(reason=fault).set(fault == reason)
        if re.sub(r"\d+", "", str(error)) != re.sub(r"\d+", "", self._fault):
            logger.warning(
                "cannot tell what is needed, KEDA will be told to hold: %s",
                error,
                extra=LogCode.SCALER_HOLDS.extra,
            )
        self._fault = str(error)

    def _tell(self, observation: Observation, plan: Plan) -> None:
        """Each number that differs from the one before, and each partition that is newly left out, has a line."""
        snapshot, before = observation.snapshot, self._last[1] if self._last else None
        if before is None or (before.published, before.active) != (plan.published, plan.active):
            self._metrics.decisions.labels(bound=plan.bound).inc()
            decision = {
                "at_ms": self._clock.wall_ms(), "from": before.published if before else snapshot.replicas_now,
                "to": plan.published, "active": plan.active, "bound": plan.bound, "why": plan.why,
                "arrival_records_per_s": float(snapshot.arrivals_now.sum()),
                "forecast_records_per_s": float(snapshot.arrivals.sum()),
                "backlog_records": float(snapshot.backlog.sum()), "oldest_age_s": snapshot.oldest_age_s,
                "capacity_records_per_s": snapshot.capacity_records_per_s, "replicas_now": snapshot.replicas_now,
            }  # fmt: skip
            with self._lock:
                self._decisions.append(decision)
            logger.info(
                "%d replicas, before %d: %s (%s; %d run)",
                plan.published, decision["from"], plan.why, plan.bound, snapshot.replicas_now,
                extra=LogCode.REPLICAS.extra,
            )  # fmt: skip
        numbers = [lag.partition for lag in observation.lags]
        unscalable = tuple(numbers[place] for place in plan.need.unscalable)
        left_out = tuple(numbers[place] for place in snapshot.left_out)
        if (unscalable, left_out) != self._named:
            for partition in set(unscalable) - set(self._named[0]):
                logger.warning(
                    "partition %d gets more records than one worker can do: more workers do not help, more keys or partitions do",
                    partition,
                    extra=LogCode.PARTITION_TOO_FULL.extra,
                )
            for place, why in snapshot.left_out.items():
                if numbers[place] not in self._named[1]:
                    logger.warning(
                        "partition %d is left out of the number: %s",
                        numbers[place],
                        why,
                        extra=LogCode.PARTITION_LEFT_OUT.extra,
                    )
            self._named = (unscalable, left_out)

    def _live(self) -> Verdict:
        now_s = self._clock.monotonic_s()
        blind_s = now_s - max(self._read_s, self._away_s)
        if self._fault and blind_s > blind_max_s:
            return Verdict(
                ok=False,
                reason=f"the cluster answers, and the offsets cannot be read for {blind_s:.0f} s: {self._fault}",
            )
        age_s = now_s - self._turned_s
        return Verdict(ok=age_s <= _turn_age_max_s, reason=f"the loop turned {age_s:.0f} s ago")

    def _ready(self) -> Verdict:
        try:
            self._published.current()
        except UnavailableError as error:
            return Verdict(ok=False, reason=f"{error}: {self._fault}" if self._fault else str(error))
        return Verdict(ok=True, reason="the offsets are read")

    def _exposition(self) -> Answer:
        if self._last is not None:  # an age without a reading would be no number
            self._metrics.signal_age.set(self._published.age_s)
        self._metrics.stale.set(not self._ready().ok)
        return Answer(body=render(self._metrics.registry), content_type=content_type)
