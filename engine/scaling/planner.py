"""The scaling law: how many replicas it takes to keep up and to work off what has gathered; arithmetic only."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from penstock.schemas.errors import InvariantError

Bound = Literal["rate", "drain", "idle", "minimum", "maximum", "partitions", "held", "capacity_unknown"]
"""What decided the number; a label of penstock_scaling_bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What is asked of the group at one moment. Every number is finite and not negative."""

    arrival_records_per_s: float
    backlog_records: int
    oldest_age_s: float
    capacity_records_per_s: float | None  # of one worker; None when nobody has measured it yet
    startup_s: float  # how long a new worker takes until it helps
    partitions: int
    replicas_now: int  # replicas that own partitions

    def __post_init__(self) -> None:
        numbers = (
            self.arrival_records_per_s, self.backlog_records, self.oldest_age_s, self.capacity_records_per_s or 0.0,
            self.startup_s, self.partitions, self.replicas_now,
        )  # fmt: skip
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise InvariantError(f"a demand that is no number cannot be planned for: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The objective and the limits; `utilisation` leaves room for noise, `hold_s` is how long a need is remembered."""

    max_age_s: float
    min_replicas: int
    max_replicas: int
    workers_per_replica: int = 1
    utilisation: float = 0.8
    hold_s: float = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The number, and every term of it."""

    replicas: int
    active: bool
    rate_term: float  # replicas to keep up with arrivals
    drain_term: float  # replicas more, to work off the backlog in time
    drain_s: float  # the time it may take
    bound: Bound


capacity_min_records_per_s = 1e-6
_capacity_max_records_per_s = 1e12


def required(demand: Demand, bounds: Bounds) -> Plan:
    """ceil(rate / (utilisation * capacity) + backlog / (drain_s * capacity)), within the bounds.

    `drain_s` is what the objective leaves after the age reached already and a new worker's start, and never less than a
    quarter of it: past the objective, more haste only buys idle replicas. Grows with the rate, the backlog and the age.
    """
    drain_s = max(bounds.max_age_s - demand.oldest_age_s - demand.startup_s, bounds.max_age_s / 4)
    active = demand.backlog_records > 0 or demand.arrival_records_per_s > 0
    if not active:
        replicas = bounds.min_replicas
        bound: Bound = "minimum" if replicas else "idle"
        return Plan(
            replicas=replicas, active=False, rate_term=0.0, drain_term=0.0, drain_s=drain_s, bound=bound
        )
    capacity = demand.capacity_records_per_s or 0.0
    if capacity < capacity_min_records_per_s:
        replicas, bound = _bounded(max(demand.replicas_now, 1), "capacity_unknown", demand, bounds)
        return Plan(
            replicas=replicas, active=True, rate_term=0.0, drain_term=0.0, drain_s=drain_s, bound=bound
        )
    capacity = min(capacity, _capacity_max_records_per_s) * bounds.workers_per_replica
    rate_term = demand.arrival_records_per_s / (bounds.utilisation * capacity)
    drain_term = demand.backlog_records / (drain_s * capacity)
    ceiling = max(bounds.max_replicas, bounds.min_replicas) + 1
    wanted = math.ceil(
        min(rate_term + drain_term, ceiling)
    )  # bounded first: a ceiling of 1e300 is no integer to keep
    decided: Bound = "drain" if wanted > math.ceil(min(rate_term, ceiling)) else "rate"
    replicas, bound = _bounded(max(wanted, 1), decided, demand, bounds)
    return Plan(
        replicas=replicas,
        active=True,
        rate_term=rate_term,
        drain_term=drain_term,
        drain_s=drain_s,
        bound=bound,
    )


def _bounded(wanted: int, decided: Bound, demand: Demand, bounds: Bounds) -> tuple[int, Bound]:
    """More replicas than partitions would find nothing to do; the user's minimum holds all the same."""
    useful = max(math.ceil(demand.partitions / bounds.workers_per_replica), 1)
    if wanted > min(useful, bounds.max_replicas):
        if useful < bounds.max_replicas:
            wanted, decided = useful, "partitions"
        else:
            wanted, decided = bounds.max_replicas, "maximum"
    if wanted < bounds.min_replicas:
        wanted, decided = bounds.min_replicas, "minimum"
    return wanted, decided


class HoldDown:
    """Publishes the most that was needed within the last `hold_s`: up at once, down late.

    Promises: never below the plan, never above the greatest plan in the window. The replicas found at the start count
    as needed then, so that a scaler that was restarted does not shrink what it does not know yet. Not thread-safe.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._needs: deque[tuple[float, int]] = deque()  # (time, replicas), replicas falling
        self._begun = False

    def hold(self, plan: Plan, *, now_s: float, replicas_now: int) -> Plan:
        """The plan to publish. Scaling to zero is not held: KEDA's own cool-down does that."""
        if not plan.active:
            self._needs.clear()
            self._begun = True
            return plan
        if not self._begun:
            self._begun = True
            self._note(now_s, min(replicas_now, max(self._bounds.max_replicas, plan.replicas)))
        while self._needs and self._needs[0][0] <= now_s - self._bounds.hold_s:
            self._needs.popleft()
        self._note(now_s, plan.replicas)
        held = self._needs[0][1]
        if held <= plan.replicas:
            return plan
        return Plan(
            replicas=held,
            active=plan.active,
            rate_term=plan.rate_term,
            drain_term=plan.drain_term,
            drain_s=plan.drain_s,
            bound="held",
        )

    def _note(self, now_s: float, replicas: int) -> None:
        while self._needs and self._needs[-1][1] <= replicas:
            self._needs.pop()
        self._needs.append((now_s, replicas))
