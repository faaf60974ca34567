"""What is asked about a consumer group by hand: its coordinator, its members, and that one of them leaves.

librdkafka's admin client asks the same, and ends the process when the coordinator stands still or moves meanwhile (its
issue 4605: an assertion in every call that goes to a group's coordinator). And it has no call to say that a member is gone: when
the brokers are away for longer than the session, it forgets its member id and joins anew, and the brokers, back again, give the
old id a whole session before they let the new one have its partitions.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.errors import translate
from penstock.connectors.kafka.wire.connection import Connection, connected, host_and_port, text
from penstock.connectors.kafka.wire.reader import Reader
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError

_find_coordinator, _leave_group, _describe_groups, _describe_consumer_group = 10, 13, 15, 69
_unknown_member_id: Final = 25
_forbidden: Final = 30
_no_operations: Final = -(1 << 31)  # a broker that was not asked
_no_such_group: Final = 69  # also said of a group that follows the other protocol


class GroupForbiddenError(ConfigError):
    """The broker does not let this user see the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """One client in a group."""

    client_id: str
    host: str
    assigned: Mapping[str, Sequence[int]]
    """Partitions by topic."""

    @property
    def address(self) -> str:
        """The host, without the slash that brokers write before it."""
        return self.host.lstrip("/")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    """A group at one moment; a group that does not exist has the state Dead and no members."""

    state: str
    members: tuple[GroupMember, ...]
    operations: frozenset[int] | None = None
    """What this user may do with it, in Kafka's numbers; None where the broker did not say."""


def leave_group(config: ClientConfig, *, group: str, member_id: str) -> None:
    """Ask the group's coordinator to let a member go that nobody speaks for any more. Over after a few seconds.

    Raises UnavailableError: no answer, a refusal, or a login of a kind that is not spoken here. Raises ConfigError.
    """
    host, port = find_coordinator(config, group)
    with connected(config, host, port, f"tell group {group} that a member left") as connection:
        reader = Reader(connection.ask(_leave_group, 1, text(group) + text(member_id)))
        reader.skip(4)  # how long the broker held the answer back
        code = reader.number(">h")
    if code not in (0, _unknown_member_id):
        raise UnavailableError(f"the coordinator of group {group} does not let a member leave (error {code})")


def describe_group(config: ClientConfig, group: str) -> GroupView:
    """Who is in a group, of either protocol, and what this user may do with it. Needs brokers of version 2.3 or newer.

    Raises UnavailableError as `leave_group` does, and GroupForbiddenError or another ConfigError for what this user may not.
    """
    host, port = find_coordinator(config, group)
    with connected(config, host, port, f"look up group {group}") as connection:
        return _consumer_group(connection, group) or _classic_group(connection, group)


def group_is_served(config: ClientConfig, group: str) -> bool:
    """Whether the group's coordinator answers for it: one that has just begun has to read its log first. Over after a few seconds."""
    try:
        describe_group(config, group)
    except UnavailableError:
        return False
    except ConfigError:
        return True  # it answers, whatever we may
    return True


def find_coordinator(config: ClientConfig, group: str) -> tuple[str, int]:
    """Host and port of the broker that coordinates a group. Raises UnavailableError, ConfigError."""
    fault: UnavailableError | None = None
    for server in config.bootstrap_servers.split(","):
        try:
            host, port = host_and_port(server)
            with connected(config, host, port, f"find the coordinator of group {group}") as connection:
                reader = Reader(connection.ask(_find_coordinator, 1, text(group) + b"\0"))
                reader.skip(4)
                code = reader.number(">h")
                reader.text()
                reader.skip(4)
                where = (reader.text(), reader.number(">i"))
        except UnavailableError as error:
            fault = error
            continue
        if code == 0:
            return where
        refusal = _refusal(code, f"find the coordinator of group {group}")
        if isinstance(refusal, ConfigError):
            raise refusal
        fault = UnavailableError(str(refusal))
    raise fault or UnavailableError("no bootstrap server is named")


def _consumer_group(connection: Connection, group: str) -> GroupView | None:
    """A group of the consumer protocol, None when it is none. The answer's lengths are written as Kafka's newer messages do."""
    name = group.encode()
    asked = b"\2" + _compact(len(name)) + name + b"\1" + b"\0"
    reader = Reader(connection.ask(_describe_consumer_group, 0, asked, flexible=True))
    reader.skip(1 + 4)
    reader.length()
    code = reader.number(">h")
    reader.short_text()  # why
    reader.short_text()  # the group
    state = reader.short_text()
    if code != 0:
        if code == _no_such_group:
            return None
        raise _refusal(code, f"look up group {group}")
    reader.skip(4 + 4)  # epochs
    reader.short_text()  # assignor
    members = []
    for _ in range(reader.length()):
        for _ in range(3):  # member id, instance, rack
            reader.short_text()
        reader.skip(4)
        client_id, host = reader.short_text(), reader.short_text()
        for _ in range(reader.length()):
            reader.short_text()  # subscribed topics
        reader.short_text()  # as a pattern
        assigned, _ = _topics(reader), _topics(reader)  # what it has, and what it is to have
        reader.tags()
        members.append(GroupMember(client_id=client_id, host=host, assigned=assigned))
    return GroupView(state=state, members=tuple(members), operations=_operations(reader))


def _topics(reader: Reader) -> dict[str, list[int]]:
    """The partitions of an assignment in a newer message."""
    found = {}
    for _ in range(reader.length()):
        reader.skip(16)  # the topic's id
        topic = reader.short_text()
        found[topic] = [reader.number(">i") for _ in range(reader.length())]
        reader.tags()
    reader.tags()
    return found


def _classic_group(connection: Connection, group: str) -> GroupView:
    reader = Reader(connection.ask(_describe_groups, 3, struct.pack(">i", 1) + text(group) + b"\1"))
    reader.skip(4 + 4)  # how long the broker held the answer back; one group
    code = reader.number(">h")
    reader.text()
    state = reader.text()
    if code != 0:
        raise _refusal(code, f"look up group {group}")
    for _ in range(2):  # the protocol's type and name
        reader.text()
    members = []
    for _ in range(reader.number(">i")):
        reader.text()
        client_id, host = reader.text(), reader.text()
        reader.bytes()  # what it asked for
        members.append(GroupMember(client_id=client_id, host=host, assigned=_assigned(reader.bytes())))
    return GroupView(state=state, members=tuple(members), operations=_operations(reader))


def _refusal(code: int, doing: str) -> PenstockError:
    refusal = translate(KafkaError(code), doing)
    return GroupForbiddenError(str(refusal)) if code == _forbidden else refusal


def _operations(reader: Reader) -> frozenset[int] | None:
    """A bit for each, by its number."""
    bits = reader.number(">i")
    return None if bits == _no_operations else frozenset(n for n in range(31) if bits >> n & 1)


def _assigned(data: bytes) -> dict[str, list[int]]:
    """The partitions in what the leader of a classic group gave a member; none before it did."""
    if not data:
        return {}
    reader = Reader(data)
    reader.skip(2)
    return {
        reader.text(): [reader.number(">i") for _ in range(reader.number(">i"))]
        for _ in range(reader.number(">i"))
    }


def _compact(length: int) -> bytes:
    """A length as newer messages have it: one more, seven bits a byte."""
    number, written = length + 1, bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
