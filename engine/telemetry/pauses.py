"""How long a worker was without partitions from one assignment to the next."""

from collections import deque


class PauseLog:
    """How long this worker had no partitions between two assignments; of the last few, the longest. Not thread-safe."""

    def __init__(self, *, kept: int = 5) -> None:
        self._pauses: deque[float] = deque(maxlen=kept)
        self._without_since_s: float | None = None
        self._had_any = False

    @property
    def longest_s(self) -> float:
        """0 when there was none."""
        return max(self._pauses, default=0.0)

    def assigned(self, any_partitions: bool, *, now_s: float) -> None:
        """The assignment is another one."""
        if any_partitions and self._without_since_s is not None:
            self._pauses.append(now_s - self._without_since_s)
            self._without_since_s = None
        elif not any_partitions and self._had_any and self._without_since_s is None:
            self._without_since_s = now_s
        self._had_any = self._had_any or any_partitions
