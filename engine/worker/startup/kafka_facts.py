"""What a worker must know of Kafka before it joins: topics, permissions, and what the output topics take."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.permissions import require_permissions
from penstock.connectors.kafka.admin.topic_settings import (
    batch_bytes_max,
    broker_message_bytes_max,
    read_topic_settings,
)
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.dead_letters.message import message_bytes_min
from penstock.engine.pipeline.outgoing import OutputLimits, letter_headers_bytes_max
from penstock.engine.settings.model import Settings
from penstock.engine.worker.permissions import permissions
from penstock.schemas.errors import ConfigError, UnavailableError


def topics_of(settings: Settings) -> list[str]:
    """Every topic that a worker needs."""
    output = settings.output
    names = [
        settings.input.topic,
        output.predictions,
        output.explanations,
        output.dead_letters,
        output.status,
        settings.admin.audit_topic if settings.admin else None,
    ]
    return [name for name in names if name]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundLimits:
    """What the output topics take, and of which ones the broker does not tell us."""

    limits: OutputLimits
    batch_bytes_max: int
    untold: tuple[str, ...]


def output_limits(settings: Settings, config: ClientConfig) -> FoundLimits:
    """What the output topics take, read from their settings.

    Raises ConfigError for a topic that takes no message at all, and for a dead-letter topic that would refuse or lose letters;
    UnavailableError.
    """
    output = settings.output
    names = [name for name in (output.predictions, output.explanations, output.dead_letters) if name]
    audit = settings.admin.audit_topic if settings.admin else None
    found = read_topic_settings(config, [*names, audit] if audit else names)
    if audit and found[audit].compacted:
        raise ConfigError(
            f"the audit topic {audit} is compacted: it would forget records; set its cleanup.policy to delete"
        )
    letters = found[output.dead_letters]
    if letters.compacted:
        raise ConfigError(
            f"the dead-letter topic {output.dead_letters} is compacted: it refuses letters of records without a key and forgets all"
            " but the newest of each key; set its cleanup.policy to delete"
        )
    for name in names:
        if not found[name].message_bytes_max(config):
            raise ConfigError(
                f"no message at all fits into topic {name}: its max.message.bytes is {found[name].batch_bytes_max}; raise it "
                f"(Kafka's own default is {broker_message_bytes_max})"
            )
    bytes_min = message_bytes_min + letter_headers_bytes_max
    letter_bytes_max = letters.message_bytes_max(config)
    if letter_bytes_max < bytes_min:
        raise ConfigError(
            f"messages of at most {letter_bytes_max} bytes fit into the dead-letter topic {output.dead_letters}, and a letter may"
            f" need {bytes_min}; raise its max.message.bytes (and message.max.bytes under kafka.client, if it is set)"
        )
    results = [name for name in names if name != output.dead_letters]
    bytes_max = {name: found[name].message_bytes_max(config) for name in results}
    return FoundLimits(
        limits=OutputLimits(
            predictions_bytes_max=bytes_max[output.predictions],
            explanations_bytes_max=bytes_max.get(output.explanations or "", 0),
            dead_letters_bytes_max=letter_bytes_max,
            keyed=frozenset(name for name in results if found[name].compacted),
        ),
        batch_bytes_max=batch_bytes_max(found.values()),
        untold=tuple(name for name in names if not found[name].known),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaFacts:
    """What a worker must know of Kafka before it joins."""

    cluster: str
    partitions: Mapping[str, int]  # of every topic that it needs
    limits: FoundLimits


def kafka_facts(settings: Settings, config: ClientConfig) -> KafkaFacts:
    """Permissions, topics, and what the output topics take: asked by a worker at its start and by `penstock check`.

    Raises ConfigError for what is missing, UnavailableError when nobody answers.
    """
    admin = KafkaAdmin(config)
    with ThreadPoolExecutor(
        thread_name_prefix="kafka-facts"
    ) as asking:  # at once: a start waits for the slowest alone
        # Write among them: else the first bad record would find out that no dead letter may be written.
        allowed = asking.submit(require_permissions, config, permissions(settings)["worker"])
        counted = asking.submit(admin.partition_counts, topics_of(settings))
        cluster = asking.submit(admin.cluster_id)
        limits = asking.submit(output_limits, settings, config)
        allowed.result()  # what is missing is told before what follows from it
        counts = counted.result()
        require_topics(counts)
        return KafkaFacts(
            cluster=cluster.result(),
            partitions={topic: count for topic, count in counts.items() if count is not None},
            limits=limits.result(),
        )


def raise_changed_limits(
    error: ConfigError, known: FoundLimits, settings: Settings, config: ClientConfig
) -> None:
    """Raises UnavailableError where topics take something else than when the worker began: another one, which reads it anew, helps.

    `error`: the refusal that ended the worker. Only one that speaks of what a topic takes is looked into.
    """
    if not any(words in str(error) for words in ("max.message.bytes", "compacted topic")):
        return
    now = output_limits(settings, config)
    if now != known:
        raise UnavailableError(
            f"the settings of the output topics are others than when this worker began (messages of at most "
            f"{now.limits.predictions_bytes_max:,} bytes on {settings.output.predictions} and "
            f"{now.limits.dead_letters_bytes_max:,} on {settings.output.dead_letters}): the next one goes by them"
        ) from error


def require_topics(found: Mapping[str, int | None]) -> None:
    """Raises ConfigError naming every topic that is not there (None partitions)."""
    missing = sorted(topic for topic, partitions in found.items() if partitions is None)
    if missing:
        raise ConfigError(
            f"missing topics: {', '.join(missing)}; create them first, Penstock makes none by itself"
        )
