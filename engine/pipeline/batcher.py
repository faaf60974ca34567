"""Continuous batching: whole polls are gathered while the compute side is busy, and no longer than the objective allows."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import log

from penstock.engine.pipeline.ledger import Span
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Records

_learning_share = 0.1
_surprise_max = 4.0
"""One batch counts as at most this many times slower, or faster, than expected: it may have been a pause of the machine."""
_drift_max = 64.0


class CloseReason(StrEnum):
    """Why a batch was closed; a label of penstock_batches_total."""

    IDLE = "idle"  # nothing was being computed, so waiting would have cost latency for nothing
    FULL = "full"  # the size limit
    COST = "cost"  # one more row would have taken the batch past its share of the latency objective
    DEADLINE = "deadline"  # its oldest record would have waited past its share of the latency objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Poll:
    """What one poll returned, and the spans the ledger opened for it."""

    records: Records
    spans: tuple[Span, ...]
    polled_at_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Polls that are computed together."""

    polls: tuple[Poll, ...]
    generation: int
    reason: CloseReason
    rows: int = field(init=False)
    """How many records: asked for several times a turn, so counted once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", sum(len(poll.records) for poll in self.polls))

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every span of every poll, in order of opening."""
        return tuple(span for poll in self.polls for span in poll.spans)


class CostCurve:
    """Seconds that a batch takes, by rows: measured before the first record, linear between the measured sizes and beyond
    them; each measured size then follows the batches that are about as large."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        """Points (rows, seconds), at least one, rows ascending. Raises ConfigError otherwise."""
        rows = [point[0] for point in points]
        if not points or rows != sorted(set(rows)) or rows[0] < 1:
            raise ConfigError("a cost curve needs measured sizes in ascending order")
        self._rows = rows
        self._measured = tuple(point[1] for point in points)
        self._seconds = list(self._measured)

    def seconds(self, rows: int) -> float:
        """Expected duration of a batch of this many rows."""
        place = bisect_left(self._rows, rows)
        if place == 0:
            return self._seconds[0]
        if place == len(self._rows):  # beyond the last size: at its cost per row
            return self._seconds[-1] * rows / self._rows[-1]
        low, high = self._rows[place - 1], self._rows[place]
        share = (rows - low) / (high - low)
        return self._seconds[place - 1] * (1 - share) + self._seconds[place] * share

    def rows_within(self, seconds: float, *, rows_max: int) -> int:
        """The most rows, 1 to `rows_max`, before the first size that takes longer than this."""
        fits, over = 1, rows_max + 1
        for measured in self._rows:  # the curve may fall between measured sizes: stop at the first one over
            rows = min(measured, rows_max)
            if self.seconds(rows) > seconds:
                over = rows
                break
            fits = max(fits, rows)
        while over - fits > 1:
            middle = (fits + over) // 2
            if self.seconds(middle) <= seconds:
                fits = middle
            else:
                over = middle
        return fits

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of this many rows took so long."""
        expected_s = self.seconds(rows)
        if expected_s <= 0 or seconds <= 0:
            return
        surprise = min(max(seconds / expected_s, 1 / _surprise_max), _surprise_max)
        place = min(range(len(self._rows)), key=lambda each: abs(log(self._rows[each] / rows)))
        moved = self._seconds[place] * (1 + _learning_share * (surprise - 1))
        first = self._measured[place]
        self._seconds[place] = min(max(moved, first / _drift_max), first * _drift_max)


def share_of_objective_s(latency_slo_s: float) -> float:
    """What a record may spend waiting and being computed: half of the objective. The rest is for the broker, on the way in
    and on the way out."""
    return latency_slo_s / 2


def rows_within_objective(cost: CostCurve, latency_slo_s: float, *, rows_max: int) -> int:
    """The most rows of a batch, 1 to `rows_max`: what its share of the objective allows or, where the first row alone takes
    most of that, twice the first row's time, so that no more than half of the work is lost to the fixed cost of a batch."""
    allowed_s = max(share_of_objective_s(latency_slo_s), 2 * cost.seconds(1))
    return cost.rows_within(allowed_s, rows_max=rows_max)


class Batcher:
    """Holds polls until it is time to compute them.

    Promises: order is kept, no poll is split, never more than `rows_max` rows are held or handed out at once nor more than
    the objective allows, and a record is not held back once its batch would finish past the objective.
    """

    def __init__(self, *, rows_max: int, latency_slo_s: float, cost: CostCurve) -> None:
        self._rows_max = rows_max
        self._latency_slo_s = latency_slo_s
        self._cost = cost
        self._limit = rows_within_objective(cost, latency_slo_s, rows_max=rows_max)
        self._polls: list[Poll] = []
        self._rows = 0

    @property
    def room(self) -> int:
        """How many records the next poll may bring."""
        return self._limit - self._rows

    @property
    def rows(self) -> int:
        """How many records are held."""
        return self._rows

    def expected_s(self, rows: int) -> float:
        """What a batch of so many rows takes to compute."""
        return self._cost.seconds(rows)

    def add(self, poll: Poll) -> None:
        """Hold what a poll brought; the caller asked for no more than `room`."""
        self._polls.append(poll)
        self._rows += len(poll.records)

    def clear(self) -> None:
        """Drop everything held."""
        self._polls.clear()
        self._rows = 0

    def take(self, *, now_s: float, queued_rows: int, generation: int) -> Batch | None:
        """Everything held, if it is time; `queued_rows` are with the compute side already."""
        reason = self._reason(now_s, queued_rows)
        if reason is None:
            return None
        batch = Batch(polls=tuple(self._polls), generation=generation, reason=reason)
        self.clear()
        return batch

    def computed(self, batch: Batch, *, took_s: float) -> None:
        """This batch took so long to compute: what the next ones may hold follows."""
        self._cost.learn(batch.rows, took_s)
        self._limit = rows_within_objective(self._cost, self._latency_slo_s, rows_max=self._rows_max)

    def _reason(self, now_s: float, queued_rows: int) -> CloseReason | None:
        if not self._polls:
            return None
        if queued_rows == 0:
            return CloseReason.IDLE
        if self.room <= 0:
            return CloseReason.FULL if self._rows >= self._rows_max else CloseReason.COST
        waited_s = now_s - self._polls[0].polled_at_s
        ahead_s = self._cost.seconds(queued_rows)
        own_s = self._cost.seconds(self._rows + 1)
        if waited_s + ahead_s + own_s >= share_of_objective_s(self._latency_slo_s):
            return CloseReason.DEADLINE
        return None
