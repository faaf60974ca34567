"""What one turn of the polling loop waits for, and for how long: one pure function of what is under way.

| under way | poll | compute side | broker |
|---|---|---|---|
| nothing | `idle_poll_s` | 0 | 0 |
| much | 0 | `busy_wait_s` where nothing was polled | `busy_wait_s` |
| little, computed faster than the broker answers, exactly once | 0 | until all of it is done | `quick_wait_s`: the open transaction ends before polling goes on |
| the same, at least once, few deliveries on their way | `busy_wait_s` | until all of it is done | 0: only the next record is waited for |
"""

from dataclasses import dataclass
from typing import Protocol

from penstock.schemas.errors import UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineLimits:
    """Bounds of the loop; none of them is reached in a healthy worker."""

    drain_budget_s: float = 10.0
    idle_poll_s: float = 0.1
    busy_wait_s: float = 0.002
    """How long one turn waits for the compute side or the broker when there is work in flight."""
    quick_wait_s: float = 0.01
    """The same at low load, where nothing else is worth doing meanwhile."""
    quick_compute_s: float = 0.002
    """Low load: all that is under way is computed in less."""
    quick_deliveries_max: int = 3
    """At least once: with this many deliveries in flight the loop waits for one, so that records that arrive meanwhile share a batch."""
    stall_before_pause_s: float = 0.25
    """Pausing throws fetched records away, so a shorter stall is sat out."""
    commit_interval_s: float = 0.1
    """At least once: each commit is a write to the broker's log."""
    delivery_records_max: int = 16_384
    """In one delivery; and, but for one batch, finished and waiting for the next."""
    beside_records_min: int = 1024
    """In a transaction that begins while another one is on its way."""
    aborts_in_a_row_max: int = 20
    abort_backoff_first_s: float = 0.05
    abort_backoff_max_s: float = 5.0


class AbortBackoff:
    """How long polling rests after aborted deliveries: longer with each in a row, and at last for good."""

    def __init__(self, limits: PipelineLimits) -> None:
        self._limits = limits
        self._aborts_in_a_row = 0
        self._resume_at_s = 0.0

    def over(self, now_s: float) -> bool:
        """Whether new records may be polled."""
        return now_s >= self._resume_at_s

    def delivered(self) -> None:
        """A delivery was acknowledged."""
        self._aborts_in_a_row = 0

    def aborted(self, now_s: float) -> None:
        """Another one was aborted. Raises UnavailableError when they are too many."""
        self._aborts_in_a_row += 1
        if self._aborts_in_a_row > self._limits.aborts_in_a_row_max:
            raise UnavailableError(f"{self._aborts_in_a_row} deliveries in a row were aborted by the broker")
        wait_s = self._limits.abort_backoff_first_s * 2 ** (self._aborts_in_a_row - 1)
        self._resume_at_s = now_s + min(wait_s, self._limits.abort_backoff_max_s)


@dataclass(
    kw_only=True, slots=True
)  # not frozen, like Pace: several are made in each turn, and it would take three times as long
class UnderWay:
    """What a worker has in hand at one moment."""

    rows: int
    """Polled, being computed, finished or being delivered."""
    finished_rows: int
    """Of these, computed and not submitted to the sink yet."""
    deliveries: int
    expected_s: float
    """What computing `rows` would take, by the cost measured at warm-up."""
    unfinished: int
    """Records that the ledger waits for."""


@dataclass(kw_only=True, slots=True)
class Pace:
    """What the turn does."""

    quick: bool
    """Low load: few rows, computed faster than the broker answers. What was polled is then computed at once, as one batch."""
    poll_wait_s: float
    broker_wait_s: float
    waits_for_compute: bool
    """Waiting for the compute side brings something forward."""
    sends: bool
    """What is finished goes out now, beside the deliveries on their way."""


class CommitPolicy(Protocol):
    """How offsets are committed, and what follows for the pace. Called by the polling thread only."""

    def overlaps(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """Whether another delivery may begin beside those on their way."""

    def computes_beside(self, under_way: UnderWay) -> bool:
        """Whether the compute side is waited for while deliveries are on their way."""

    def awaits_records_only(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """Whether acknowledgements come by themselves, so that only the next record is waited for."""

    def delivered(self, now_s: float, limits: PipelineLimits) -> None:
        """A delivery has succeeded."""

    def is_due(self, now_s: float) -> bool:
        """Whether the source is to commit now."""

    def take_commit(self) -> bool:
        """Whether anything is delivered that the source has not committed; asked for once."""


class CommitInTransaction:
    """Exactly once: the sink commits offsets and results in one transaction; the source never does.

    Two small transactions at once only make each other slow; large ones hide each other's commit.
    """

    def overlaps(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """As CommitPolicy asks."""
        return under_way.finished_rows >= limits.beside_records_min

    def computes_beside(self, under_way: UnderWay) -> bool:
        """As CommitPolicy asks."""
        return not under_way.deliveries

    def awaits_records_only(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """As CommitPolicy asks."""
        return False

    def delivered(self, now_s: float, limits: PipelineLimits) -> None:
        """As CommitPolicy asks."""

    def is_due(self, now_s: float) -> bool:
        """As CommitPolicy asks."""
        return False

    def take_commit(self) -> bool:
        """As CommitPolicy asks."""
        return False


class CommitBySource:
    """At least once: deliveries overlap freely, and the source commits `commit_interval_s` after the first acknowledgement."""

    def __init__(self) -> None:
        self._due_s: float | None = None

    def overlaps(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """As CommitPolicy asks."""
        return True

    def computes_beside(self, under_way: UnderWay) -> bool:
        """As CommitPolicy asks."""
        return True

    def awaits_records_only(self, under_way: UnderWay, limits: PipelineLimits) -> bool:
        """As CommitPolicy asks."""
        return under_way.deliveries < limits.quick_deliveries_max

    def delivered(self, now_s: float, limits: PipelineLimits) -> None:
        """As CommitPolicy asks."""
        if self._due_s is None:
            self._due_s = now_s + limits.commit_interval_s

    def is_due(self, now_s: float) -> bool:
        """As CommitPolicy asks."""
        return self._due_s is not None and now_s >= self._due_s

    def take_commit(self) -> bool:
        """As CommitPolicy asks."""
        due, self._due_s = self._due_s is not None, None
        return due


def pace(under_way: UnderWay, policy: CommitPolicy, limits: PipelineLimits) -> Pace:
    """What this turn waits for; see the table above."""
    quick = under_way.rows < limits.beside_records_min and under_way.expected_s < limits.quick_compute_s
    records_only = policy.awaits_records_only(under_way, limits)
    if under_way.deliveries:
        poll_wait_s = limits.busy_wait_s if quick and records_only else 0.0
    else:
        poll_wait_s = limits.idle_poll_s if not under_way.unfinished else 0.0
    if not quick:
        broker_wait_s = limits.busy_wait_s
    else:
        broker_wait_s = 0.0 if records_only else limits.quick_wait_s
    return Pace(
        quick=quick,
        poll_wait_s=poll_wait_s,
        broker_wait_s=broker_wait_s,
        waits_for_compute=policy.computes_beside(under_way),
        sends=not under_way.deliveries or policy.overlaps(under_way, limits),
    )
