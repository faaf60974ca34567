"""How long what waits has waited in the log: by the broker's stamp where it set one, else since we saw the log grow to it."""

from bisect import bisect_right
from collections.abc import Sequence

from penstock.engine.scaling.lag import OffsetReading, PartitionLag

points_max = 512


class SeenLog:
    """When each partition's end was seen where. Not thread-safe.

    A producer's stamp says when something happened, which may be an hour before it was written: it is no waiting time.
    """

    def __init__(self) -> None:
        self._ends: dict[int, list[int]] = {}
        self._times: dict[int, list[float]] = {}

    def add(self, lags: Sequence[PartitionLag], *, now_s: float) -> None:
        """One reading of every partition."""
        for lag in lags:
            ends, times = self._ends.setdefault(lag.partition, []), self._times.setdefault(lag.partition, [])
            if ends and lag.end < ends[-1]:  # a topic made anew
                ends.clear()
                times.clear()
            if ends and ends[-1] == lag.end:
                times[-1] = now_s  # nothing came since: what comes next was not there yet now
                continue
            ends.append(lag.end)
            times.append(now_s)
            done = bisect_right(ends, lag.position) - 1
            if done > 0:
                del ends[:done], times[:done]
            if len(ends) > points_max:
                del ends[1:-1:2], times[1:-1:2]

    def waited_s(self, lag: PartitionLag, reading: OffsetReading, *, now_s: float, now_ms: int) -> float:
        """Of the oldest record that waits; 0 where none does. At the start what is there already counts from then on, unless
        the broker stamped it."""
        if not lag.lag_records:
            return 0.0
        ends, times = self._ends[lag.partition], self._times[lag.partition]
        place = bisect_right(ends, lag.position) - 1
        if place >= 0:
            return max(now_s - times[place], 0.0)
        stamp_ms = reading.oldest_unfinished_timestamp_ms
        if reading.stamped_by_broker and stamp_ms is not None and stamp_ms >= 0:
            return max((now_ms - stamp_ms) / 1000, now_s - times[0], 0.0)
        return max(now_s - times[0], 0.0)
