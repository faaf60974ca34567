"""From what is needed at this moment to the number that is published: up at once, down late, and never for nothing."""

from collections import deque
from dataclasses import dataclass

from penstock.engine.scaling.flow import rate_window_s
from penstock.engine.scaling.planner import Bound, Bounds, Need
from penstock.engine.scaling.snapshot import Snapshot

settling_s = 30.0
"""So long after its start a scaler knows too little of what arrives to ask for fewer."""
shrink_share = 0.15
shrink_replicas = 2
"""A group shrinks by so much, whichever is less, and by more than the autoscaler's tolerance: within that it would stay where it is."""
drain_hold_horizons = 2.0
age_seen_s = 5.0  # two readings: a younger age cannot be told from none
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
class Plan:
    """The number, how it came about in a sentence, and what it stands on."""

    replicas: int  # needed
    published: int  # told to KEDA: past the autoscaler's tolerance
    active: bool
    bound: Bound
    why: str
    need: Need


class Steadier:
    """Remembers what was needed, and decides whether a change is worth its price. Not thread-safe.

    Promises: never fewer than needed now; the replicas found at the start count as needed then, so that a scaler that was
    restarted does not shrink what it does not know yet; nothing is taken away while a partition stands still, records are old,
    a worker is starting or the group is rebalancing; no more are asked for where twice more of them brought nothing.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._loads: deque[tuple[float, int]] = deque()  # (time, replicas), falling
        self._drains: deque[tuple[float, int]] = deque()
        self._now: int | None = None  # what was published last
        self._effect = Effect(max_age_s=bounds.max_age_s)

    def decide(self, need: Need, snapshot: Snapshot, *, now_s: float) -> Plan:
        """The plan to publish for this need. Scaling to zero is not held: KEDA's own cool-down does that."""
        bounds, most = self._bounds, max(self._bounds.max_replicas, self._bounds.min_replicas)
        first = self._now is None
        ineffective = self._effect.look(snapshot, now_s=now_s)
        if self._now is None:
            self._now = min(snapshot.replicas_now, most)
            _note(self._loads, now_s, self._now)
        if not need.active:
            if snapshot.watched_s < settling_s and snapshot.replicas_now:
                kept = min(max(snapshot.replicas_now, need.replicas), most)
                return self._plan(need, kept, "settling", snapshot, active=True)
            self._loads.clear()
            self._drains.clear()
            return self._plan(need, need.replicas, need.bound, snapshot, active=False)
        _forget(self._loads, now_s - max(bounds.hold_s, bounds.hold_horizons * snapshot.horizon_s))
        _forget(self._drains, now_s - drain_hold_horizons * snapshot.horizon_s)
        _note(self._loads, now_s, need.load)
        _note(self._drains, now_s, need.replicas)
        held = max(self._loads[0][1], self._drains[0][1])
        if ineffective:
            # What was asked for and is not there yet is not waited for; what was judged is left alone, also while a worker of it
            # is away for a moment.
            there = max(min(self._now, self._effect.judged_replicas), bounds.min_replicas, 1)
            if need.replicas > there:
                return self._plan(need, there, "ineffective", snapshot, because=ineffective)
        if need.replicas > self._now:
            if need.enough <= self._now and not first:
                return self._plan(need, self._now, "kept", snapshot)
            return self._plan(need, need.replicas, need.bound, snapshot)
        if held >= self._now:
            bound = need.bound if need.replicas == self._now else "settling" if first else "held"
            return self._plan(need, self._now, bound, snapshot)
        unhealthy = self._unhealthy(snapshot)
        if unhealthy:
            return self._plan(need, self._now, "unhealthy", snapshot, because=unhealthy)
        worth = self._now - held >= min(shrink_replicas, max(shrink_share * self._now, 1.0))
        if not worth or held * (1 + 1e-9) >= (1 - bounds.tolerance) * self._now:
            return self._plan(need, self._now, "kept", snapshot)
        return self._plan(need, held, need.bound if held == need.replicas else "held", snapshot)

    def _unhealthy(self, snapshot: Snapshot) -> str:
        """Why this is no time to take workers away; "" when it is."""
        if snapshot.left_out:
            place, why = next(iter(sorted(snapshot.left_out.items())))
            return f"partition {place} stands still: {why}"
        if snapshot.oldest_age_s > max(0.3 * self._bounds.max_age_s, age_seen_s):
            return f"records have waited for {snapshot.oldest_age_s:.0f} s"
        if snapshot.starting:
            return f"{snapshot.starting} workers are starting"
        if not snapshot.quiet:
            return "the partitions have just changed hands"
        return ""

    def _plan(
        self,
        need: Need,
        replicas: int,
        bound: Bound,
        snapshot: Snapshot,
        *,
        active: bool | None = None,
        because: str = "",
    ) -> Plan:
        self._now = replicas
        active = need.active if active is None else active
        return Plan(
            replicas=replicas,
            published=past_tolerance(replicas, snapshot.replicas_now, self._bounds),
            active=active,
            bound=bound,
            why=_sentence(need, bound, snapshot, because),
            need=need,
        )


def past_tolerance(replicas: int, running: int, bounds: Bounds) -> int:
    """What to publish so that the autoscaler moves: within its tolerance it would stay where it is, one short for ever.

    May be more than max_replicas: only then does it go from one below there, and it keeps to its own maximum.
    """
    if running < replicas <= running * (1.0 + bounds.tolerance):
        return max(replicas, int(running * (1.0 + bounds.tolerance) + 1e-9) + 1)
    return replicas


@dataclass(frozen=True, kw_only=True, slots=True)
class _Before:
    replicas: int
    records_per_s: float


class Effect:
    """Compares what a group finished before and after it grew, both times while records waited longer than they may. Not thread-safe.

    Where something behind the workers is the limit (a broker, a registry, a quota), each of them finishes less the more there
    are, so that the capacity of one falls and ever more seem to be needed. Promises: a group is judged only by what it finished
    with all of its workers at work, and as soon as nothing is too old everything is forgotten.
    """

    def __init__(self, *, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._replicas = 0
        self._since_s: float | None = None  # since when the same workers have been behind
        self._before: _Before | None = None
        self._misses = 0
        self._frozen_since_s: float | None = None
        self._why = ""
        self.judged_replicas = 0
        """That were at work when growth was last said to bring nothing."""

    def look(self, snapshot: Snapshot, *, now_s: float) -> str:
        """Why more workers should not be asked for, as a sentence; "" where they may be."""
        replicas = snapshot.replicas_now
        if snapshot.oldest_age_s <= self._max_age_s or not snapshot.backlog.any():
            self._since_s = self._before = self._frozen_since_s = None
            self._misses = 0
            return ""
        if self._since_s is None or replicas != self._replicas or snapshot.starting or not snapshot.quiet:
            self._replicas, self._since_s = replicas, now_s
        if self._frozen_since_s is not None and now_s - self._frozen_since_s >= frozen_s:
            self._frozen_since_s, self._misses = None, misses_max - 1
        if now_s - self._since_s >= settled_s and replicas and snapshot.finished_records_per_s > 0:
            self._judge(_Before(replicas=replicas, records_per_s=snapshot.finished_records_per_s), now_s)
        return self._why if self._frozen_since_s is not None else ""

    def _judge(self, now: _Before, now_s: float) -> None:
        before = self._before
        if before is None or now.replicas <= before.replicas:
            self._before = now
            return
        if now.replicas < before.replicas * grown_min:
            return
        self._before = now
        growth, gain = now.replicas / before.replicas - 1, now.records_per_s / before.records_per_s - 1
        if gain >= gain_min * growth:
            self._misses, self._frozen_since_s = 0, None
            return
        self._misses += 1
        if self._misses >= misses_max:
            self._frozen_since_s, self.judged_replicas = now_s, now.replicas
            self._why = (
                f"{before.replicas} finished {before.records_per_s:.0f} records a second, "
                f"and {now.replicas} finish {now.records_per_s:.0f}"
            )


_sentences: dict[Bound, str] = {
    "rate": "for {rate:.1f} records a second",
    "packing": "so that the fullest worker keeps up with its partitions",
    "drain": "to work off {backlog:,.0f} records in {drain_s:.0f} s",
    "idle": "nothing to do",
    "minimum": "scaling.min_replicas",
    "maximum": "scaling.max_replicas; more are needed",
    "partitions": "there are no more partitions to share out",
    "held": "needed within the hold time",
    "kept": "a change would cost more than it brings",
    "settling": "too early to tell what arrives",
    "unhealthy": "no time to take workers away",
    "ineffective": "more workers did not finish more, so the limit lies behind them",
    "capacity_unknown": "nobody knows yet what a worker can do",
}


def _sentence(need: Need, bound: Bound, snapshot: Snapshot, because: str) -> str:
    text = _sentences[bound].format(
        rate=float(snapshot.arrivals.sum()), backlog=float(snapshot.backlog.sum()), drain_s=need.drain_s
    )
    if because:
        text += f": {because}"
    if need.unscalable:
        text += f"; faster than one worker, whatever their number: partition {', '.join(map(str, need.unscalable[:10]))}"
    return text


def _note(needs: deque[tuple[float, int]], now_s: float, replicas: int) -> None:
    while needs and needs[-1][1] <= replicas:
        needs.pop()
    needs.append((now_s, replicas))


def _forget(needs: deque[tuple[float, int]], before_s: float) -> None:
    while needs and needs[0][0] <= before_s:
        needs.popleft()
