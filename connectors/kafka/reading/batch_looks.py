"""Stored batches that the client could not read, looked at by hand on a thread of its own."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.call_thread import Aside
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.wire.batches import StoredBatch, read_batch
from penstock.schemas.errors import PenstockError
from penstock.schemas.log_codes import LogCode
from penstock.schemas.records import Unreadable

logger = logging.getLogger("penstock.kafka")

old_after_s: Final = 5.0  # an answer is asked for again then: another replica may lead, whose bytes are good


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a look at an offset showed."""

    offset: int
    asked_at_s: float
    batch: StoredBatch | None = None  # None: nothing there yet, or `fault` says why
    fault: str = ""

    @property
    def broken(self) -> Unreadable | None:
        """From the offset to the end of the batch, where the batch's checksum is wrong and it is certain how far it goes."""
        batch = self.batch
        if batch is None or not batch.broken:
            return None
        behind = batch.next
        if behind is None or behind <= self.offset:
            return None
        why = f"the batch stored at offset {batch.base} has a wrong checksum ({batch.stored_crc:08x} for {batch.computed_crc:08x})"
        return Unreadable(first=self.offset, next=behind, why=why)


class BatchLooks:
    """Polling thread only; never waits. Connects at the first question, which in most lives never comes.

    One look at a time, each over after a few seconds at most.
    """

    def __init__(
        self,
        config: ClientConfig,
        topic: str,
        *,
        clock: Clock,
        read: Callable[..., StoredBatch | None] = read_batch,
    ) -> None:
        """Raises nothing, and connects to nothing yet."""
        self._config = config
        self._topic = topic
        self._clock = clock
        self._read = read
        self._thread = Aside("batch-looks")
        self._answers: dict[int, Look] = {}
        self._topics = 0  # how often it became another one

    def of(self, partition: int, offset: int) -> Look | None:
        """What the newest look at this offset showed; None: the answer is under way, or waits for another's."""
        now_s = self._clock.monotonic_s()
        if self._thread.busy:
            self._thread.wait(0.0)
        found = self._answers.get(partition)
        if found is not None and found.offset == offset and now_s - found.asked_at_s < old_after_s:
            return found
        if not self._thread.busy:
            topics = self._topics
            self._thread.run(lambda: self._look(partition, offset, now_s, topics), 0.0)
        return None

    def forget(self) -> None:
        """The offsets are those of another topic from now on: no answer that is there or under way counts."""
        self._topics += 1
        self._answers.clear()

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.close()

    def _look(self, partition: int, offset: int, asked_at_s: float, topics: int) -> None:
        batch, fault = None, ""
        try:
            batch = self._read(self._config, topic=self._topic, partition=partition, offset=offset)
        except PenstockError as error:
            fault = str(error)
            logger.info(
                "topic %s, partition %d: no look by hand: %s",
                self._topic,
                partition,
                error,
                extra=LogCode.READING_RETURNS.extra,
            )
        if topics == self._topics:
            self._answers[partition] = Look(offset=offset, asked_at_s=asked_at_s, batch=batch, fault=fault)
