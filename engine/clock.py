"""The only place that reads a clock; everything else is given one."""

import time
from typing import Protocol


class Clock(Protocol):
    """Time, as an argument."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; for durations and deadlines."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970; for time stamps that others read."""

    def sleep(self, duration_s: float) -> None:
        """Wait; a simulated clock moves on instead."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s)
