"""Clocks that do as a test tells them."""


class HandClock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class SteppingClock(HandClock):
    """A millisecond passes with every look."""

    def monotonic_s(self) -> float:
        self.now_s += 0.001
        return self.now_s
