"""What one worker finishes while more waits than it can do: its capacity as it is, by kind of work."""

import math
from collections import deque
from dataclasses import dataclass

window_s = 10.0
waiting_s = 1.0
"""Saturated: behind what is in hand, more waits in the log than is finished in so long."""

_sample_s = 0.25
_samples_min = 4  # deliveries in a window: fewer, and where they fall decides the rate
_keep = 0.7  # of what was seen before, at each new window
_pure = 0.05  # a smaller share of a kind of work says nothing of what it costs
_like = 0.15  # mixes that differ by less are one


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    rows: int
    explained: int


class SaturatedRates:
    """Learns what a record costs, with and without an explanation, from the times when the worker never waited for records.

    Promises: nothing finished while the worker waited for records, for its broker or for a schema counts. Not thread-safe.
    """

    def __init__(self, *, window_s: float = window_s) -> None:
        self._window_s = window_s
        self._samples: deque[_Sample] = deque()
        self._rows = self._explained = 0
        self._saturated = False
        self._learnt_s = float("-inf")
        # Normal equations of seconds = plain * (1 - share) + explained * share, the newest windows weighing most.
        self._pp = self._pe = self._ee = self._py = self._ey = 0.0
        self._mix: tuple[float, float] | None = None  # share and rate of the newest window
        self._costs: tuple[float | None, float | None] = (None, None)

    def finished(self, *, now_s: float, rows: int, explained: int) -> None:
        """One batch was delivered."""
        self._rows += rows
        self._explained += explained
        if self._saturated and (not self._samples or now_s - self._samples[-1].at_s >= _sample_s):
            self._samples.append(_Sample(now_s, self._rows, self._explained))

    def look(self, *, now_s: float, waiting: float) -> None:
        """`waiting`: records in the log that are not in hand, of partitions that could go on. About once a second."""
        if waiting < max(self._rate() * waiting_s, 1.0):
            self.interrupt()
            return
        self._saturated = True
        samples = self._samples
        while len(samples) > _samples_min and samples[-1].at_s - samples[1].at_s >= self._window_s:
            samples.popleft()
        if len(samples) < _samples_min or samples[-1].at_s - samples[0].at_s < self._window_s:
            return
        if now_s - self._learnt_s >= self._window_s / 2:
            self._learnt_s = now_s
            self._learn(samples[0], samples[-1])

    def interrupt(self) -> None:
        """The worker waited for something: what it finished since tells nothing."""
        self._saturated = False
        self._samples.clear()

    def costs(self) -> tuple[float | None, float | None]:
        """Seconds per record without and with an explanation; None for a kind of work that was never seen apart."""
        return self._costs

    def records_per_s(self, explained_share: float) -> float | None:
        """What a worker does flat out of which this share is explained; None where no such mix was seen."""
        plain, explained = self._costs
        away = abs(explained_share - self._mix[0]) if self._mix is not None else math.inf
        if self._mix is not None and away <= _pure:
            return self._mix[1]
        if plain is not None and explained is not None:
            return 1.0 / (plain * (1.0 - explained_share) + explained * explained_share)
        return self._mix[1] if self._mix is not None and away <= _like else None

    def _solved(self, share: float) -> tuple[float | None, float | None]:
        """Of the newest windows; None for what they do not tell."""
        if share == 0.0:
            return self._py / self._pp, None
        if share == 1.0:
            return None, self._ey / self._ee
        apart = self._pp * self._ee - self._pe * self._pe
        if apart <= 1e-3 * self._pp * self._ee:
            return None, None
        plain = (self._py * self._ee - self._ey * self._pe) / apart
        explained = (self._ey * self._pp - self._py * self._pe) / apart
        return (plain, explained) if min(plain, explained) > 0 else (None, None)

    def _rate(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        return (last.rows - first.rows) / (last.at_s - first.at_s)

    def _learn(self, first: _Sample, last: _Sample) -> None:
        rows = last.rows - first.rows
        if rows <= 0:
            return
        took_s = (last.at_s - first.at_s) / rows
        share = min(max((last.explained - first.explained) / rows, 0.0), 1.0)
        share = 0.0 if share <= _pure else 1.0 if share >= 1 - _pure else share
        plain = 1.0 - share
        self._pp = self._pp * _keep + plain * plain
        self._pe = self._pe * _keep + plain * share
        self._ee = self._ee * _keep + share * share
        self._py = self._py * _keep + plain * took_s
        self._ey = self._ey * _keep + share * took_s
        self._mix = share, 1.0 / took_s
        solved, known = self._solved(share), self._costs
        self._costs = solved[0] or known[0], solved[1] or known[1]
