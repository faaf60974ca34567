"""Continuous batching: whole polls are gathered while the compute side is busy, and no longer than the objective allows."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.ledger import Span
from schemas.errors import ConfigError
from schemas.records import Records


class CloseReason(StrEnum):
    """Why a batch was closed; a label of penstock_batches_total."""

    IDLE = "idle"  # nothing was being computed, so waiting would have cost latency for nothing
    FULL = "full"  # the size limit
    DEADLINE = "deadline"  # one more row would have broken the latency objective


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

    @property
    def rows(self) -> int:
        """How many records."""
        return sum(len(poll.records) for poll in self.polls)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every span of every poll, in order of opening."""
        return tuple(span for poll in self.polls for span in poll.spans)


class CostCurve:
    """Seconds that a batch takes, by rows: measured at warm-up, linear between the measured sizes and beyond them."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        """Points (rows, seconds), at least one, rows ascending. Raises ConfigError otherwise."""
        rows = [point[0] for point in points]
        if not points or rows != sorted(set(rows)) or rows[0] < 1:
            raise ConfigError("a cost curve needs measured sizes in ascending order")
        self._rows = rows
        self._seconds = [point[1] for point in points]

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


class Batcher:
    """Holds polls until it is time to compute them.

    Promises: order is kept, no poll is split, never more than `rows_max` rows are held or handed out at once, and a
    record is not held back once its batch would finish past the objective. Half of the objective is the batcher's to
    spend; the rest is for the broker, on the way in and on the way out.
    """

    def __init__(self, *, rows_max: int, latency_slo_s: float, cost: CostCurve) -> None:
        self._rows_max = rows_max
        self._wait_budget_s = latency_slo_s / 2
        self._cost = cost
        self._polls: list[Poll] = []
        self._rows = 0

    @property
    def room(self) -> int:
        """How many records the next poll may bring."""
        return self._rows_max - self._rows

    @property
    def rows(self) -> int:
        """How many records are held."""
        return self._rows

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

    def _reason(self, now_s: float, queued_rows: int) -> CloseReason | None:
        if not self._polls:
            return None
        if queued_rows == 0:
            return CloseReason.IDLE
        if self.room <= 0:
            return CloseReason.FULL
        waited_s = now_s - self._polls[0].polled_at_s
        ahead_s = self._cost.seconds(queued_rows)
        if waited_s + ahead_s + self._cost.seconds(self._rows + 1) >= self._wait_budget_s:
            return CloseReason.DEADLINE
        return None
