"""Whether more workers brought more: twice they did not, and no more are asked for until something is different."""

from dataclasses import dataclass

from penstock.engine.scaling.flow import rate_window_s
from penstock.engine.scaling.snapshot import Snapshot

settled_s = rate_window_s + 15.0
"""So long the same workers must have been behind, before what they finish says what they can do."""
grown_min = 1.25
"""A group that grew by less than this share is not judged: a worker more may hold no more than its share of a hot partition."""
gain_min = 0.1
"""Of the growth: with twice the workers, a tenth more records is the least that counts as an effect."""
misses_max = 2
frozen_s = 600.0
"""So long no more workers are asked for; then one more attempt is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Before:
    workers: int
    records_per_s: float


class Effect:
    """Compares what a group finished before and after it grew, both times while records waited longer than they may. Not thread-safe.

    Where something behind the workers is the limit (a broker, a registry, a quota), each of them finishes less the more there
    are, so that the capacity of one falls and ever more seem to be needed. Promises: a group is judged only by what it finished
    with all of its workers at work, and as soon as nothing is too old everything is forgotten.
    """

    def __init__(self, *, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._workers = 0
        self._since_s: float | None = None  # since when the same workers have been behind
        self._before: _Before | None = None
        self._misses = 0
        self._frozen_since_s: float | None = None
        self._why = ""

    def look(self, snapshot: Snapshot, *, now_s: float) -> str:
        """Why more workers should not be asked for, as a sentence; "" where they may be."""
        workers = max(snapshot.replicas_now - snapshot.starting, 0)
        if snapshot.oldest_age_s <= self._max_age_s or not snapshot.backlog.any():
            self._since_s = self._before = self._frozen_since_s = None
            self._misses = 0
            return ""
        if self._since_s is None or workers != self._workers or not snapshot.quiet:
            self._workers, self._since_s = workers, now_s
        if self._frozen_since_s is not None and now_s - self._frozen_since_s >= frozen_s:
            self._frozen_since_s, self._misses = None, misses_max - 1
        if now_s - self._since_s >= settled_s and workers and snapshot.finished_records_per_s > 0:
            self._judge(_Before(workers=workers, records_per_s=snapshot.finished_records_per_s), now_s)
        return self._why if self._frozen_since_s is not None else ""

    def _judge(self, now: _Before, now_s: float) -> None:
        before = self._before
        if before is None or now.workers <= before.workers:
            self._before = now
            return
        if now.workers < before.workers * grown_min:
            return
        self._before = now
        growth, gain = now.workers / before.workers - 1, now.records_per_s / before.records_per_s - 1
        if gain >= gain_min * growth:
            self._misses, self._frozen_since_s = 0, None
            return
        self._misses += 1
        if self._misses >= misses_max:
            self._frozen_since_s = now_s
            self._why = (
                f"{before.workers} finished {before.records_per_s:.0f} records a second, "
                f"and {now.workers} finish {now.records_per_s:.0f}"
            )
