"""Rates over a window from offsets that only ever grow, what workers finish while more waits than they can do, and which partitions stand still."""

import itertools
import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penstock.engine.scaling.lag import Movement, PartitionLag

rate_window_s = 30.0
steady_share = 0.5
saturated_backlog_s = 5.0  # this much work waiting, all through the window: the workers do all they can
stall_s = 120.0
busy_share = 0.5
"""Of a worker's capacity: who finishes that much of other partitions has not come to this one yet. Batches of a slow model that were fetched
before may take minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    at_s: float
    arrived: int
    finished: int
    backlog: int
    owners: int


class Flow:
    """Rates over a window, from samples of offsets that only ever grow. Not thread-safe.

    An offset that goes back (a topic made anew, a group that was reset) starts its partition afresh and counts for nothing.
    """

    def __init__(self, *, window_s: float = rate_window_s) -> None:
        self._window_s = window_s
        self._samples: deque[_Sample] = deque()
        self._ends: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._progress = Progress(window_s=window_s)

    def add(self, lags: Sequence[PartitionLag], *, now_s: float) -> None:
        """One reading of every partition."""
        last = self._samples[-1] if self._samples else None
        self._progress.add(lags, now_s=now_s)
        arrived = _growth(self._ends, {lag.partition: lag.end for lag in lags})
        finished = _growth(
            self._committed, {lag.partition: lag.committed for lag in lags if lag.committed is not None}
        )
        self._samples.append(
            _Sample(
                at_s=now_s,
                arrived=(last.arrived if last else 0) + arrived,
                finished=(last.finished if last else 0) + finished,
                # What a partition that stands still holds says nothing of what its worker could do.
                backlog=sum(lag.lag_records for lag in lags if self._progress.moves(lag.partition)),
                owners=len({lag.owner for lag in lags if lag.owner is not None}),
            )
        )
        while len(self._samples) > 2 and self._samples[1].at_s <= now_s - self._window_s:
            self._samples.popleft()

    def rates(self) -> tuple[float, float]:
        """Records arrived and finished per second; 0 before there are two samples."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        covered_s = max(last.at_s - first.at_s, 1e-3)
        return (last.arrived - first.arrived) / covered_s, (last.finished - first.finished) / covered_s

    def busy(self, lags: Sequence[PartitionLag], *, capacity_offsets_per_s: float | None) -> set[str | None]:
        """Workers that do about what they can, of the partitions that they have now; nobody while that is not known."""
        if capacity_offsets_per_s is None:
            return set()
        finished: dict[str | None, float] = {}
        for lag in lags:
            if lag.owner is not None:
                finished[lag.owner] = finished.get(lag.owner, 0.0) + self._progress.pace(lag.partition)
        return {owner for owner, pace in finished.items() if pace >= busy_share * capacity_offsets_per_s}

    def saturated_capacity(self) -> float | None:
        """Finished records per second and owner, when all through a whole window more waited than they could do.

        A worker that keeps up finishes what arrives, which says nothing of what it could do: then None.
        """
        if not self._samples or self._samples[-1].at_s - self._samples[0].at_s < self._window_s:
            return None
        _, finished = self.rates()
        owners = {sample.owners for sample in self._samples}
        waited = min(sample.backlog for sample in self._samples)
        if finished <= 0 or len(owners) != 1 or 0 in owners or waited < saturated_backlog_s * finished:
            return None
        if self._slowest_part() < steady_share * finished:
            return None
        return finished / owners.pop()

    def _slowest_part(self) -> float:
        """Least rate of a third of the window: a group that stood still for a while was not saturated, it was stopped."""
        marks = [self._samples[round(part * (len(self._samples) - 1) / 3)] for part in range(4)]
        return min(
            (late.finished - early.finished) / max(late.at_s - early.at_s, 1e-3)
            for early, late in itertools.pairwise(marks)
        )


class Stalls:
    """Partitions that no worker gets on with. Not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, float]] = {}  # position, and since when

    def look(
        self, lags: Sequence[PartitionLag], busy: Collection[str | None], *, now_s: float
    ) -> dict[int, str]:
        """Those that stand still while others move, or cannot be read at all, and why. One whose worker has its hands full with
        others may wait its turn, which is work for more workers: so many times as long as partitions wait."""
        found: dict[int, str] = {}
        stalled: dict[int, str] = {}
        moves = False
        turns = Counter(lag.owner for lag in lags if lag.lag_records and lag.owner in busy)
        for lag in lags:
            position, since_s = self._known.get(lag.partition, (-1, now_s))
            now_at = lag.position
            if position != now_at or not lag.lag_records or lag.owner is None:
                self._known[lag.partition] = (now_at, now_s)
                moves = moves or (position != now_at and position >= 0)
                continue
            if now_s - since_s >= stall_s * max(turns[lag.owner], 1):
                stalled[lag.partition] = f"no record was finished for {now_s - since_s:.0f} s"
            if lag.movement in (Movement.UNREADABLE, Movement.OUT_OF_RANGE):
                found[lag.partition] = lag.note
        if moves or len(stalled) < sum(lag.lag_records > 0 for lag in lags):
            found = stalled | found
        return found


class Progress:
    """How each partition gets on. Not thread-safe."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._at_s = -math.inf
        self._known: dict[int, _Place] = {}

    def add(self, lags: Sequence[PartitionLag], *, now_s: float) -> None:
        """One reading of every partition; what goes back counts for nothing."""
        passed_s, self._at_s = now_s - self._at_s, now_s
        if passed_s <= 0:
            return
        share = -math.expm1(-passed_s / self._window_s)
        before, self._known = self._known, {}
        for lag in lags:
            was = before.get(lag.partition, _Place(position=lag.position))
            newest = max(lag.position - was.position, 0) / passed_s
            self._known[lag.partition] = _Place(
                position=lag.position,
                moved_s=now_s if lag.position != was.position else was.moved_s,
                pace=was.pace + share * (newest - was.pace),
            )

    def moves(self, partition: int) -> bool:
        """Whether its position changed within the window."""
        place = self._known.get(partition)
        return place is not None and self._at_s - place.moved_s <= self._window_s

    def pace(self, partition: int) -> float:
        """Offsets finished a second, over about a window."""
        place = self._known.get(partition)
        return 0.0 if place is None else place.pace


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    position: int
    moved_s: float = -math.inf  # since when it stands there
    pace: float = 0.0


def _growth(known: dict[int, int], now: dict[int, int]) -> int:
    """How much the offsets grew since last time; remembers the new ones."""
    grown = sum(max(offset - known[partition], 0) for partition, offset in now.items() if partition in known)
    known.clear()
    known.update(now)
    return grown
