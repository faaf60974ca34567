"""What stands in the way of reading the input, told once when it begins, now and then while it lasts, and when it is over."""

import logging
from collections.abc import Collection, Mapping
from typing import Final

from penstock.engine.clock import Clock
from penstock.engine.telemetry.events import Event, EventLog, Repeated, seconds
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.worker_status import Wait
from penstock.schemas.reading import Reading
from penstock.schemas.waits import WaitKind

repeat_s = 60.0
_kinds: Final = {
    Event.INPUT_UNREADABLE: WaitKind.UNREADABLE,
    Event.INPUT_STALLED: WaitKind.STALLED,
    Event.OPEN_TRANSACTION: WaitKind.OPEN_TRANSACTION,
}


class InputState:
    """Turns what the source knows of its reading into lines, metrics and places in /status. Polling thread only."""

    def __init__(self, *, metrics: Metrics, events: EventLog, topic: str, clock: Clock) -> None:
        self._metrics = metrics
        self._events = events
        self._topic = topic
        self._clock = clock
        self._unreadable = 0
        self._recreations = 0
        self._lost = 0
        self._unplaced: set[int] = (
            set()
        )  # of the last look; that they begin, or go to another worker, others say
        self._since: dict[tuple[Event, int], tuple[int, Repeated]] = {}  # since when, in wall time

    @property
    def recreations(self) -> int:
        """How often the topic was made anew, as of the last look."""
        return self._recreations

    def look(self, reading: Reading) -> list[Wait]:
        """Once a second; what stands still because of it."""
        self._metrics.unreadable_offsets.inc(reading.unreadable_offsets - self._unreadable)
        self._unreadable = reading.unreadable_offsets
        if reading.lost_offsets > self._lost:
            self._metrics.lost_offsets.inc(reading.lost_offsets - self._lost)
            self._events.note(
                Event.INPUT_LOST,
                f"{reading.lost_offsets - self._lost:,} offsets of topic {self._topic} were deleted before the group read them",
                level=logging.WARNING,
            )
        self._lost = reading.lost_offsets
        self._metrics.topic_recreations.inc(reading.recreations - self._recreations)
        if reading.recreations > self._recreations:
            self._events.note(
                Event.TOPIC_RECREATED,
                f"topic {self._topic} was deleted and made anew: it is read from its beginning",
                level=logging.WARNING,
            )
        self._recreations = reading.recreations
        self._metrics.stalled_partitions.set(len(reading.stalled_s) + len(reading.unplaced_s))
        self._metrics.open_transaction_offsets.set(sum(reading.open_transactions.values()))
        texts: dict[tuple[Event, int], str] = {
            (Event.INPUT_UNREADABLE, partition): text for partition, text in reading.doubts.items()
        }
        texts |= {
            (
                Event.INPUT_STALLED,
                partition,
            ): f"records wait, and nothing could be read for {seconds(stalled_s)}"
            for partition, stalled_s in reading.stalled_s.items()
        }
        texts |= {
            (Event.INPUT_STALLED, partition): (
                f"nothing is read yet: where the group goes on could not be found out for {seconds(unplaced_s)} (brokers that are "
                "slow or far away, or a transaction that a worker before left open)"
            )
            for partition, unplaced_s in reading.unplaced_s.items()
        }
        texts |= {
            (
                Event.OPEN_TRANSACTION,
                partition,
            ): f"{offsets:,} offsets wait for the end of a producer's transaction"
            for partition, offsets in reading.open_transactions.items()
        }
        waits = self._tell(texts)
        self._unplaced = {*reading.unplaced_s}
        return waits

    def forget(self, partitions: Collection[int]) -> None:
        """These are another worker's now; what becomes of them is not known here."""
        for key in [key for key in self._since if key[1] in partitions]:
            del self._since[key]

    def _tell(self, texts: Mapping[tuple[Event, int], str]) -> list[Wait]:
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        for key in self._since.keys() - texts.keys():
            since_ms, _ = self._since.pop(key)
            if key[0] is Event.INPUT_STALLED and key[1] in self._unplaced:
                continue
            self._events.note(
                Event.INPUT_GOES_ON,
                f"partition {key[1]} is read again after {seconds((now_ms - since_ms) / 1000)}",
                level=logging.WARNING,
            )
        waits = []
        for (event, partition), text in sorted(texts.items()):
            since_ms, told = self._since.setdefault(
                (event, partition), (now_ms, Repeated(first_s=repeat_s, max_s=repeat_s))
            )
            if told.add(1, now_s):
                self._events.note(event, f"partition {partition}: {text}", level=logging.WARNING)
            waits.append(Wait(partition=partition, kind=_kinds[event], since_ms=since_ms, reason=text))
        return waits
