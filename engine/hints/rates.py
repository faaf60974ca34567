"""Rates and costs between samples, and slopes that a burst does not bend."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from penstock.engine.hints.sample import Sample, WorkerSample

known_share_min: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRates:
    """One worker over a span of time; costs in seconds per record, NaN where it settled nothing."""

    settled_per_s: float
    rejected_ratio: float
    busy_ratio: float
    infer_s: float
    explain_s: float
    other_s: float
    deliver_s: float  # per delivery
    ahead_per_s: float = 0.0  # records stamped far ahead of our clock
    ahead_s: float = math.nan  # each of those

    @property
    def cost_s(self) -> float:
        """All that a record takes of the compute side."""
        return self.infer_s + self.explain_s + self.other_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """An engine over a span of time."""

    seconds: float
    workers: Mapping[str, WorkerRates]
    arrivals: Mapping[int, float]
    """Records per second, by partition."""
    rebalances: float

    @property
    def arrival_per_s(self) -> float:
        """Over all partitions."""
        return sum(self.arrivals.values())


def rates(samples: Sequence[Sample]) -> Rates:
    """What happened over these samples, in order of time. Each worker and each partition counts from the first sample that knows it
    to the last one: an engine that starts does not know all at once. What was not known for half of the time is left out."""
    last = samples[-1]
    seconds = max(last.at_s - samples[0].at_s, 1e-9)
    since_s = last.at_s - seconds * known_share_min
    workers: dict[str, tuple[float, WorkerSample]] = {}
    ends: dict[int, tuple[float, float]] = {}
    for sample in samples:
        if sample.at_s > since_s:
            break
        for worker in sample.workers:
            if (
                worker.name not in workers or worker.settled < workers[worker.name][1].settled
            ):  # it began anew
                workers[worker.name] = (sample.at_s, worker)
        if len(ends) < len(last.partitions):
            for each in sample.partitions:
                if each.partition not in ends and not math.isnan(each.end):
                    ends[each.partition] = (sample.at_s, each.end)
    pairs = [(*workers[new.name], new) for new in last.workers if new.name in workers]
    pairs = [(at_s, old, new) for at_s, old, new in pairs if new.settled >= old.settled]
    return Rates(
        seconds=seconds,
        workers={new.name: _worker(old, new, last.at_s - at_s) for at_s, old, new in pairs},
        arrivals={
            each.partition: max(each.end - ends[each.partition][1], 0.0)
            / (last.at_s - ends[each.partition][0])
            for each in last.partitions
            if each.partition in ends and not math.isnan(each.end)
        },
        rebalances=max((new.rebalances - old.rebalances for _, old, new in pairs), default=0.0),
    )


def _worker(old: WorkerSample, new: WorkerSample, passed_s: float) -> WorkerRates:
    settled = new.settled - old.settled
    busy_s, infer_s, explain_s = (
        new.busy_s - old.busy_s,
        new.infer_s - old.infer_s,
        new.explain_s - old.explain_s,
    )
    deliveries = new.deliveries - old.deliveries

    def each(seconds: float, count: float) -> float:
        return seconds / count if count > 0 else math.nan

    return WorkerRates(
        settled_per_s=settled / passed_s,
        rejected_ratio=each(new.rejected - old.rejected, settled),
        busy_ratio=busy_s / passed_s,
        infer_s=each(infer_s, settled),
        explain_s=each(explain_s, settled),
        other_s=each(max(busy_s - infer_s - explain_s, 0.0), settled),
        deliver_s=each(new.deliver_s - old.deliver_s, deliveries),
        ahead_per_s=(new.ahead - old.ahead) / passed_s,
        ahead_s=each(new.ahead_s - old.ahead_s, new.ahead - old.ahead),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between pairs: up to a quarter of the points may be anything. 0 for fewer than four points."""
    if len(points) < 4:
        return 0.0
    step = max(len(points) // 24, 1)  # 24 points are 276 pairs
    kept = points[::-step]
    slopes = [(y - v) / (x - u) for at, (x, y) in enumerate(kept) for u, v in kept[at + 1 :] if x != u]
    return median(slopes) if slopes else 0.0


def series(
    samples: Sequence[Sample], value: Callable[[Sample], float], *, since_s: float
) -> list[tuple[float, float]]:
    """Time and value of the samples since then, without what is not known."""
    found = [(sample.at_s, value(sample)) for sample in samples if sample.at_s >= since_s]
    return [(at_s, each) for at_s, each in found if not math.isnan(each)]


def middle(values: Sequence[float]) -> float:
    """The median of what is known; NaN when nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan
