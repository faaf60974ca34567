"""What happens to a worker that a person should know of: each has one line in the log, one count, one place in /status."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from penstock.engine.clock import Clock

kept_max = 32
repeat_first_s, repeat_max_s = 60.0, 3600.0


class Event(StrEnum):
    """Kinds of state changes; docs/operations.md has one row for each."""

    MODEL_LOADED = "model_loaded"
    JOINING = "joining"
    ASSIGNED = "assigned"
    REVOKED = "revoked"
    PARTITIONS_LOST = "partitions_lost"
    FIRST_RECORD = "first_record"
    NEW_PARTITIONS = "new_partitions"
    KAFKA_LOST = "kafka_lost"
    KAFKA_BACK = "kafka_back"
    REJECTED = "rejected"
    PARTITION_WAITS = "partition_waits"
    PARTITION_GOES_ON = "partition_goes_on"
    PARTITION_STOPPED = "partition_stopped"
    INPUT_UNREADABLE = "input_unreadable"
    INPUT_LOST = "input_lost"
    INPUT_STALLED = "input_stalled"
    OPEN_TRANSACTION = "open_transaction"
    INPUT_GOES_ON = "input_goes_on"
    CAREFUL_READING = "careful_reading"
    TOPIC_RECREATED = "topic_recreated"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """One event: when, and in which words."""

    event: Event
    at_ms: int
    text: str


class EventLog:
    """Writes, counts and keeps the newest events. Thread-safe; never waits."""

    def __init__(self, *, logger: logging.Logger, count: Callable[[Event], None], clock: Clock) -> None:
        """`count` is called once for each event."""
        self._logger = logger
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: deque[Happened] = deque(maxlen=kept_max)

    def note(self, event: Event, text: str, *, level: int = logging.INFO) -> None:
        """It happened now."""
        happened = Happened(event=event, at_ms=self._clock.wall_ms(), text=text)
        with self._lock:
            self._kept.append(happened)
        self._count(event)
        self._logger.log(level, "%s", text, extra={"event_code": str(event)})

    def newest(self) -> tuple[Happened, ...]:
        """The last events, oldest first."""
        with self._lock:
            return tuple(self._kept)


class Repeated:
    """Decides when something that goes on is worth another line: at once, then at growing intervals."""

    def __init__(self, *, first_s: float = repeat_first_s, max_s: float = repeat_max_s) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._due_s: float | None = None
        self._wait_s = first_s
        self._counted = 0

    def add(self, count: int, now_s: float) -> int:
        """It happened `count` times more; how many to tell of now, 0 when it is not yet time."""
        self._counted += count
        if not self._counted or (self._due_s is not None and now_s < self._due_s):
            return 0
        if self._due_s is not None:
            self._wait_s = min(self._wait_s * 2, self._max_s)
        self._due_s = now_s + self._wait_s
        told, self._counted = self._counted, 0
        return told


def seconds(duration_s: float) -> str:
    """A duration for a person: 8 s, 3 min 10 s, 2 h 5 min."""
    whole = round(duration_s)
    if whole < 120:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60} h {minutes % 60} min"


def listed(numbers: Mapping[int, object] | list[int] | tuple[int, ...], *, shown_max: int = 12) -> str:
    """Partition numbers in a sentence: 0, 1, 2 or 0, 1, ... (64 in all)."""
    ordered = sorted(numbers)
    if len(ordered) <= shown_max:
        return ", ".join(map(str, ordered)) or "none"
    return f"{', '.join(map(str, ordered[:3]))}, ... ({len(ordered)} in all)"
