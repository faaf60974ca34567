"""Where the log of a partition begins and ends, asked for on a thread of its own."""

import logging
from collections.abc import Collection
from typing import Final

from confluent_kafka import IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.call_thread import Aside
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.errors import elsewhere
from penstock.schemas.errors import PenstockError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

ask_again_s: Final = 0.25  # after no answer
_earliest: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_latest: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LogBounds:
    """Polling thread only; never waits. Connects at the first question, which in most lives never comes.

    The consumer's own call is of no use here: its question stands behind a fetch that waits for records, for half a second.
    """

    def __init__(self, config: ClientConfig, topic: str, *, clock: Clock, timeout_s: float = 5.0) -> None:
        """Raises nothing, and connects to nothing yet."""
        self._config = config
        self._topic = topic
        self._clock = clock
        self._timeout_s = timeout_s
        self._thread = Aside("log-bounds")
        self._session: AdminSession | None = None
        self._answers: dict[int, tuple[float, tuple[int, int]]] = {}  # asked at, and where it begins and ends
        self._due_s = 0.0

    def of(self, partitions: Collection[int], since_s: float) -> dict[int, tuple[int, int]]:
        """First offset and the one behind the last, of those for which there is an answer to a question asked since then.

        The others are asked for.
        """
        now_s = self._clock.monotonic_s()
        try:
            if self._thread.busy:
                self._thread.wait(0.0)
            known = {p: self._answers[p] for p in partitions if p in self._answers}
            found = {p: bounds for p, (asked_at_s, bounds) in known.items() if asked_at_s >= since_s}
            missing = sorted(set(partitions) - found.keys())
            if missing and not self._thread.busy and now_s >= self._due_s:
                self._due_s = now_s + ask_again_s
                self._thread.run(lambda: self._ask(missing, now_s), 0.0)
        except PenstockError as error:
            logger.debug("%s", error, extra=LogCode.KAFKA_QUESTION_FAILED.extra)
            return {}
        return found

    def close(self) -> None:
        """Ask nothing more; the client goes with the process."""
        self._thread.close()

    def _ask(self, partitions: list[int], asked_at_s: float) -> None:
        if self._session is None:
            self._session = AdminSession(self._config, timeout_s=self._timeout_s)
        first, end = self._offsets(partitions, _earliest), self._offsets(partitions, _latest)
        for partition in first.keys() & end.keys():
            self._answers[partition] = asked_at_s, (first[partition], end[partition])

    def _offsets(self, partitions: list[int], spec: OffsetSpec) -> dict[int, int]:
        """Of those whose leader answers: one that is away holds up no other."""
        assert self._session is not None
        futures = self._session.client.list_offsets(
            {TopicPartition(self._topic, partition): spec for partition in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._timeout_s,
        )
        found, moved = {}, False
        for place, future in futures.items():
            try:
                answer = self._session.answer(
                    future, f"look up the offsets of topic {self._topic}", expected=elsewhere
                )
            except PenstockError as error:
                logger.debug("%s", error, extra=LogCode.KAFKA_QUESTION_FAILED.extra)
                continue
            if isinstance(answer, KafkaError):
                moved = True  # asked again soon
            else:
                found[place.partition] = int(answer.offset)
        if moved:
            self._session.look_up_leaders()
        return found
