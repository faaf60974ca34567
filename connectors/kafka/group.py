"""How a group member is set up, and what its membership says."""

import sys
from dataclasses import dataclass
from typing import Any, Literal

from penstock.connectors.kafka.client import ClientConfig, consumer_config
from penstock.connectors.kafka.sessions import heartbeat_ms, heartbeats_min, session_ms
from penstock.schemas.errors import InvariantError

partition_fetch_bytes = 256 << 10
"""Before unpacking: of batches that unpack to a thousand times as much, few come at once."""
queued_record_bytes = 1024  # a queued record costs the client this much, its own book-keeping included


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaMembership:
    """What a producer needs to commit for this member: the client's own form of it, and the note beside the offsets."""

    metadata: object
    note: str


def group_settings(
    config: ClientConfig,
    *,
    group: str,
    protocol: Literal["classic", "consumer"],
    max_poll_interval_s: float,
    memory_bytes_max: int,
    single_batches_s: float | None = None,
) -> dict[str, Any]:
    """Client properties of a member.

    Committed records only, in both delivery modes: it also makes the coordinator hold back the committed offsets of
    a predecessor whose transaction is still open. Users may set what stands before `consumer_config`. `single_batches_s`: one
    batch is fetched at a time, and the next not within this time, while records of the last one are there.
    """
    half = memory_bytes_max // 2  # the other half is for the answer that is being received
    settings: dict[str, Any] = {
        "queued.max.messages.kbytes": max(half // 1024, 1024),
        "queued.min.messages": min(max(half // queued_record_bytes, 1000), 1_000_000),
        "fetch.max.bytes": max(half, 1 << 20),
        "max.partition.fetch.bytes": partition_fetch_bytes,
    }
    if protocol == "classic":
        settings["partition.assignment.strategy"] = "cooperative-sticky"
    settings |= consumer_config(config)
    if protocol == "classic":
        session = session_ms(settings, poll_interval_max_ms=max_poll_interval_s * 1000)
        settings.setdefault("session.timeout.ms", int(session))
        settings.setdefault("heartbeat.interval.ms", max(min(heartbeat_ms, int(session / heartbeats_min)), 1))
    longest = max(
        int(settings[name]) for name in ("fetch.max.bytes", "message.max.bytes") if name in settings
    )
    settings.setdefault("receive.message.max.bytes", longest + (1 << 20))
    if single_batches_s is not None:
        settings |= {
            "max.partition.fetch.bytes": 1,  # a broker gives the first batch whole all the same
            "queued.min.messages": 1,
            "fetch.queue.backoff.ms": int(single_batches_s * 1000),
        }
    return settings | {
        "group.id": group,
        "group.protocol": protocol,
        "max.poll.interval.ms": int(max_poll_interval_s * 1000),
        "auto.offset.reset": "error",
    }


def member_id(metadata: object) -> str:
    """The member id inside the same bytes: behind the generation stand the group's name and the id, each with a zero at its end."""
    if not isinstance(metadata, bytes) or not metadata.startswith(b"CGMDv2:"):
        raise InvariantError("the client's group metadata has a form this release does not know")
    return metadata[11:].split(b"\0")[1].decode()


def generation(metadata: object) -> int:
    """The generation (classic) or member epoch (consumer protocol) inside the client's serialised group metadata.

    librdkafka writes a tag, the generation as a native 32-bit number, then names. Python sees only these bytes, and
    they are made without an error for a member that has not joined.
    """
    if not isinstance(metadata, bytes) or not metadata.startswith(b"CGMDv2:"):
        raise InvariantError("the client's group metadata has a form this release does not know")
    return int.from_bytes(metadata[7:11], sys.byteorder, signed=True)
