"""The compacted topic of worker reports: written without waiting, read from its beginning by readers that want the newest."""

import logging
from contextlib import suppress
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from penstock.connectors.kafka.client import (
    ClientConfig,
    close_aside,
    consumer_config,
    drop,
    hear,
    open_client,
    producer_config,
)
from penstock.connectors.kafka.errors import said, translate
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

call_s: Final = 5.0
queue_messages_max: Final = 1000
read_messages_max: Final = 10_000
reports_passed_over: Final = 3
"""After its client has ended, before another is tried: some seconds."""


class ReportWriter:
    """Sends reports and forgets them: a report that is lost is made good by the next one. One thread.

    A client that is at its end (librdkafka's fatal errors) is no end of the worker's: another takes its place.
    """

    def __init__(self, config: ClientConfig, topic: str) -> None:
        """Raises ConfigError when the client refuses its settings."""
        self._config = config
        self._topic = topic
        self._producer = self._opened()
        self._ended: KafkaError | None = None
        self._passed_over = 0

    def send(self, *, worker: str, payload: bytes | None) -> None:
        """Queue one report under its worker's name; None deletes what stands there. Never waits and never raises: a report that cannot be queued is dropped."""
        if self._ended is not None and not self._renewed(self._ended):
            return
        try:
            self._producer.produce(self._topic, value=payload, key=worker.encode())
        except BufferError:
            logger.debug(
                "the status topic does not take reports; one is dropped", extra=LogCode.REPORT_LOST.extra
            )
        except KafkaException as error:
            logger.info("a report to %s was refused: %s", self._topic, error, extra=LogCode.REPORT_LOST.extra)
        self._ended = hear(self._producer, 0)

    def close(self, timeout_s: float = 1.0) -> None:
        """Send what is queued, for as long as allowed, and let go of the client."""
        with suppress(KafkaException):
            self._producer.flush(timeout_s)
        drop(self._producer)

    def _opened(self) -> Producer:
        return open_client(
            Producer,
            {
                **producer_config(self._config),
                "queue.buffering.max.messages": queue_messages_max,
                "message.timeout.ms": 30_000,
                "on_delivery": self._delivered,
                "delivery.report.only.error": True,
            },
        )

    def _renewed(self, end: KafkaError) -> bool:
        """Whether there is a new client. Not at each report: what ended the old one may end the new one too."""
        self._passed_over += 1
        if self._passed_over < reports_passed_over:
            return False
        try:
            fresh = self._opened()
        except ConfigError as error:
            logger.warning("no reports to %s: %s", self._topic, error, extra=LogCode.REPORT_LOST.extra)
            self._passed_over = 0
            return False
        logger.warning(
            "the client that reports to %s was at its end (%s): another takes its place",
            self._topic,
            said(end),
            extra=LogCode.KAFKA_CLIENT_RENEWED.extra,
        )
        drop(self._producer)
        self._producer, self._ended, self._passed_over = fresh, None, 0
        return True

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            logger.info(
                "a report to %s was lost: %s", self._topic, error.str(), extra=LogCode.REPORT_LOST.extra
            )


class ReportReader:
    """Reads the whole status topic, then follows it. Joins no group and commits nothing. One thread."""

    def __init__(self, config: ClientConfig, topic: str) -> None:
        """Raises ConfigError when the client refuses its settings."""
        self._topic = topic
        self._assigned = False
        self._consumer = open_client(
            Consumer, {**consumer_config(config), "group.id": "penstock-status-reader"}
        )

    def read(self) -> list[bytes | None]:
        """What has arrived since the last call, without waiting for more; the first call asks for the partitions.

        Raises UnavailableError, or ConfigError when the topic is not there or may not be read.
        """
        try:
            if not self._assigned:
                self._assign()
            messages = self._consumer.consume(read_messages_max, 0.0)
        except KafkaException as error:
            raise translate(error, f"read the status topic {self._topic}") from error
        values: list[bytes | None] = []
        for message in messages:
            fault = message.error()
            if fault is None:
                values.append(message.value())
            elif not fault.retriable():
                logger.info(
                    "status topic %s: %s", self._topic, fault.str(), extra=LogCode.STATUS_TOPIC_FAULT.extra
                )
        return values

    def close(self) -> None:
        """Let go of the client."""
        close_aside(self._consumer)

    def _assign(self) -> None:
        metadata = self._consumer.list_topics(self._topic, timeout=call_s).topics[self._topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        self._consumer.assign(
            [TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in metadata.partitions]
        )
        self._assigned = True
