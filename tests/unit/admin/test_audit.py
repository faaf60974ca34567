"""The audit's chain: whole when it is as it was written, and every alteration named by its place."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from penstock.engine.admin.audit_record import AuditFacts, Chain, Event, canonical, hash_of
from penstock.engine.admin.audit_verify import Finding, Stored, verify

key = b"k" * 32


def written(count: int = 40, *, keyed: bool = True, chains: int = 2) -> list[Stored]:
    """A topic of two partitions, in which several supervisors wrote."""
    made = [Chain(f"app-{number}", key=key if keyed else None) for number in range(chains)]
    messages: list[Stored] = []
    for number in range(count):
        chain = number % chains
        event: Event = "started" if number < chains else "stopped" if number >= count - chains else "refused"
        value, _ = made[chain].next(
            AuditFacts(event=event, action="drain", origin=f"10.0.0.{number}"), 1000 + number
        )
        messages.append(Stored(partition=chain, offset=number // chains, value=value))
    return messages


def rewritten(message: Stored, *, rehash: bytes | str | None = "no", **changes: object) -> Stored:
    body = json.loads(message.value or b"") | changes
    if rehash != "no":
        assert not isinstance(rehash, str)
        body["hash"] = hash_of(body, rehash)
    return Stored(partition=message.partition, offset=message.offset, value=canonical(body))


def renumbered(messages: list[Stored]) -> list[Stored]:
    """As a topic that was written anew would number them."""
    counts: dict[int, int] = {}
    again = []
    for each in messages:
        offset = counts.get(each.partition, 0)
        counts[each.partition] = offset + 1
        again.append(Stored(partition=each.partition, offset=offset, value=each.value))
    return again


Alteration = Callable[[list[Stored], random.Random], tuple[list[Stored], set[tuple[int, int]]]]
"""An altered topic, and the places at one of which it has to be named."""


def changed(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(len(messages))
    field, value = chance.choice([
        ("who", "somebody"), ("action", "pause"), ("at_ms", 5), ("event", "done"), ("origin", ""), ("count", 9), ("previous", "1" * 64),
        ("hash", "2" * 64), ("number", 77), ("keyed", False), ("chain", "app-9"), ("target", {"x": 1}), ("code", "ok"),
    ])  # fmt: skip
    other: dict[str, Any] = {field: value}
    messages[at] = rewritten(messages[at], **other)
    return messages, places(messages, at)


def bytes_changed(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(len(messages))
    value = bytearray(messages[at].value or b"")
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    messages[at] = Stored(partition=messages[at].partition, offset=messages[at].offset, value=bytes(value))
    return messages, places(messages, at)


def spaced(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(len(messages))
    value = (messages[at].value or b"").replace(b",", b", ", 1)
    messages[at] = Stored(partition=messages[at].partition, offset=messages[at].offset, value=value)
    return messages, places(messages, at)


def removed(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(2, len(messages) - 2)  # the ends of chains have tests of their own
    gone = messages.pop(at)
    after = next(n for n in range(at, len(messages)) if messages[n].partition == gone.partition)
    messages = renumbered(messages)
    return messages, places(messages, after)


def emptied(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(len(messages))
    messages[at] = Stored(partition=messages[at].partition, offset=messages[at].offset, value=None)
    return messages, places(messages, at)


def repeated(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(len(messages))
    messages = renumbered([*messages[: at + 1], messages[at], *messages[at + 1 :]])
    return messages, places(messages, at + 1)


def swapped(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(2, len(messages) - 4)
    other = at + 2  # the next of the same chain
    messages[at], messages[other] = messages[other], messages[at]
    return renumbered(messages), places(messages, at)


def put_in(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(1, len(messages))
    false, _ = Chain(f"app-{messages[at].partition}", key=b"x" * 32).next(
        AuditFacts(event="done", action="drain"), 7
    )
    messages = renumbered(
        [*messages[:at], Stored(partition=messages[at].partition, offset=0, value=false), *messages[at:]]
    )
    return messages, places(messages, at)


def moved(messages: list[Stored], chance: random.Random) -> tuple[list[Stored], set[tuple[int, int]]]:
    at = chance.randrange(2, len(messages) - 2)
    each = messages.pop(at)
    there = Stored(partition=1 - each.partition, offset=0, value=each.value)
    messages = renumbered([*messages[:at], there, *messages[at:]])
    return messages, places(messages, at)


def places(messages: list[Stored], at: int) -> set[tuple[int, int]]:
    return {(messages[at].partition, messages[at].offset)}


alterations: list[Alteration] = [
    changed,
    bytes_changed,
    spaced,
    removed,
    emptied,
    repeated,
    swapped,
    put_in,
    moved,
]


@pytest.mark.parametrize("seed", range(100))
def test_every_alteration_is_named_at_its_place(seed: int) -> None:
    chance = random.Random(seed)
    alter = alterations[seed % len(alterations)]
    messages, where = alter(written(chance.choice([12, 40])), chance)
    found = verify(messages, key=key)
    named = {(each.partition, each.offset) for each in found.findings}
    assert not found.whole
    assert named & where, f"{alter.__name__}: {found.findings}"
    assert 3 * len(named) <= len(messages), "what was not altered is named as well"


@pytest.mark.parametrize("keyed", [True, False])
def test_what_was_not_altered_is_whole(keyed: bool) -> None:
    found = verify(written(keyed=keyed), key=key if keyed else None)
    assert found.whole
    assert found.findings == []
    assert all(chain.closed and chain.records == 20 for chain in found.chains.values())


def test_a_record_that_was_hashed_anew_without_the_key_shows_and_without_a_key_its_successor_does() -> None:
    keyed, plain = written(), written(keyed=False)
    keyed[10] = rewritten(keyed[10], rehash=None, who="nobody")
    assert places(keyed, 10) <= {(f.partition, f.offset) for f in verify(keyed, key=key).findings}
    plain[10] = rewritten(plain[10], rehash=None, who="nobody")
    assert [(f.partition, f.offset) for f in verify(plain, key=None).findings] == [
        (plain[12].partition, plain[12].offset)
    ]


def test_what_retention_took_from_the_front_is_no_alteration() -> None:
    found = verify(written()[14:], key=key)
    assert found.whole
    assert {chain.began_at for chain in found.chains.values()} == {7}


def in_one_partition(count: int = 40) -> list[Stored]:
    """As several supervisors write to a topic of one partition, each when it has something to say."""
    ordered = written(count)
    chance = random.Random(5)
    waiting = [[each for each in ordered if each.partition == chain] for chain in (0, 1)]
    messages: list[Stored] = []
    while any(waiting):
        each = chance.choice([queue for queue in waiting if queue]).pop(0)
        messages.append(Stored(partition=0, offset=len(messages), value=each.value))
    return messages


@pytest.mark.parametrize("front", range(1, 40))
def test_what_retention_took_of_several_chains_in_one_partition_is_no_alteration(front: int) -> None:
    assert verify(in_one_partition(), key=key).whole
    found = verify(in_one_partition()[front:], key=key)
    assert found.findings == []


@pytest.mark.parametrize("chain", [0, 1])
def test_a_missing_beginning_behind_the_front_is_named_by_its_offsets(chain: int) -> None:
    whole = in_one_partition()
    mine = [each for each in whole if json.loads(each.value or b"")["chain"].startswith(f"app-{chain}")]
    for front in (0, 3):
        gone = [each for each in mine if each.offset > front][:5]
        left = [each for each in whole if each.offset >= front and each not in gone]
        found = verify(left, key=key)
        assert not found.whole, (front, [each.offset for each in gone])


def test_a_chain_whose_beginning_was_removed_while_older_records_stay_is_named() -> None:
    old, _ = Chain("old", key=key).next(AuditFacts(event="started"), 1)
    messages = [Stored(partition=0, offset=0, value=old), *[m for m in written() if m.partition == 0][5:]]
    (finding,) = verify(renumbered(messages), key=key).findings
    assert finding == Finding(
        partition=0, offset=1, text="the 5 records before it are missing from the beginning of chain app-0"
    )


def test_a_cut_end_shows_as_an_open_chain_and_by_a_hash_from_the_log() -> None:
    messages = written()
    last = json.loads(messages[-1].value or b"")["hash"]
    assert verify(messages, key=key, holds=[last]).whole
    found = verify(messages[:-4], key=key, holds=[last])
    assert found.missing == [last]
    assert not found.whole
    assert not any(chain.closed for chain in verify(messages[:-4], key=key).chains.values())


def test_another_key_or_none_is_named() -> None:
    assert "give it with admin.audit_key_file" in verify(written(), key=None).findings[0].text
    assert "without the key" in verify(written(keyed=False), key=key).findings[0].text
    assert len(verify(written(), key=b"y" * 32).findings) == 40


def test_what_is_no_record_is_named() -> None:
    for value in (b"", b"{}", b"[1]", b"\xff", b'{"hash": 1}', None):
        (finding,) = verify([Stored(partition=3, offset=9, value=value)], key=None).findings
        assert (finding.partition, finding.offset, finding.text) == (3, 9, "is not a record of the audit")
