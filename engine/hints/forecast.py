"""When the oldest record will be older than it may be: an interval, or nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.engine.hints.rates import rates, series, slope
from penstock.engine.hints.sample import Sample

ahead_max_s: Final = 600.0
short_s: Final = 60.0
long_s: Final = 150.0
"""Both spans have to say so: a burst bends the one, and no longer the other."""
_margin: Final = 0.3
_busy_min: Final = 0.5
_age_slope_min: Final = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Breach:
    """The objective is breached between these times from now; 0, 0: it is."""

    from_s: float
    to_s: float


def oldest_s(sample: Sample) -> float:
    """Age of the oldest unfinished record; NaN when no partition knows."""
    return max((each.age_s for each in sample.partitions if not math.isnan(each.age_s)), default=math.nan)


def forecast(samples: Sequence[Sample], *, max_age_s: float) -> Breach | None:
    """From samples in order of time. None: not within ten minutes, or it cannot be told."""
    if len(samples) < 4:
        return None
    now = samples[-1]
    age_s = oldest_s(now)
    if age_s > max_age_s:
        return Breach(from_s=0.0, to_s=0.0)
    both = [by_age(samples, span_s, max_age_s) for span_s in (short_s, long_s)]
    if age_s < max_age_s / 10 or any(each is None for each in both):
        both = [by_rate(samples, span_s, max_age_s) for span_s in (short_s, long_s)]
    known = [each for each in both if each is not None and each <= ahead_max_s]
    if len(known) < len(both):
        return None
    return Breach(from_s=min(known) * (1 - _margin), to_s=max(known) * (1 + _margin))


def by_age(samples: Sequence[Sample], span_s: float, max_age_s: float) -> float | None:
    """Until the age, which grows as it did, reaches its bound."""
    points = series(samples, oldest_s, since_s=samples[-1].at_s - span_s)
    grows = slope(points)
    if grows < _age_slope_min or not points:
        return None
    return max(max_age_s - points[-1][1], 0.0) / grows


def by_rate(samples: Sequence[Sample], span_s: float, max_age_s: float) -> float | None:
    """Until what arrives, which grows as it did, has been more than the workers can do for so long that the oldest waits too long."""
    recent = [sample for sample in samples if sample.at_s >= samples[-1].at_s - span_s]
    if len(recent) < 6:
        return None
    arrivals = [
        (later.at_s, rates((earlier, later)).arrival_per_s)
        for earlier, later in zip(recent, recent[2:], strict=False)
    ]
    whole = rates(recent)
    settled = sum(each.settled_per_s for each in whole.workers.values())
    busy = sum(each.busy_ratio for each in whole.workers.values()) / max(len(whole.workers), 1)
    if busy < _busy_min or settled <= 0:
        return None
    capacity, grows = settled / busy, slope(arrivals)
    now = sorted(value for _, value in arrivals)[len(arrivals) // 2] + grows * span_s / 2
    if grows <= 0.0005 * now:
        return None
    # grows t^2 / 2 + (now - capacity) t = capacity max_age_s: what has come, less what was done, waits that long.
    excess = now - capacity
    return (-excess + math.sqrt(excess * excess + 2 * grows * capacity * max_age_s)) / grows
