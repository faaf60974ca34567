"""What one worker knows of itself: is it alive, is it ready, what has it done; written by its threads, read by others."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.engine.clock import Clock
from penstock.engine.telemetry.balance import Balance
from penstock.engine.telemetry.capacity import CapacityEstimator, CpuShare, RateWindow
from penstock.engine.telemetry.events import Happened
from penstock.engine.telemetry.pauses import PauseLog
from penstock.engine.telemetry.saturation import SaturatedRates
from penstock.engine.telemetry.worker_status import (
    KafkaStatus,
    ModelIdentity,
    Position,
    Verdict,
    Wait,
    WorkerState,
    WorkerStatus,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LivenessLimits:
    """When a worker counts as hung: only killing it helps then."""

    beat_age_max_s: float = 30.0  # the polling loop turns every 0.1 s, also while it drains
    progress_age_max_s: float = (
        300.0  # work in flight, and the compute side neither finished nor retried anything
    )
    kafka_away_max_s: float = 10.0  # after so long without an answer the worker is not ready


@dataclass(slots=True)
class _Facts:
    state: WorkerState = WorkerState.STARTING
    model: ModelIdentity | None = None
    verified: bool = False
    beat_s: float | None = None
    progress_s: float = 0.0
    in_flight: int = 0
    joined: bool = False
    assigned: tuple[int, ...] = ()
    offsets: dict[int, int] = field(default_factory=dict)
    oldest_ms: dict[int, int] = field(default_factory=dict)
    startup_s: float = 0.0
    records: int = 0
    explained: int = 0
    unexplained: dict[str, int] = field(default_factory=dict)
    kafka: KafkaStatus | None = None
    waits_for: tuple[Wait, ...] = ()
    computing_since_s: float | None = None
    batch_bound_s: float = math.inf
    balance: Balance | None = None


class StatusBoard:
    """Thread-safe. The polling thread writes it, the HTTP server and the reporter read it; no call waits for anything.

    Life: `starting` → `verified()` → `warming` → `joining` → `membership(True)` or the first `rebalanced()` → `running` →
    `draining` → `stopped`; a worker that the group has put out is `joining` again.
    """

    def __init__(
        self,
        *,
        worker: str,
        group: str,
        topic: str,
        clock: Clock,
        rows_max: int,
        started_s: float | None = None,
        limits: LivenessLimits | None = None,
        events: Callable[[], tuple[Happened, ...]] = tuple,
        cores_max: Callable[[], float | None] = lambda: None,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`started_s`: the process's start on the monotonic clock, now when None; `rows_max`: the largest batch. `cores_max`: the
        kernel lets this process use no more now, None without a limit; `cpu_s`: what it has used so far.
        """
        self._worker = worker
        self._group = group
        self._topic = topic
        self._clock = clock
        self._limits = limits or LivenessLimits()
        self._events = events
        self._started_s = clock.monotonic_s() if started_s is None else started_s
        self._lock = threading.Lock()
        self._facts = _Facts()
        self._window = RateWindow()
        self._estimate = CapacityEstimator(rows_max=rows_max)
        self._saturated = SaturatedRates()
        self._cpu_share = CpuShare(cores=cores_max)
        self._cpu_s = cpu_s
        self._busy_s = 0.0
        self._pauses = PauseLog()

    @property
    def state(self) -> WorkerState:
        """Where the worker is in its life."""
        with self._lock:
            return self._facts.state

    def set_state(self, state: WorkerState) -> None:
        """The worker goes on to this state."""
        with self._lock:
            self._facts.state = state

    def verified(self, model: ModelIdentity) -> None:
        """The model is loaded, its golden batch and the topics agree with the settings."""
        with self._lock:
            self._facts.model = model
            self._facts.verified = True

    def beat(self, *, in_flight_batches: int) -> None:
        """The polling loop turned once more."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            facts = self._facts
            facts.beat_s = now_s
            if facts.in_flight == 0:
                facts.progress_s = (
                    now_s  # an idle worker is not a stalled one; the clock runs from the first batch
                )
            facts.in_flight = in_flight_batches

    def progressed(self) -> None:
        """The compute side finished a batch, or tried one again because something remote does not answer. Any thread."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._facts.progress_s = now_s

    def rebalanced(self, assigned: Iterable[int]) -> None:
        """The group gave us exactly these partitions (perhaps none: there are more workers than partitions)."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            facts = self._facts
            facts.assigned = tuple(sorted(assigned))
            self._pauses.assigned(bool(facts.assigned), now_s=now_s)
            self._saturated.interrupt()
            facts.offsets = {p: o for p, o in facts.offsets.items() if p in facts.assigned}
            facts.oldest_ms = {p: t for p, t in facts.oldest_ms.items() if p in facts.assigned}
            if assigned_now := facts.assigned:
                self._join(now_s)
            facts.waits_for = tuple(
                wait for wait in facts.waits_for if wait.partition is None or wait.partition in assigned_now
            )

    def membership(self, member: bool) -> None:
        """Whether the group counts us among its members, partitions or not."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            if member:
                self._join(now_s)
            elif self._facts.state is WorkerState.RUNNING and not self._facts.assigned:
                self._facts.state = WorkerState.JOINING

    def batch_bound(self, bound_s: float) -> None:
        """A batch that is computed for longer ends this process."""
        with self._lock:
            self._facts.batch_bound_s = bound_s

    def computing(self, under_way: bool) -> None:
        """Records were taken in hand, or are done with. Compute thread."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._facts.computing_since_s = now_s if under_way else None

    def kafka(self, status: KafkaStatus) -> None:
        """Whether the cluster answers."""
        with self._lock:
            self._facts.kafka = status

    def waits_for(self, waits: Iterable[Wait]) -> None:
        """Exactly this is waited for."""
        with self._lock:
            self._facts.waits_for = tuple(waits)

    def _join(self, now_s: float) -> None:
        facts = self._facts
        facts.joined = True
        if facts.state is WorkerState.JOINING:
            facts.state = WorkerState.RUNNING
            if not facts.startup_s:
                facts.startup_s = now_s - self._started_s
                self._window.start(now_s=now_s)

    def finished(
        self, *, rows: int, busy_s: float, explained: int = 0, unexplained: Mapping[str, int] | None = None
    ) -> None:
        """One batch was delivered; `unexplained` counts its predicted records without an explanation, by why."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._facts.records += rows
            self._facts.explained += explained
            for reason, count in (unexplained or {}).items():
                self._facts.unexplained[reason] = self._facts.unexplained.get(reason, 0) + count
            self._facts.progress_s = now_s
            self._busy_s += busy_s
            self._window.add(now_s=now_s, records=rows, busy_s=busy_s, explained=explained)
            self._estimate.observe(rows=rows, busy_s=busy_s)
            self._saturated.finished(now_s=now_s, rows=rows, explained=explained)

    def waiting(self, records: float) -> None:
        """So many records wait in the log, behind those in hand, of partitions that can go on. About once a second."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._saturated.look(now_s=now_s, waiting=records)

    def interrupted(self) -> None:
        """Work was dropped, to be done again: what is finished in this time is not what the worker can do."""
        with self._lock:
            self._saturated.interrupt()

    def positions(self, *, offsets: Mapping[int, int], oldest_ms: Mapping[int, int]) -> None:
        """Next offset to commit per partition, and the timestamp of its oldest unfinished record (-1: none)."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            known = self._facts.offsets
            passed = sum(
                max(offset - known[partition], 0)
                for partition, offset in offsets.items()
                if partition in known
            )
            self._window.add(now_s=now_s, passed=passed)
            self._cpu_share.observe(now_s=now_s, busy_s=self._busy_s, cpu_s=self._cpu_s())
            self._facts.offsets.update(offsets)
            self._facts.oldest_ms = dict(oldest_ms)

    def balance(self, balance: Balance) -> None:
        """Every record that was read, at one moment of the polling thread."""
        with self._lock:
            self._facts.balance = balance

    def live(self) -> Verdict:
        """Whether killing the process would not help: the loop turns, and work in flight moves."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            facts = self._facts
            if facts.beat_s is None:
                return Verdict(ok=True, reason=f"{facts.state}: the polling loop has not begun")
            if facts.state is WorkerState.STOPPED:
                return Verdict(ok=True, reason="stopped")
            silent_s = now_s - facts.beat_s
            if silent_s > self._limits.beat_age_max_s:
                return Verdict(ok=False, reason=f"the polling loop has not turned for {silent_s:.0f} s")
            stuck_s = now_s - facts.progress_s
            away = facts.kafka is not None and not facts.kafka.reachable  # a restart would not bring it back
            if facts.in_flight and not away and stuck_s > self._limits.progress_age_max_s:
                return Verdict(
                    ok=False,
                    reason=f"{facts.in_flight} batches in flight and no progress for {stuck_s:.0f} s",
                )
            return Verdict(ok=True, reason=str(facts.state))

    def ready(self) -> Verdict:
        """Whether records flow through: verified, warmed, a member of the group, not on its way out."""
        with self._lock:
            facts = self._facts
            if not facts.verified:
                return Verdict(ok=False, reason=f"{facts.state}: not verified yet")
            if facts.state is not WorkerState.RUNNING or not facts.joined:
                return Verdict(ok=False, reason=self._why_not_running())
            kafka = facts.kafka
            if kafka is not None and kafka.answer_age_s > self._limits.kafka_away_max_s:
                return Verdict(
                    ok=False,
                    reason=f"Kafka at {kafka.address} has not answered for {kafka.answer_age_s:.0f} s: {kafka.fault}",
                )
            if facts.computing_since_s is not None:
                held_s = self._clock.monotonic_s() - facts.computing_since_s
                if held_s > facts.batch_bound_s / 2:
                    return Verdict(ok=False, reason=f"one batch has been computed for {held_s:.0f} s")
            waiting = {wait.partition: wait for wait in facts.waits_for}
            if facts.assigned and all(partition in waiting for partition in facts.assigned):
                return Verdict(ok=False, reason=f"every partition waits: {waiting[facts.assigned[0]].reason}")
            if not facts.assigned:
                return Verdict(
                    ok=True, reason="running as a spare: the group has no partition for this worker"
                )
            return Verdict(ok=True, reason=f"running on {len(facts.assigned)} partitions")

    def _estimated(self) -> float:
        """Records a second by busy time, as far as the CPU limit lets it; 0 before the first batch."""
        return (self._estimate.records_per_s() or 0.0) * self._cpu_share.left()

    def _why_not_running(self) -> str:
        whole = [wait.reason for wait in self._facts.waits_for if wait.partition is None]
        return f"{self._facts.state}: {whole[0]}" if whole else str(self._facts.state)

    def status(self) -> WorkerStatus:
        """Everything, at this moment."""
        now_s, at_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        with self._lock:
            facts = self._facts
            rate, busy_ratio = self._window.rates(now_s=now_s)
            share = self._window.explained_ratio()
            measured = self._saturated.records_per_s(share)
            plain_s, explained_s = self._saturated.costs()
            return WorkerStatus(
                worker=self._worker,
                group=self._group,
                topic=self._topic,
                at_ms=at_ms,
                state=facts.state,
                model=facts.model,
                startup_s=facts.startup_s,
                capacity_records_per_s=max(self._estimated() if measured is None else measured, rate),
                capacity_measured=measured is not None,
                predict_records_per_s=1.0 / plain_s if plain_s else 0.0,
                explain_records_per_s=1.0 / explained_s if explained_s else 0.0,
                explained_ratio=share,
                records_per_offset=self._window.records_per_offset(),
                rebalance_s=self._pauses.longest_s,
                finished_records_per_s=rate,
                busy_ratio=busy_ratio,
                in_flight_batches=facts.in_flight,
                records=facts.records,
                explained=facts.explained,
                unexplained=dict(facts.unexplained),
                assigned=facts.assigned,
                positions=tuple(
                    Position(
                        partition=partition,
                        offset=facts.offsets[partition],
                        oldest_timestamp_ms=facts.oldest_ms.get(partition, -1),
                    )
                    for partition in facts.assigned
                    if partition in facts.offsets
                ),
                kafka=facts.kafka,
                waits_for=facts.waits_for,
                events=self._events(),
                balance=facts.balance,
            )
