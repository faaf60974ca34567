"""Who is in a consumer group, whether they own a partition or not."""

from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError

from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig

_nobody: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID})


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """One client of a group, and how many partitions it owns."""

    client_id: str
    host: str
    partitions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    """A group at one moment: its state in Kafka's words (`empty` where it does not exist), and its members."""

    state: str
    members: tuple[GroupMember, ...]


def describe_group(config: ClientConfig, group: str, *, timeout_s: float = 10.0) -> GroupView:
    """Needs Describe on the group. Raises UnavailableError when nobody answers in time, ConfigError when it is refused."""
    session = AdminSession(config, timeout_s=timeout_s)
    found = session.ask(
        lambda: session.client.describe_consumer_groups([group], request_timeout=timeout_s),
        f"look up group {group}",
        expected=_nobody,
    )[group]
    if isinstance(found, KafkaError):
        return GroupView(state="empty", members=())
    return GroupView(
        state=str(found.state.name).lower(),
        members=tuple(
            GroupMember(
                client_id=member.client_id,
                host=member.host.lstrip("/"),
                partitions=0 if member.assignment is None else len(member.assignment.topic_partitions),
            )
            for member in found.members
        ),
    )
