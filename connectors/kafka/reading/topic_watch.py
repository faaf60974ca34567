"""What becomes of a topic while it is read: its id and its partitions, asked for on a thread of its own."""

import logging
import threading
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, TopicCollection

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.session import AdminSession, absent
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import PenstockError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

ask_every_s: Final = 1.0
_no_id: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # what a broker before 2.8 answers: sixteen zero bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicFacts:
    """A topic at one moment. `id` is None where the brokers know no topic ids."""

    id: str | None
    partitions: int
    asked_at_s: float  # on the monotonic clock: what is older than this is known to belong to this id


class TopicWatch:
    """Asks once a second, and at once when told to. Every method may be called from any thread, and none waits for a broker
    longer than asked.

    While nothing is heard, or the topic is gone, the newest facts stay: a topic that does not exist has no new records.
    """

    def __init__(self, config: ClientConfig, topic: str, *, clock: Clock, timeout_s: float = 5.0) -> None:
        """Raises ConfigError for settings that the client refuses."""
        self._topic = topic
        self._clock = clock
        self._session = AdminSession(config, timeout_s=timeout_s)
        self._changed = threading.Condition()
        self._facts: TopicFacts | None = None
        self._asked = True
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="topic-watch", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> TopicFacts | None:
        """The last answer, None before the first."""
        return self._facts

    def since(self, moment_s: float, timeout_s: float = 0.0) -> TopicFacts | None:
        """The topic's facts from a request sent at or after this moment; None when no response arrives within `timeout_s`."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        with self._changed:
            while True:
                facts = self._facts
                if facts is not None and facts.asked_at_s >= moment_s:
                    return facts
                if not self._asked:
                    self._asked = True
                    self._changed.notify_all()
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0 or self._closed:
                    return None
                self._changed.wait(left_s)

    def close(self) -> None:
        """Ask nothing more. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._asked and not self._closed:
                    self._changed.wait(ask_every_s)
                if self._closed:
                    return
                self._asked = False
            asked_at_s = self._clock.monotonic_s()
            facts = self._ask(asked_at_s)
            with self._changed:
                if facts is not None:
                    self._facts = facts
                    self._changed.notify_all()
                elif not self._closed:
                    self._changed.wait(ask_every_s / 4)

    def _ask(self, asked_at_s: float) -> TopicFacts | None:
        client, timeout_s = self._session.client, self._session.timeout_s
        try:
            found = self._session.ask(
                lambda: client.describe_topics(TopicCollection([self._topic]), request_timeout=timeout_s),
                f"look up topic {self._topic}",
                expected=absent,
            )[self._topic]
        except PenstockError as error:
            logger.debug("%s", error, extra=LogCode.KAFKA_QUESTION_FAILED.extra)
            return None
        if isinstance(found, KafkaError):
            return None
        topic_id = str(found.topic_id)
        return TopicFacts(
            id=None if topic_id == _no_id else topic_id,
            partitions=len(found.partitions),
            asked_at_s=asked_at_s,
        )
