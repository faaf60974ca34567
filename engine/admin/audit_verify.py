"""Whether an audit is as it was written: each alteration by its place."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from penstock.engine.admin.audit_record import canonical, first_previous, format_version, hash_of

_fields: Final = {
    "format": int, "chain": str, "number": int, "previous": str, "at_ms": int, "keyed": bool, "hash": str, "event": str, "action": str,
    "target": dict, "who": str, "way": str, "role": str, "origin": str, "code": str, "reason": str, "count": int,
}  # fmt: skip
findings_max: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A message of the audit topic."""

    partition: int
    offset: int
    value: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What is not as it was written."""

    partition: int
    offset: int
    text: str


@dataclass(slots=True)
class ChainState:
    """How far a chain has been followed."""

    partition: int
    began_at: int
    number: int
    digest: str
    at_ms: int
    closed: bool
    records: int = 0


@dataclass(slots=True)
class Verified:
    """What was found in the whole topic."""

    records: int = 0
    chains: dict[str, ChainState] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    findings_left_out: int = 0
    missing: list[str] = field(default_factory=list)
    """Hashes that were asked for and are in no record."""

    @property
    def whole(self) -> bool:
        """Nothing was altered, as far as that can be told."""
        return not self.findings and not self.missing

    def find(self, where: Stored, text: str) -> None:
        """One more."""
        if len(self.findings) < findings_max:
            self.findings.append(Finding(partition=where.partition, offset=where.offset, text=text))
        else:
            self.findings_left_out += 1


def verify(messages: Iterable[Stored], *, key: bytes | None, holds: Iterable[str] = ()) -> Verified:
    """Follows every chain, in the order of each partition. `holds`: hashes, from a log, that have to be there.

    What retention took from the front of a partition is no alteration: where its first offsets are gone, any chain in it may begin
    late. Behind the front no offset is ever missing, since the topic is not compacted and its writers have no transactions.
    """
    found = Verified()
    asked = set(holds)
    fronts: dict[int, int] = {}  # the first offset that is left, by partition
    following: dict[int, int] = {}  # the offset that has to come next
    for message in messages:
        found.records += 1
        front = fronts.setdefault(message.partition, message.offset)
        expected = following.get(message.partition, message.offset)
        following[message.partition] = message.offset + 1
        if message.offset > expected:
            found.find(
                message, f"offsets {expected} to {message.offset - 1} of the partition are missing before it"
            )
        body, fault = _read(message.value, key)
        if body is None:
            found.find(message, fault)
        else:
            asked.discard(body["hash"])
            for text in _follow(found.chains, body, message, fault, front_is_gone=front > 0):
                found.find(message, text)
    found.missing = sorted(asked)
    return found


def _read(value: bytes | None, key: bytes | None) -> tuple[dict[str, Any] | None, str]:
    """A record's members, and what is wrong with it; None when it is none."""
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None, "is not a record of the audit"
    if not isinstance(body, dict) or body.keys() != _fields.keys() or not _typed(body):
        return None, "is not a record of the audit"
    if body["format"] != format_version:
        return None, f"has format {body['format']}, which this version does not know"
    if body["keyed"] and key is None:
        return body, "was chained with a key: give it with admin.audit_key_file"
    if not body["keyed"] and key is not None:
        return body, "was chained without the key"
    if hash_of(body, key) != body["hash"] or canonical(body) != value:
        return body, "was changed: its hash does not fit"
    return body, ""


def _typed(body: Mapping[str, Any]) -> bool:
    return all(type(body[name]) is kind for name, kind in _fields.items())


def _follow(
    chains: dict[str, ChainState],
    body: Mapping[str, Any],
    where: Stored,
    fault: str,
    *,
    front_is_gone: bool,
) -> Iterator[str]:
    """What is wrong with a record, and with its place in its chain."""
    if fault:
        yield fault
    number = body["number"]
    state = chains.get(body["chain"])
    if state is None:
        if number and not front_is_gone and not fault:
            yield f"the {number} records before it are missing from the beginning of chain {body['chain']}"
        elif not number and body["previous"] != first_previous:
            yield "is the first of its chain and follows another"
        chains[body["chain"]] = ChainState(
            partition=where.partition, began_at=number, number=number, digest=body["hash"], at_ms=body["at_ms"],
            closed=body["event"] == "stopped", records=1,
        )  # fmt: skip
        return
    expected = state.number + 1
    if where.partition != state.partition:
        yield f"is in another partition than the rest of its chain ({state.partition})"
    elif number > expected:
        yield f"records {expected} to {number - 1} of its chain are missing before it"
    elif number < expected:
        yield f"is number {number} of its chain and stands behind number {state.number}: moved, or there twice"
    elif body["previous"] != state.digest:
        yield f"does not follow number {state.number} of its chain: that one was exchanged"
    elif state.closed:
        yield "stands behind the last record of its chain"
    state.records += 1
    if number >= expected:
        state.number, state.digest = number, body["hash"]
        state.closed = body["event"] == "stopped"
