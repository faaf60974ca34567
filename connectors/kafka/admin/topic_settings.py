"""What the topics that are written to take: settings of theirs that would otherwise be learnt from a refusal."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

producer_message_bytes_max: Final = 1_000_000
"""The longest message that the client sends, unless `kafka.client` says otherwise with `message.max.bytes`."""
broker_message_bytes_max: Final = 1_048_588
"""Kafka's own default of a topic's `max.message.bytes`, which is the longest batch."""
envelope_bytes: Final = 512
"""What a batch adds to a single message in it, with room to spare."""

_untold: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE, KafkaError.INVALID_REQUEST,
})  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicSettings:
    """What one topic takes. `known` is False where the broker does not tell this user; then Kafka's defaults are assumed."""

    batch_bytes_max: int  # max.message.bytes: of a whole batch, as it is sent
    compacted: bool
    known: bool = True

    def message_bytes_max(self, config: ClientConfig) -> int:
        """Bytes of value, key and headers of the longest message that client and topic take."""
        client = int(config.properties.get("message.max.bytes", producer_message_bytes_max))
        return max(min(client, self.batch_bytes_max - envelope_bytes), 0)


def read_topic_settings(
    config: ClientConfig, topics: Iterable[str], *, timeout_s: float = 10.0
) -> dict[str, TopicSettings]:
    """The settings of each topic, all of which exist. Needs DescribeConfigs on them, and does without.

    Raises UnavailableError when nobody answers in time, ConfigError for a topic that is not there.
    """
    names = list(dict.fromkeys(topics))
    if not names:
        return {}
    session = AdminSession(config, timeout_s=timeout_s)
    answers = session.ask(
        lambda: session.client.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=timeout_s
        ),
        "read the settings of topics",
        expected=_untold,
    )
    return {resource.name: _settings(found) for resource, found in answers.items()}


def batch_bytes_max(settings: Iterable[TopicSettings]) -> int:
    """The longest batch that may be sent to any of these topics: a producer has one bound for all of them."""
    return min((each.batch_bytes_max - envelope_bytes for each in settings), default=broker_message_bytes_max)


def _settings(found: Any) -> TopicSettings:
    if not isinstance(found, KafkaError):
        try:
            return TopicSettings(
                batch_bytes_max=int(found["max.message.bytes"].value),
                compacted="compact" in found["cleanup.policy"].value.split(","),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            logger.debug(
                "a topic's settings, as this broker tells them, are not understood",
                extra=LogCode.TOPIC_SETTINGS_UNTOLD.extra,
            )
    return TopicSettings(batch_bytes_max=broker_message_bytes_max, compacted=False, known=False)
