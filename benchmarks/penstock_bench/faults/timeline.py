"""Simulated time: it moves when someone waits, and what was to happen meanwhile happens in its turn."""

import heapq
from collections.abc import Callable


class Timeline:
    """A clock (penstock.engine.clock.Clock by shape) with things that are due later."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.asleep_until_s = 0.0  # so long nobody looks at anything; in the past while somebody is awake
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0

    def monotonic_s(self) -> float:
        """Each look takes a microsecond, so that a loop that only looks comes to its deadline."""
        self.now_s += 1e-6
        return self.now_s

    def wall_ms(self) -> int:
        """Milliseconds of the same clock."""
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        """Move on. What is due until then happens at its own moment, in order."""
        until_s = self.now_s + max(duration_s, 1e-6)
        due = self._due
        self.asleep_until_s = until_s
        while due and due[0][0] <= until_s:
            at_s, _, happens = heapq.heappop(due)
            self.now_s = max(self.now_s, at_s)
            happens()
        self.now_s = max(self.now_s, until_s)

    def later(self, delay_s: float, happens: Callable[[], None]) -> None:
        """So long from now this happens, whoever waits then."""
        self.at(self.now_s + delay_s, happens)

    def at(self, at_s: float, happens: Callable[[], None]) -> None:
        """At this moment this happens."""
        self._made += 1
        heapq.heappush(self._due, (at_s, self._made, happens))
