"""Workers' counters over time: what was counted lately, whatever became of the workers that counted it."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Counters = Mapping[str, float]

window_s: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lately:
    """What was counted in the last `span_s` seconds; 0 s before there were two readings."""

    span_s: float
    counted: Counters

    def of(self, name: str) -> float:
        """0 for what was never counted."""
        return self.counted.get(name, 0.0)

    def rate(self, name: str) -> float | None:
        """Per second; None while nothing can be said."""
        return self.of(name) / self.span_s if self.span_s > 0 else None

    def by_label(self, name: str) -> dict[str, float]:
        """Of a counter with one label."""
        return {
            each.split(".", 1)[1]: count
            for each, count in self.counted.items()
            if each.startswith(f"{name}.")
        }


class Counts:
    """Adds up what workers counted. A counter that is lower than before began again with its worker. One thread."""

    def __init__(self, *, kept_s: float = window_s) -> None:
        self._kept_s = kept_s
        self._last: dict[str, Counters] = {}
        self._totals: dict[str, float] = {}
        self._readings: deque[tuple[float, Counters]] = deque()

    def read(self, now_s: float, workers: Mapping[str, Counters]) -> None:
        """The counters of the workers that answered."""
        for worker, counters in workers.items():
            before = self._last.get(worker)
            self._last[worker] = counters
            if before is None:  # what it counted before we looked was not counted lately
                continue
            for name, value in counters.items():
                was = before.get(name, 0.0)
                self._totals[name] = self._totals.get(name, 0.0) + (value - was if value >= was else value)
        if not self._readings or now_s - self._readings[-1][0] >= 0.9:
            self._readings.append((now_s, dict(self._totals)))
        while len(self._readings) > 2 and self._readings[1][0] <= now_s - self._kept_s:
            self._readings.popleft()

    def lately(self, now_s: float, seconds: float) -> Lately:
        """Since the newest reading that is at least so old, or the oldest there is."""
        old_s, old = next(
            ((at_s, counts) for at_s, counts in reversed(self._readings) if at_s <= now_s - seconds + 0.05),
            self._readings[0] if self._readings else (now_s, {}),
        )
        counted = {name: value - old.get(name, 0.0) for name, value in self._totals.items()}
        return Lately(span_s=max(now_s - old_s, 0.0), counted=counted)


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Read off cumulative (bound, count), straight within a bucket; None without any. Past the last finite bound: that bound."""
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    wanted, below, before = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > before:
            if bound == float("inf"):
                return below
            return below + (bound - below) * (wanted - before) / (count - before)
        below, before = (bound, count) if bound != float("inf") else (below, before)
    return below


def ages(lately: Lately) -> list[tuple[float, float]]:
    """The cumulative buckets of the records' ages, in seconds."""
    found = []
    for name, count in lately.counted.items():
        if name.startswith("age.") and name.endswith(".bucket"):
            found.append((float(name[len("age.") : -len(".bucket")]), count))
    return sorted(found)
