"""What one worker does, and what it could do as far as its busy time tells: a guess, until it was seen saturated."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

clock_step_s = 1e-9  # a shorter duration was not measured
offsets_passed_min = 1000
_periods_min = 3
_alike = 0.03  # periods whose busy shares lie closer together tell nothing apart


@dataclass(slots=True)
class _Second:
    """What was finished in one second."""

    at_s: int
    records: int = 0
    busy_s: float = 0.0
    explained: int = 0
    passed: int = 0


class RateWindow:
    """Records and busy seconds of the last `window_s` seconds, kept per second. Not thread-safe."""

    def __init__(self, *, window_s: int = 60) -> None:
        self._window_s = window_s
        self._seconds: deque[_Second] = deque()
        self._since_s: float | None = None

    def add(
        self, *, now_s: float, records: int = 0, busy_s: float = 0.0, explained: int = 0, passed: int = 0
    ) -> None:
        """Count what is finished now; `passed`: offsets of the log that lie behind the worker now."""
        self._trim(now_s)
        if not self._seconds or self._seconds[-1].at_s != int(now_s):
            self._seconds.append(_Second(at_s=int(now_s)))
        second = self._seconds[-1]
        second.records += records
        second.busy_s += busy_s
        second.explained += explained
        second.passed += passed

    def start(self, *, now_s: float) -> None:
        """Rates count from here on, so that the first minute is not diluted by time before the start."""
        self._since_s = now_s

    def rates(self, *, now_s: float) -> tuple[float, float]:
        """Records per second, and the share of the time that was busy (0 to 1)."""
        self._trim(now_s)
        covered_s = float(self._window_s)
        if self._since_s is not None:
            covered_s = min(covered_s, max(now_s - self._since_s, 1.0))
        records = sum(second.records for second in self._seconds)
        busy_s = sum(second.busy_s for second in self._seconds)
        return records / covered_s, min(busy_s / covered_s, 1.0)

    def explained_ratio(self) -> float:
        """Share of the records that got an explanation; 0 without records."""
        records = sum(second.records for second in self._seconds)
        return min(sum(second.explained for second in self._seconds) / records, 1.0) if records else 0.0

    def records_per_offset(self) -> float:
        """Less than 1 where offsets without a record were passed; 1 before enough were to tell."""
        passed = sum(second.passed for second in self._seconds)
        if passed < offsets_passed_min:
            return 1.0
        return min(max(sum(second.records for second in self._seconds) / passed, 1e-3), 1.0)

    def _trim(self, now_s: float) -> None:
        while self._seconds and self._seconds[0].at_s <= now_s - self._window_s:
            self._seconds.popleft()


class CapacityEstimator:
    """Fits busy seconds = fixed + each * rows over the recent batches and reads it off at the largest batch.

    A worker with little to do computes small batches, whose fixed cost would make its records look dear: rows divided by
    busy time says what it does, the line says what it could do. The newest batches weigh most. Not thread-safe.
    """

    def __init__(self, *, rows_max: int, memory_batches: float = 200.0) -> None:
        self._rows_max = rows_max
        self._keep = 1.0 - 1.0 / memory_batches
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._rows_seen_max = 0.0

    def observe(self, *, rows: int, busy_s: float) -> None:
        """Learn from one finished batch."""
        if rows <= 0 or not busy_s >= clock_step_s:
            return
        keep = self._keep
        self._weight = self._weight * keep + 1.0
        self._x = self._x * keep + rows
        self._y = self._y * keep + busy_s
        self._xx = self._xx * keep + rows * rows
        self._xy = self._xy * keep + rows * busy_s
        self._rows_seen_max = max(self._rows_seen_max * keep, float(rows))

    def records_per_s(self) -> float | None:
        """Records per busy second at the largest batch; None before the first batch.

        Never extrapolates past ten times the largest batch seen lately: there the line is a guess.
        """
        if self._weight == 0.0:
            return None
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x * mean_x
        each_s = mean_y / mean_x
        if spread > 1e-3 * mean_x * mean_x:
            slope_s = (self._xy / self._weight - mean_x * mean_y) / spread
            each_s = min(max(slope_s, 0.0), each_s)  # a fixed cost is never negative
        fixed_s = mean_y - each_s * mean_x
        rows = max(min(float(self._rows_max), 10.0 * self._rows_seen_max), 1.0)
        busy_s = fixed_s + each_s * rows
        return rows / busy_s if busy_s > 0 and math.isfinite(busy_s) else None


class CpuShare:
    """What a CPU limit (`resources.limits.cpu` of a pod) leaves of a capacity that was estimated from busy time.

    A worker with little to do computes its small batches before the kernel's limit stops it, and looks as fast as without one. So
    CPU seconds = idle + each * busy seconds is fitted to the last periods, which tells what a second of nothing but work would take.
    Where they are too much alike to tell the two apart, all counts as work: what that adds is little where there is much of it. Not
    thread-safe.
    """

    def __init__(
        self, *, cores: Callable[[], float | None], period_s: float = 5.0, periods: int = 30
    ) -> None:
        """`cores`: what this worker may use at most, None without a limit; asked for once a period, since a pod may be resized."""
        self._limit = cores
        self._cores: float | None = None
        self._period_s = period_s
        self._shares: deque[tuple[float, float]] = deque(
            maxlen=periods
        )  # busy seconds and CPU seconds a second
        self._before: tuple[float, float, float] | None = None  # when, and both so far

    def observe(self, *, now_s: float, busy_s: float, cpu_s: float) -> None:
        """Busy seconds of the compute side and CPU seconds of the process, both since its start; about once a second."""
        if self._before is None:
            self._before = now_s, busy_s, cpu_s
            return
        passed_s = now_s - self._before[0]
        if passed_s < self._period_s:
            return
        self._shares.append(((busy_s - self._before[1]) / passed_s, (cpu_s - self._before[2]) / passed_s))
        self._before = now_s, busy_s, cpu_s
        self._cores = self._limit()

    def left(self) -> float:
        """The part of the estimate that the limit allows, above 0 to 1; 1 while there is nothing to go by."""
        if self._cores is None or len(self._shares) < _periods_min:
            return 1.0
        busy = [x for x, _ in self._shares]
        cpu = [y for _, y in self._shares]
        mean_busy, mean_cpu = sum(busy) / len(busy), sum(cpu) / len(cpu)
        if mean_busy <= 0.0:
            return 1.0
        spread = sum((x - mean_busy) ** 2 for x in busy)
        idle = 0.0
        if spread > len(busy) * (_alike * mean_busy) ** 2:
            slope = sum((x - mean_busy) * (y - mean_cpu) for x, y in self._shares) / spread
            idle = min(max(mean_cpu - slope * mean_busy, 0.0), min(cpu))
        each = (mean_cpu - idle) / mean_busy
        if idle + each <= self._cores:
            return 1.0
        return max(self._cores - idle, 0.01 * self._cores) / each
