"""What the law needs to know, gathered from the broker's offsets and the workers' own reports."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penstock.engine.clock import Clock
from penstock.engine.scaling.flow import Flow, Stalls
from penstock.engine.scaling.forecast import Arrivals
from penstock.engine.scaling.lag import Movement, OffsetReading, PartitionLag, Start, measure
from penstock.engine.scaling.planner import too_fast_share
from penstock.engine.scaling.reports import Capacity, ReportBook
from penstock.engine.scaling.snapshot import Snapshot
from penstock.engine.scaling.waiting import SeenLog
from penstock.schemas.errors import InvariantError, UnavailableError

startup_unknown_s = 30.0
rebalance_unknown_s = 3.0
autoscaler_period_s = 15.0
"""Defaults for what nobody has measured yet, and how often the autoscaler looks."""

quiet_pauses = 3.0


class NoPartitionsError(UnavailableError):
    """The topic is there and has no partitions: nothing can be told from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """The snapshot, and what it was made from."""

    snapshot: Snapshot
    lags: tuple[PartitionLag, ...]
    waited_s: tuple[float, ...]  # in the log, per partition
    event_age_s: float  # of the oldest record that waits, by its producer's stamp
    capacity: Capacity | None
    workers_reporting: int
    finished_records_per_s: float


class Collector:
    """Reads offsets and reports when asked to, and makes a snapshot of them. One thread."""

    def __init__(
        self,
        *,
        read_offsets: Callable[[], Sequence[OffsetReading]],
        read_reports: Callable[[], Iterable[bytes | None]],
        book: ReportBook,
        start: Start,
        workers_per_replica: int,
        clock: Clock,
        topic: str = "",
        read_ends: Callable[[], Mapping[int, int]] = dict,
    ) -> None:
        """`read_offsets` may raise UnavailableError; `read_reports` gives what came since it was last called. `read_ends`: where
        each partition ends, for less than a whole reading costs; may raise as `read_offsets`."""
        self._read_offsets = read_offsets
        self._read_ends = read_ends
        self._ends: dict[int, int] = {}  # as they were read last
        self._read_reports = read_reports
        self._book = book
        self._start = start
        self._workers_per_replica = workers_per_replica
        self._clock = clock
        self._topic = topic
        self._flow = Flow()
        self._arrivals = Arrivals()
        self._seen = SeenLog()
        self._seen_capacity: Capacity | None = None
        self._stalls = Stalls()
        self._owners: dict[int, str | None] = {}
        self._owners_since_s = -math.inf

    def observe(self) -> Observation:
        """The group at this moment. Raises UnavailableError when the broker does not answer, or the topic has no partitions."""
        readings = sorted(self._read_offsets(), key=lambda reading: reading.partition)
        if not readings:
            raise NoPartitionsError(f"topic {self._topic} has no partitions")
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        for value in self._read_reports():
            self._book.read(value, now_ms=now_ms)
        lags = [
            _finished_further(lag, self._book.positions(self._topic, now_ms=now_ms).get(lag.partition))
            for lag in measure(readings, now_ms=now_ms, start=self._start)
        ]
        self._ends = {lag.partition: lag.end for lag in lags}
        self._seen.add(lags, now_s=now_s)
        waited_s = tuple(
            self._seen.waited_s(lag, reading, now_s=now_s, now_ms=now_ms)
            for lag, reading in zip(lags, readings, strict=True)
        )
        density = self._book.records_per_offset(now_ms=now_ms)
        self._flow.add(lags, now_s=now_s)
        self._arrivals.add(self._ends, now_s=now_s, records_per_offset=density)
        capacity = self._capacity(density, now_ms=now_ms)
        fresh = self._book.fresh(now_ms=now_ms)
        busy = self._flow.busy(
            lags, capacity_offsets_per_s=capacity.records_per_s / density if capacity else None
        )
        stands_still = self._stalls.look(lags, busy, now_s=now_s)
        left_out = {
            index: stands_still[lag.partition]
            for index, lag in enumerate(lags)
            if lag.partition in stands_still
        }
        snapshot = self._snapshot(
            lags, capacity, density=density, left_out=left_out, now_s=now_s, now_ms=now_ms,
            oldest_age_s=self._oldest_s(waited_s, capacity, left_out), reporting=len(fresh), starting=sum(r.state == "starting" for r in fresh),
        )  # fmt: skip
        return Observation(
            snapshot=snapshot,
            lags=tuple(lags),
            waited_s=waited_s,
            event_age_s=max((lag.lag_seconds or 0.0 for lag in lags), default=0.0),
            capacity=capacity,
            workers_reporting=len(fresh),
            finished_records_per_s=snapshot.finished_records_per_s,
        )

    def grown(self) -> bool:
        """Whether any partition has more than when it was last observed. Raises UnavailableError."""
        return any(end > self._ends.get(partition, end) for partition, end in self._read_ends().items())

    def _snapshot(
        self, lags: Sequence[PartitionLag], capacity: Capacity | None, *, density: float, left_out: dict[int, str],
        now_s: float, now_ms: int, oldest_age_s: float, reporting: int, starting: int,
    ) -> Snapshot:  # fmt: skip
        names = sorted({lag.owner for lag in lags if lag.owner is not None}, key=_by_number)
        place = {name: index for index, name in enumerate(names)}
        startup_s = self._book.startup_s(now_ms=now_ms) or startup_unknown_s
        rebalance_s = self._book.rebalance_s(now_ms=now_ms) or rebalance_unknown_s
        horizon_s = startup_s + rebalance_s + autoscaler_period_s
        if not math.isfinite(horizon_s):
            raise InvariantError(f"a horizon of {horizon_s} s cannot be planned for")
        owners = {lag.partition: lag.owner for lag in lags}
        if owners != self._owners:
            self._owners_since_s = now_s if self._owners else -math.inf
            self._owners = owners
        return Snapshot(
            arrivals=self._arrivals.ahead(horizon_s),
            arrivals_now=self._arrivals.now(),
            backlog=np.array([lag.lag_records * density for lag in lags]),
            owners=np.array([-1 if lag.owner is None else place[lag.owner] for lag in lags], dtype=np.int64),
            oldest_age_s=oldest_age_s,
            capacity_records_per_s=capacity.records_per_s if capacity else None,
            startup_s=startup_s,
            rebalance_s=rebalance_s,
            horizon_s=horizon_s,
            # Workers of one host may share a name.
            replicas_now=math.ceil(max(len(names), reporting) / self._workers_per_replica),
            starting=starting,
            watched_s=self._arrivals.watched_s(now_s=now_s),
            left_out=left_out,
            quiet=now_s - self._owners_since_s >= quiet_pauses * rebalance_s,
            finished_records_per_s=self._flow.rates()[1] * density,
        )

    def _oldest_s(
        self, waited_s: Sequence[float], capacity: Capacity | None, left_out: Iterable[int]
    ) -> float:
        """Of the partitions that more workers can help: one too fast for any, or that stands still, stays old and asks for nothing."""
        helped = np.ones(len(waited_s), dtype=bool)
        helped[list(left_out)] = False
        if capacity is not None:
            helped &= self._arrivals.now() <= too_fast_share * capacity.records_per_s
        return float(np.max(np.array(waited_s), where=helped, initial=0.0))

    def _capacity(self, density: float, *, now_ms: int) -> Capacity | None:
        """What the workers saw, else what the offsets showed while they were saturated, else what they guess."""
        told = self._book.capacity(now_ms=now_ms)
        digest = told.model_digest if told is not None else ""
        seen = self._flow.saturated_capacity()
        if seen is not None:
            self._seen_capacity = Capacity(
                records_per_s=seen * density, measured=True, model_digest=digest,
                explained_ratio=told.explained_ratio if told is not None else 0.0,
            )  # fmt: skip
        if self._seen_capacity is not None and self._seen_capacity.model_digest not in ("", digest):
            self._seen_capacity = None  # another model
        if told is not None and (told.measured or self._seen_capacity is None):
            return told
        return self._seen_capacity


def _finished_further(lag: PartitionLag, reported: int | None) -> PartitionLag:
    """With what a worker has finished and says so, where its commit comes later."""
    if reported is None or lag.committed is None or not lag.committed < reported <= lag.end:
        return lag
    if lag.movement in (Movement.UNREADABLE, Movement.OUT_OF_RANGE) or lag.lag_records == 0:
        return lag
    return replace(lag, committed=reported, lag_records=min(lag.end - reported, lag.lag_records))


def _by_number(name: str) -> tuple[object, ...]:
    """So that worker-10 comes behind worker-9: the autoscaler takes the last away first."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
