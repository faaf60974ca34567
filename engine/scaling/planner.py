"""The scaling law: how many replicas it takes to keep up, to fit the fullest worker and to work off what has gathered.

A pure function of a snapshot; arithmetic only.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from penstock.engine.scaling.packing import Assignor, assign, fewest
from penstock.engine.scaling.snapshot import Snapshot

Bound = Literal[
    "rate", "packing", "drain", "idle", "minimum", "maximum", "partitions", "held", "kept", "settling", "unhealthy",
    "ineffective", "capacity_unknown",
]  # fmt: skip
"""What decided the number; a label of penstock_scaling_bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The objective, the limits, and what is left free: `utilisation` of all workers together, `fullest` of each one.

    `slack`: a number is only raised when the present one leaves less than this free. `tolerance`: the autoscaler does not
    move for a smaller share. Down, the most that was needed within `hold_s` counts, or within `hold_horizons` of the time that a
    new worker takes where that is longer: what is taken away then comes back late.
    """

    max_age_s: float
    min_replicas: int
    max_replicas: int
    workers_per_replica: int = 1
    assignor: Assignor = "sticky"
    utilisation: float = 0.82
    fullest: float = 0.95
    slack: float = 0.07
    tolerance: float = 0.1
    hold_s: float = 300.0
    hold_horizons: float = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a snapshot asks for, and every term of it, in replicas."""

    replicas: int
    load: int  # of that, for what arrives: without the backlog
    enough: int  # a present number from here on is left alone
    active: bool
    rate_term: float  # to keep up with arrivals
    packing_term: int  # for the fullest worker, as the assignor places the partitions
    drain_term: float  # more, to work off the backlog in time
    drain_s: float  # the time that may take
    bound: Bound
    unscalable: tuple[int, ...] = ()  # partitions faster than one worker


capacity_min_records_per_s = 1e-6
too_fast_share = 1.1
"""Of a worker's capacity: a partition that gets a little more than that may get less in a minute, and is given a worker of its own."""
_capacity_max_records_per_s = 1e12


def required(snapshot: Snapshot, bounds: Bounds) -> Need:
    """The number for this moment, within the bounds.

    rate: arrivals over the horizon / (utilisation * capacity). packing: the least number for which no worker has more than
    `fullest` of its capacity. drain: (arrivals + backlog left at the horizon / drain_s) / capacity, where drain_s is what the
    objective leaves after the age reached already and the horizon, never less than a quarter of the objective nor than the
    horizon: more haste would come after it is needed.
    """
    horizon_s, age_s = snapshot.horizon_s, snapshot.oldest_age_s
    drain_s = max(bounds.max_age_s - age_s - horizon_s, bounds.max_age_s / 4, horizon_s)
    keep = np.ones(snapshot.partitions, dtype=bool)
    keep[[place for place in snapshot.left_out if place < snapshot.partitions]] = False
    backlog = float(snapshot.backlog.sum())
    active = backlog > 0 or bool((snapshot.arrivals > 0).any())
    if not active or not snapshot.partitions:
        return _plain(bounds.min_replicas, "minimum" if bounds.min_replicas else "idle", drain_s, active)
    capacity = snapshot.capacity_records_per_s or 0.0
    if capacity < capacity_min_records_per_s:
        kept, decided = _bounded(max(snapshot.replicas_now, 1), "capacity_unknown", snapshot, bounds)
        return _plain(kept, decided, drain_s, active)
    capacity = min(capacity, _capacity_max_records_per_s)
    # A partition faster than one worker is no reason for more workers: it is named, counts as one worker's whole load, and
    # where it comes to lie is not chased.
    too_fast = keep & (snapshot.arrivals_now > too_fast_share * capacity)
    loads = np.where(keep, np.minimum(snapshot.arrivals, bounds.fullest * capacity), 0.0)
    # One worker that has a little too much falls behind slowly, and is seen to: what arrives now decides who fits with whom.
    packed = np.where(keep & ~too_fast, np.minimum(snapshot.arrivals_now, bounds.fullest * capacity), 0.0)
    waiting = float(snapshot.backlog[keep & ~too_fast].sum())
    arriving = float(loads.sum())
    useful, ceiling = _useful(snapshot, bounds), bounds.max_replicas
    rate_term = _replicas(arriving / (bounds.utilisation * capacity), bounds)
    fit = _fit(packed, snapshot, bounds, capacity * bounds.fullest, rate_term)
    load = max(math.ceil(min(rate_term, ceiling + 1)), fit)
    drain_term = 0.0
    at_work = min(snapshot.replicas_now * bounds.workers_per_replica, snapshot.partitions) * capacity
    left = waiting + (arriving - at_work) * horizon_s
    if waiting > arriving * bounds.max_age_s / 10 and left > 0:
        drain_term = max(_replicas((arriving + left / drain_s) / capacity, bounds) - rate_term, 0.0)
    wanted = max(load, math.ceil(min(rate_term + drain_term, ceiling + 1)) if drain_term else 1, 1)
    enough_rate = _replicas(arriving / ((bounds.utilisation + bounds.slack) * capacity), bounds)
    enough = max(
        math.ceil(min(enough_rate, ceiling + 1)),
        _fit(packed, snapshot, bounds, capacity * min(bounds.fullest + bounds.slack, 1.0), enough_rate),
        wanted if wanted > load else 1,
    )
    bound: Bound = (
        "drain" if wanted > load else "packing" if fit > math.ceil(min(rate_term, ceiling + 1)) else "rate"
    )
    replicas, bound = _bounded(wanted, bound, snapshot, bounds)
    return Need(
        replicas=replicas,
        load=min(
            max(load, 1, bounds.min_replicas),
            max(useful, bounds.min_replicas),
            max(ceiling, bounds.min_replicas),
        ),
        enough=min(enough, replicas),
        active=active,
        rate_term=rate_term,
        packing_term=fit,
        drain_term=drain_term,
        drain_s=drain_s,
        bound=bound,
        unscalable=tuple(np.flatnonzero(too_fast).tolist()),
    )


def fullest_share(snapshot: Snapshot, replicas: int, bounds: Bounds) -> float:
    """Load of the fullest worker over its capacity, with so many replicas; 0 while the capacity is unknown."""
    members = min(replicas * bounds.workers_per_replica, snapshot.partitions)
    if not members or not snapshot.capacity_records_per_s:
        return 0.0
    placed = assign(snapshot.owners, members, bounds.assignor)
    loads = np.bincount(placed, weights=snapshot.arrivals, minlength=members)
    return float(loads.max()) / snapshot.capacity_records_per_s


def _fit(
    loads: "np.typing.NDArray[np.float64]",
    snapshot: Snapshot,
    bounds: Bounds,
    capacity: float,
    rate_term: float,
) -> int:
    """Replicas; one more than there may be where none of the allowed numbers will do, all that help where none does."""
    per, useful = bounds.workers_per_replica, _useful(snapshot, bounds)
    most = min(useful, max(bounds.max_replicas, 1))
    least = max(math.ceil(min(rate_term * bounds.utilisation, most)), 1)
    found = fewest(
        loads, snapshot.owners, bounds.assignor, capacity=capacity, least=least * per, most=most * per, step=per
    )  # fmt: skip
    return min(most + 1, useful) if found is None else found // per


def _replicas(workers: float, bounds: Bounds) -> float:
    return workers / bounds.workers_per_replica


def _useful(snapshot: Snapshot, bounds: Bounds) -> int:
    return max(math.ceil(snapshot.partitions / bounds.workers_per_replica), 1)


def _plain(replicas: int, bound: Bound, drain_s: float, active: bool) -> Need:
    return Need(
        replicas=replicas, load=replicas, enough=replicas, active=active, rate_term=0.0, packing_term=0, drain_term=0.0,
        drain_s=drain_s, bound=bound,
    )  # fmt: skip


def _bounded(wanted: int, decided: Bound, snapshot: Snapshot, bounds: Bounds) -> tuple[int, Bound]:
    """More replicas than partitions would find nothing to do; the user's minimum holds all the same."""
    useful = _useful(snapshot, bounds)
    if wanted > min(useful, bounds.max_replicas):
        if useful < bounds.max_replicas:
            wanted, decided = useful, "partitions"
        else:
            wanted, decided = bounds.max_replicas, "maximum"
    if wanted < bounds.min_replicas:
        wanted, decided = bounds.min_replicas, "minimum"
    return wanted, decided
