"""Partitions that are behind and bring nothing: what stands in their way, asked for on a thread of its own."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.group_offsets import PartitionOffsets
from penstock.connectors.kafka.call_thread import Aside
from penstock.schemas.errors import PenstockError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

stalled_after_s: Final = 30.0
ask_again_s: Final = 10.0


class Offsets(Protocol):
    """Looks at a topic without being a member; KafkaOffsets by shape."""

    def read(self, topic: str) -> list[PartitionOffsets]:
        """Every partition. May take seconds."""

    def close(self) -> None:
        """Release the clients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stalls:
    """What was found; keys are partitions."""

    stalled_s: Mapping[int, float]  # readable records wait, and none was read for so long
    open_transactions: Mapping[int, int]  # offsets that wait for the end of a producer's transaction


class StallDetector:
    """Compares where reading is with where each log ends. Polling thread only; never waits.

    A log that ends in commit markers or aborted records looks as if something was left to read, and so does one with an open
    transaction: a suspicion is looked into before anything is said.
    """

    def __init__(self, *, topic: str, open_offsets: Callable[[], Offsets], clock: Clock) -> None:
        """`open_offsets` is called at the first suspicion, which in most lives never comes."""
        self._topic = topic
        self._open = open_offsets
        self._clock = clock
        self._offsets: Offsets | None = None
        self._thread = Aside("stall-detector")
        self._moved: dict[int, tuple[int, float]] = {}  # where reading was, and since when
        self._answer: dict[int, PartitionOffsets] = {}
        self._ask_due_s = 0.0

    def look(self, heads: Mapping[int, int], ends: Mapping[int, int], paused: Collection[int]) -> Stalls:
        """Once a second: the next offset and the end, as far as it is known, of every partition that is read here."""
        now_s = self._clock.monotonic_s()
        for partition, head in heads.items():
            known = self._moved.get(partition)
            if known is None or known[0] != head or partition in paused or ends.get(partition, 0) <= head:
                self._moved[partition] = head, now_s
        for partition in self._moved.keys() - heads.keys():
            del self._moved[partition]
        suspects = {p: s for p, (_, s) in self._moved.items() if now_s - s >= stalled_after_s}
        if not suspects:
            self._answer = {}
            return Stalls(stalled_s={}, open_transactions={})
        self._ask(now_s)
        stalled, waiting = {}, {}
        for partition, since_s in suspects.items():
            found, head = self._answer.get(partition), heads[partition]
            if found is None:
                continue
            if found.fault or (found.oldest_unfinished_timestamp_ms is not None and head < found.end):
                stalled[partition] = now_s - since_s
            elif found.high > max(found.end, head):
                waiting[partition] = found.high - max(found.end, head)
        return Stalls(stalled_s=stalled, open_transactions=waiting)

    def close(self) -> None:
        """Ask nothing more; the clients go with the process."""
        self._thread.close()

    def _ask(self, now_s: float) -> None:
        if not self._thread.busy and now_s < self._ask_due_s:
            return
        self._ask_due_s = now_s + ask_again_s
        try:
            self._thread.run(self._read, 0.0)
        except PenstockError as error:
            logger.debug("%s", error, extra=LogCode.KAFKA_QUESTION_FAILED.extra)

    def _read(self) -> None:
        if self._offsets is None:
            self._offsets = self._open()
        self._answer = {found.partition: found for found in self._offsets.read(self._topic)}
