"""Arrivals per partition, now and as far ahead as a decision takes to have its effect."""

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

fast_s = 20.0
slow_s = 120.0
surge_memory_s = 6 * 3600.0
surge_every_s = 30.0
surge_percentile = 90.0
surge_samples_min = 120
growth_max = 2.0
trend_s = 600.0


class Arrivals:
    """Rates of growing counts over a fast and a slow window, and what they used to grow by within a horizon. Not thread-safe.

    A count that goes back (a topic made anew) starts its partition afresh and counts for nothing.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, NDArray[np.float64]]] = (
            deque()
        )  # time, records so far per partition
        self._known: dict[int, int] = {}
        self._totals: dict[int, float] = {}
        self._history: deque[tuple[float, float]] = deque()
        self._began_s: float | None = None

    def add(self, ends: Mapping[int, int], *, now_s: float, records_per_offset: float = 1.0) -> None:
        """One reading: the log end of every partition."""
        for partition, end in ends.items():
            grown = max(end - self._known.get(partition, end), 0) * records_per_offset
            self._totals[partition] = self._totals.get(partition, 0.0) + grown
        self._known = dict(ends)
        totals = np.array([self._totals[partition] for partition in sorted(ends)])
        if self._samples and len(self._samples[-1][1]) != len(totals):
            self._samples.clear()  # partitions were added: what is known of the old ones would not fit
        self._began_s = now_s if self._began_s is None else self._began_s
        self._samples.append((now_s, totals))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - slow_s:
            self._samples.popleft()
        if not self._history or now_s - self._history[-1][0] >= surge_every_s:
            self._history.append((now_s, float(self._rates(fast_s).sum())))
            while self._history[0][0] < now_s - surge_memory_s:
                self._history.popleft()

    def watched_s(self, *, now_s: float) -> float:
        """Since the first reading; 0 before there are two."""
        if self._began_s is None or len(self._samples) < 2:
            return 0.0
        return now_s - self._began_s

    def now(self) -> NDArray[np.float64]:
        """Records per second and partition: the slow rate, or the fast one where it is more than chance makes of it."""
        fast, slow = self._rates(fast_s), self._rates(slow_s)
        return np.maximum(slow, fast - 2.0 * np.sqrt(np.maximum(fast, 0.0) / fast_s))

    def ahead(self, horizon_s: float) -> NDArray[np.float64]:
        """The same, `horizon_s` from now: by the larger of the trend and of what the rate used to grow by in so long."""
        now = self.now()
        return now * min(
            max(self._surge(horizon_s, float(now.sum())), self._trend(horizon_s), 1.0), growth_max
        )

    def _rates(self, window_s: float) -> NDArray[np.float64]:
        if len(self._samples) < 2:
            return np.zeros(len(self._samples[-1][1]) if self._samples else 0)
        at_s, last = self._samples[-1]
        older = [sample for sample in self._samples if sample[0] <= at_s - window_s]
        first_s, first = older[-1] if older else self._samples[0]
        return (last - first) / max(at_s - first_s, 1e-3)

    def _surge(self, horizon_s: float, now: float) -> float:
        """How much the rate rose within a horizon, nine times out of ten at the most; never beyond what it rose to."""
        steps = max(round(horizon_s / surge_every_s), 1)
        if len(self._history) < max(surge_samples_min, 20 * steps):  # a single step is no habit
            return 1.0
        rates = np.array([rate for _, rate in self._history])
        greatest = np.lib.stride_tricks.sliding_window_view(rates, steps + 1).max(axis=1)
        base = np.maximum(rates[: len(greatest)], 0.05 * max(float(rates.max()), 1e-9))
        usual = float(np.percentile(greatest, surge_percentile)) / max(now, 1e-9)
        return min(float(np.percentile(greatest / base, surge_percentile)), usual)

    def _trend(self, horizon_s: float) -> float:
        """Growth by the lesser slope of the two halves of the last ten minutes: a step has one, a ramp has both."""
        if len(self._history) < 8:
            return 1.0
        now_s = self._history[-1][0]
        recent = np.array([point for point in self._history if point[0] >= now_s - trend_s])
        if len(recent) < 8 or recent[-1, 1] <= 0:
            return 1.0
        half = len(recent) // 2
        slopes = [_sure_slope(part) for part in (recent[:half], recent[half:])]
        return 1.0 + max(min(slopes), 0.0) * horizon_s / float(recent[-1, 1])


def _sure_slope(points: NDArray[np.float64]) -> float:
    """Of (seconds, rate): the least slope that two standard errors leave."""
    seconds = points[:, 0] - points[:, 0].mean()
    spread = float((seconds**2).sum())
    slope = float((seconds * points[:, 1]).sum()) / spread
    residuals = points[:, 1] - points[:, 1].mean() - slope * seconds
    error = float(np.sqrt((residuals**2).sum() / max(len(points) - 2, 1) / spread))
    return slope - 2.0 * error
