"""The arithmetic of the benches: rates between commits, percentiles with what never came, growth of memory."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Each = TypeVar("Each")

Verdict = Literal["within", "beyond", "undecided"]

resamples: Final = 10_000
window_min_s: Final = 0.25  # CPU is counted in hundredths of a second: of less a rate is chance, or 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What was seen at one moment: outputs that a read_committed reader can see, CPU used so far, memory now."""

    at_s: float
    visible: int
    engine_cpu_s: float
    broker_cpu_s: float
    resident_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Rates between two moments at which outputs became visible."""

    records: float
    seconds: float
    engine_cpu_s: float
    broker_cpu_s: float

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds


def shuffled(items: Sequence[Each], seed: int) -> list[Each]:
    """The items in an order that the seed decides."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return order


def middle(samples: Sequence[Sample], *, total: int) -> Window | None:
    """From the first sample with three tenths of `total` (virtual machines are warm by then) to the last with at most nine tenths.

    Both are moments at which something was committed, so that a contestant that commits every five seconds is not judged by
    where its checkpoints happen to fall; with fewer commits than that the end of all is taken. None when there are no two, or
    when they are so close that the CPU used between them cannot be told.
    """
    changed = [sample for before, sample in pairwise(samples) if sample.visible > before.visible]
    begun = [sample for sample in changed if sample.visible >= 0.3 * total]
    if len(begun) < 2:
        return None
    inside = [sample for sample in begun[1:] if sample.visible <= 0.9 * total]
    window = _between(begun[0], inside[-1] if inside else begun[-1])
    return window if window.seconds >= window_min_s else None


def whole(samples: Sequence[Sample]) -> Window | None:
    """From the first sample to the last; None when nothing came between them."""
    return _between(samples[0], samples[-1]) if samples[-1].visible > samples[0].visible else None


def _between(began: Sample, ended: Sample) -> Window:
    return Window(
        records=ended.visible - began.visible,
        seconds=ended.at_s - began.at_s,
        engine_cpu_s=ended.engine_cpu_s - began.engine_cpu_s,
        broker_cpu_s=ended.broker_cpu_s - began.broker_cpu_s,
    )


def growth_mb_per_million(samples: Sequence[Sample], *, total: int) -> float | None:
    """The slope of memory over records by least squares, from a fifth of the records on; None with fewer than ten samples."""
    later = [sample for sample in samples if sample.visible >= 0.2 * total]
    if len(later) < 10 or later[0].visible == later[-1].visible:
        return None
    millions = np.array([sample.visible for sample in later]) / 1e6
    return float(np.polyfit(millions, [sample.resident_mb for sample in later], 1)[0])


def percentile(values: NDArray[np.float64], percent: float, *, missing: int = 0) -> float:
    """The value (nearest rank) that `percent` of all do not exceed, where `missing` further ones are infinite; NaN of none."""
    count = len(values) + missing
    if count == 0:
        return math.nan
    rank = max(math.ceil(round(percent * count / 100, 6)), 1)  # 99.9 % of 1,000 is a hair above 999
    return math.inf if rank > len(values) else float(np.sort(values)[rank - 1])


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs ours is; None where either is not known."""
    return None if not ours or not theirs else ours / theirs


def ratios_told(ratios: Sequence[float], *, seed: int) -> dict[str, float]:
    """Of the ratios of turns: the middle one, the lowest and the highest, the geometric mean, and between what it lies with a
    probability of 95 %. The interval is of the bootstrap: percentiles of the means of turns drawn again (Efron, 1979)."""
    logs, chance = np.log(ratios), np.random.default_rng(seed)
    means = logs[chance.integers(len(logs), size=(resamples, len(logs)))].mean(axis=1)
    low, high = np.exp(np.percentile(means, [2.5, 97.5]))
    numbers = {
        "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "mean": float(np.exp(logs.mean())),
        "low": float(low), "high": float(high),
    }  # fmt: skip
    return {name: round(number, 4) for name, number in numbers.items()}


def verdict(told: Mapping[str, float], *, bar: float) -> Verdict:
    """Whether the ratio is no less than 1 - `bar`: the whole interval lies on one side of it, or nothing is known."""
    if told["low"] >= 1 - bar:
        return "within"
    return "beyond" if told["high"] < 1 - bar else "undecided"
