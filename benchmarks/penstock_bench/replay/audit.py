"""Counts every record of a replay. It reads the topics with plain clients and json, and has nothing of the engine in it."""

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import confluent_kafka
import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock_bench.replay.load import record

_poll_s: Final = 0.1
_tolerance: Final = 1e-3  # of a value, relative: float32 rounds


@dataclass(kw_only=True)
class Audit:
    """What became of the records; lists of numbers, or of words. `answered_s`: when the first outcome of each was to be read, NaN if never."""

    records: int
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    letters: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    answered_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled, wrong or set aside."""
        return not (self.lost or self.doubled or self.wrong or self.letters)


class Watch:
    """Reads a topic as a consumer of committed records does, and notes when each of them was there to be read."""

    def __init__(self, servers: str, topic: str, *, partitions: int, clock: Clock) -> None:
        self.seen: list[tuple[float, bytes]] = []  # seconds since 1970, value
        self._clock = clock
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": servers, "group.id": "replay-watch", "isolation.level": "read_committed",
                "enable.auto.commit": False, "log_level": 0, "fetch.wait.max.ms": 50,
            }
        )  # fmt: skip
        self._consumer.assign(
            [
                confluent_kafka.TopicPartition(topic, p, confluent_kafka.OFFSET_BEGINNING)
                for p in range(partitions)
            ]
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is read any more."""
        self._closed.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            for message in self._consumer.consume(1000, _poll_s):
                value = message.value()
                if message.error() is None and value is not None:
                    self.seen.append((self._clock.wall_ms() / 1e3, value))


def audit(seen: Sequence[tuple[float, bytes]], letters: int, *, records: int) -> Audit:
    """Judge outputs (when, body) about records 0 .. records - 1, whose number each body carries in its passed field b."""
    found = Audit(records=records, letters=letters, answered_s=np.full(records, np.nan))
    counts: Counter[int] = Counter()
    versions: Counter[str] = Counter()
    for at_s, value in seen:
        body: dict[str, Any] = json.loads(value)
        number = int(float(body["passed"]["b"]))
        if not 0 <= number < records:
            found.wrong.append(f"an output about number {number}, which was never written")
            continue
        counts[number] += 1
        versions[body["model"]["version"]] += 1
        if counts[number] == 1:
            found.answered_s[number] = at_s
        (told,) = body["outputs"]["mean"]
        wanted = sum(record(number)) / 3
        if abs(told - wanted) > _tolerance * max(wanted, 1.0):
            found.wrong.append(f"number {number}: {told!r}, not {wanted!r}")
    found.lost = [number for number in range(records) if not counts[number]]
    found.doubled = [number for number, count in counts.items() if count > 1]
    found.versions = dict(versions)
    return found


def ages_s(due_s: NDArray[np.float64], answered_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) from when a record was due to when its outcome could be read; infinite where it never came."""
    return np.where(np.isnan(answered_s), np.inf, answered_s - due_s)


def oldest_s(
    due_s: NDArray[np.float64], answered_s: NDArray[np.float64], moments_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m,) at each moment, the age of the oldest record that was due and not answered; 0 where there is none."""
    open_until = np.where(np.isnan(answered_s), np.inf, answered_s)
    found = np.zeros(len(moments_s))
    for place, moment in enumerate(moments_s.tolist()):
        waiting = due_s[(due_s <= moment) & (open_until > moment)]
        found[place] = moment - waiting.min() if len(waiting) else 0.0
    return found
