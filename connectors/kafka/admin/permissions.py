"""What a Kafka principal may be allowed to do, and which of it is missing: asked of the broker, all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.kafka.admin.group_members import describe_group
from penstock.connectors.kafka.admin.session import AdminSession, absent
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.errors import translate
from penstock.connectors.kafka.wire.groups import GroupForbiddenError
from penstock.schemas.errors import ConfigError

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe"]

_forbidden: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED})
_operations: Final = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """One entry of an access list. Read and Write bring Describe with them, as Kafka's own rule is."""

    operation: Operation
    resource: Resource
    name: str
    prefixed: bool = False
    purpose: str = ""

    def __str__(self) -> str:
        kind = "transactional id" if self.resource == "transactional-id" else self.resource
        return f"{self.operation} on {kind} {self.name}{'*' if self.prefixed else ''}"


def require_permissions(
    config: ClientConfig, permissions: Sequence[Permission], *, timeout_s: float = 10.0
) -> None:
    """Raises ConfigError naming each missing topic and permission, UnavailableError when nobody answers.

    Transactional ids are not asked about: the broker tells only a producer that begins with one.
    """
    session = AdminSession(config, timeout_s=timeout_s)
    faults = _topic_faults(session, [each for each in permissions if each.resource == "topic"])
    for each in permissions:
        if each.resource == "group":
            faults += _group_faults(config, each, timeout_s)
    if faults:
        raise ConfigError("; ".join(dict.fromkeys(faults)))


def lacks(permission: Permission) -> str:
    """The sentence for a permission that is missing."""
    return f"this user lacks the permission {permission}"


def _topic_faults(session: AdminSession, permissions: Sequence[Permission]) -> list[str]:
    names = list(dict.fromkeys(each.name for each in permissions))
    if not names:
        return []
    futures = session.client.describe_topics(
        TopicCollection(names), include_authorized_operations=True, request_timeout=session.timeout_s
    )
    found = {
        name: session.answer(futures[name], f"look up topic {name}", expected=absent | _forbidden)
        for name in names
    }
    faults = []
    for each in permissions:
        topic = found[each.name]
        if isinstance(topic, KafkaError) and topic.code() in absent:
            faults.append(f"topic {each.name} does not exist; Penstock creates none by itself")
        elif isinstance(topic, KafkaError) and topic.code() not in _forbidden:
            raise translate(topic, f"look up topic {each.name}")
        elif isinstance(topic, KafkaError) or not _allows(topic, each):
            faults.append(lacks(each))
    return faults


def _group_faults(config: ClientConfig, permission: Permission, timeout_s: float) -> list[str]:
    try:
        allowed = describe_group(config, permission.name, timeout_s=timeout_s).operations
    except GroupForbiddenError:
        return [lacks(permission)]
    needed = int(_operations[permission.operation].value)
    return [lacks(permission)] if allowed is not None and needed not in allowed else []


def _allows(described: Any, permission: Permission) -> bool:
    allowed = described.authorized_operations
    return allowed is None or _operations[permission.operation] in allowed
