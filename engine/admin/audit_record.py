"""A record of the audit: what it says, and the chain that it hangs in."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson

Event = Literal["started", "refused", "allowed", "done", "failed", "unrecorded", "stopped"]
"""allowed stands before an action, done or failed behind it; unrecorded counts refusals that came too fast for a record each."""

format_version: Final = 1
first_previous: Final = "0" * 64


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditFacts:
    """What happened. All of it is ours or bounded; nothing of a refused request but its path and where it came from."""

    event: Event
    action: str = ""
    target: Mapping[str, Any] = field(default_factory=dict)
    who: str = ""
    way: str = ""
    role: str = ""
    origin: str = ""
    """Address that the request came from."""
    code: str = ""
    reason: str = ""
    count: int = 1


class Chain:
    """Makes records, each of which holds the hash of the one before. Not thread-safe: the caller holds a lock."""

    def __init__(self, name: str, *, key: bytes | None) -> None:
        """`name`: of this chain alone. `key`: then the hashes are HMACs, and nobody without it can write a chain anew."""
        self.name = name
        self._key = key
        self._number = 0
        self._previous = first_previous

    def next(self, facts: AuditFacts, at_ms: int) -> tuple[bytes, str]:
        """The next record's bytes, and its hash in hex."""
        body = {
            **asdict(facts),
            "format": format_version,
            "chain": self.name,
            "number": self._number,
            "previous": self._previous,
            "at_ms": at_ms,
            "keyed": self._key is not None,
        }
        digest = hash_of(body, self._key)
        self._number += 1
        self._previous = digest
        return canonical(body | {"hash": digest}), digest


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one way to write a record."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def hash_of(body: Mapping[str, Any], key: bytes | None) -> str:
    """Over everything but `hash` itself."""
    data = canonical({name: value for name, value in body.items() if name != "hash"})
    return (
        hmac.new(key, data, hashlib.sha256).hexdigest()
        if key is not None
        else hashlib.sha256(data).hexdigest()
    )
