"""What workers are called: their names in a group, and the transactional ids that are theirs alone."""

import os
import re
import socket
from collections.abc import Mapping

from penstock.engine.settings.kafka import KafkaSettings


def worker_name(group: str, slot: int, environ: Mapping[str, str] = os.environ) -> str:
    """Stable across restarts of the same place: group, identity (PENSTOCK_IDENTITY, else the host's name) and slot."""
    return f"{group}-{environ.get('PENSTOCK_IDENTITY') or socket.gethostname()}-{slot}"


def transactional_id(group: str, worker: str, use: str) -> str:
    """The id of a worker of the group, by its name, for one `use`, a word of letters: no other group's worker has it.

    Read from the right, an id is a use, a slot, an identity and a group, as long as the identity has no hyphen: then it is what it
    always was. Where it has one, group `fraud` with identity `eu-1` would have the id of group `fraud-eu` with identity `1`,
    and each would fence the other: so the length of the group's name stands at the end. All of them begin with the group's name
    and a hyphen, as the permissions on them say.
    """
    identity, _, _ = worker.removeprefix(f"{group}-").rpartition("-")
    return f"{worker}-{use}-{len(group)}" if "-" in identity else f"{worker}-{use}"


def is_worker(client_id: str, kafka: KafkaSettings) -> bool:
    """Whether a member of the group is a worker, by the client id that it goes by; else it is another program's."""
    if client_id == str(kafka.client.get("client.id", "")):
        return bool(client_id)
    return re.fullmatch(f"{re.escape(kafka.group)}-.+-[0-9]+", client_id, re.DOTALL) is not None
