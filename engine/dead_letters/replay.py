"""Dead letters back to where their records came from, each once."""

import base64
import hashlib
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from penstock.engine.dead_letters.letters import LetterFilter, Log, Stored, unreadable_named_max
from penstock.engine.dead_letters.message import DeadLetter, DeadLetterReader
from penstock.schemas.errors import PenstockError, RecordError
from penstock.schemas.reasons import Reason

replayed_header: Final = "penstock-replayed-from"
note_characters_max: Final = 4000
"""A broker keeps 4,096 characters beside a committed offset."""
batch_letters_max: Final = 500
batch_bytes_max: Final = 8 << 20

_note_version: Final = "r1:"


class Origin(Protocol):
    """The topic that letters are about, to be looked into."""

    def partitions(self) -> Collection[int]:
        """The partitions that it has. Raises UnavailableError."""

    def one(self, partition: int, offset: int) -> Stored | None:
        """The message at this place; None when it is gone. Raises UnavailableError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What is put back."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Returns(Protocol):
    """Puts messages back, and remembers beside them which letters they came from: both or neither."""

    def claim(self) -> None:
        """From here on nobody else puts back under our name; what another left half done is undone first."""

    def notes(self) -> Mapping[int, tuple[int, str]]:
        """Per partition of the dead-letter topic: the committed offset and the note beside it."""

    def put(self, messages: Sequence[Message], notes: Mapping[int, tuple[int, str]]) -> Collection[int]:
        """Send all and commit the notes, in one transaction. Places of messages that come back are too long for the topic,
        or went with such a one; then nothing was done. Raises UnavailableError, ConfigError or FencedError."""


class Offsets:
    """A set of offsets as ranges, and as a commit: the offset below which all are in, and a note of the others."""

    def __init__(self, position: int = 0, note: str = "") -> None:
        """What `commit` gave. Raises PenstockError for a note of another making."""
        self._bounds = (
            [0, position] if position > 0 else []
        )  # start, end (exclusive), start, end, ...; ascending
        for start, end in _read_note(note):
            self.put(position + start, position + end)

    def __contains__(self, offset: int) -> bool:
        return bisect_right(self._bounds, offset) % 2 == 1

    def copy(self) -> "Offsets":
        """The same offsets, to be added to by themselves."""
        other = Offsets()
        other._bounds = self._bounds.copy()
        return other

    def put(self, start: int, end: int) -> None:
        """Put in start up to, not including, end."""
        if start >= end:
            return
        first, last = bisect_left(self._bounds, start), bisect_right(self._bounds, end)
        self._bounds[first:last] = [start] * (first % 2 == 0) + [end] * (last % 2 == 0)

    def commit(self) -> tuple[int, str]:
        """The position and the note."""
        bounds = self._bounds
        position = bounds[1] if bounds and bounds[0] == 0 else 0
        rest = bounds[2:] if position else bounds
        return position, _write_note([bound - position for bound in rest])


@dataclass(kw_only=True)
class Replay:
    """What a replay did, or would do."""

    replayed: int = 0
    already: int = 0  # put back by an earlier replay
    foreign: int = 0  # of another input topic, or of a partition that it does not have
    gone: int = 0  # no bytes to put back: left at the source and not there any more, or never readable
    unreadable: int = 0
    refused: int = 0  # longer than the input topic takes
    refused_first: list[tuple[int, int]] = field(default_factory=list)  # where the first few of them lie
    by_reason: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Put:
    """A letter whose record is to be put back; done, the offsets from `start` to its own are."""

    partition: int
    start: int
    offset: int
    reason: str
    message: Message


class _Putting:
    """Puts records back in groups, and remembers which letters they came from."""

    def __init__(self, returns: Returns, done: Mapping[int, Offsets], report: Replay) -> None:
        self._returns = returns
        self._done = done
        self._report = report

    def put(self, some: Sequence[_Put]) -> None:
        """All of them; one that the topic does not take is named, and the rest goes on."""
        refused = self._try(some)
        if not refused:
            return
        if len(some) == 1:
            self._report.refused += 1
            if len(self._report.refused_first) < unreadable_named_max:
                self._report.refused_first.append((some[0].partition, some[0].offset))
            return
        rest = [each for place, each in enumerate(some) if place not in refused]
        if rest:
            self.put(rest)
        for place in sorted(refused):
            self.put([some[place]])

    def _try(self, some: Sequence[_Put]) -> Collection[int]:
        trial = {partition: self._done[partition].copy() for partition in {each.partition for each in some}}
        for each in some:
            trial[each.partition].put(each.start, each.offset + 1)
        notes = {partition: offsets.commit() for partition, offsets in trial.items()}
        if max(len(note) for _, note in notes.values()) > note_characters_max:
            raise PenstockError(
                "what was replayed lies too scattered to be remembered; replay a whole reason or partition first"
            )
        refused = self._returns.put([each.message for each in some], notes)
        if not refused:
            for each in some:
                self._done[each.partition].put(each.start, each.offset + 1)
                self._report.by_reason[each.reason] += 1
            self._report.replayed += len(some)
        return refused


def replay(
    log: Log,
    source: Origin,
    returns: Returns,
    wanted: LetterFilter,
    *,
    topic: str,
    again: bool,
    dry_run: bool,
) -> Replay:
    """Put the letters meant back on the input topic: original key, bytes, headers and partition, one header more.

    Exactly once: what was put back is noted in the same transaction, so a replay that was cut short goes on where it
    stopped, and a second one does nothing unless `again`. `log` is the dead-letter topic, `source` the input topic. Raises
    UnavailableError, ConfigError, FencedError, and PenstockError when there is too much to remember.
    """
    report = Replay()
    if not dry_run:
        returns.claim()
    done = {partition: Offsets(*committed) for partition, committed in returns.notes().items()}
    reader, there = DeadLetterReader(), frozenset(source.partitions())
    before: dict[int, int] = {}  # the message before, per partition: between two messages lie only markers
    waiting: list[_Put] = []
    waiting_bytes = 0
    putting = _Putting(returns, done, report)

    def flush() -> None:
        nonlocal waiting_bytes
        waiting_bytes = 0
        if dry_run:
            report.by_reason.update(each.reason for each in waiting)
            report.replayed += len(waiting)
        elif waiting:
            putting.put(waiting)
        waiting.clear()

    for stored in log.read():
        partition, offset = stored.partition, stored.offset
        seen = done.setdefault(partition, Offsets())
        start = offset
        if partition not in before:
            seen.put(0, offset)  # what was there is gone
        elif before[partition] in seen or (
            waiting and (waiting[-1].partition, waiting[-1].offset) == (partition, before[partition])
        ):
            start = before[partition] + 1
        before[partition] = offset
        try:
            letter = reader.read(stored.value or b"")
        except RecordError:
            report.unreadable += 1
            continue
        if offset in seen:
            seen.put(start, offset + 1)
        if not wanted.matches(letter):
            continue
        if letter.source.topic != topic or letter.source.partition not in there:
            report.foreign += 1
        elif offset in seen and not again:
            report.already += 1
        elif (message := _message(letter, stored.key, source)) is None:
            report.gone += 1
        else:
            waiting.append(
                _Put(partition=partition, start=start, offset=offset, reason=letter.reason, message=message)
            )
            waiting_bytes += len(message.value or b"")
            if len(waiting) == batch_letters_max or waiting_bytes > batch_bytes_max:
                flush()
    flush()
    return report


def _message(letter: DeadLetter, key: bytes | None, source: Origin) -> Message | None:
    """The record as it was; None when it is nowhere any more."""
    if (
        letter.reason == Reason.UNREADABLE
    ):  # it stands for a range of offsets, and was no record without a value
        return None
    payload, headers, at = letter.payload, letter.headers, letter.source
    if letter.elsewhere is not None or letter.key_elsewhere is not None:
        original = source.one(at.partition, at.offset)
        if original is None or not _same(original, letter):
            return None
        key, payload, headers = original.key, original.value, tuple(original.headers)
    came_from = f"{at.topic}/{at.partition}/{at.offset}".encode()
    return Message(
        partition=at.partition, key=key, value=payload, headers=(*headers, (replayed_header, came_from))
    )


def _same(original: Stored, letter: DeadLetter) -> bool:
    """Whether a message is the one of which payload, key or both were left at the source."""
    return all(
        left is None or hashlib.sha256(there or b"").hexdigest() == left.sha256
        for left, there in ((letter.elsewhere, original.value), (letter.key_elsewhere, original.key))
    )


def _write_note(bounds: Sequence[int]) -> str:
    """Ascending numbers in few characters."""
    if not bounds:
        return ""
    out = bytearray()
    for bound, previous in zip(bounds, [0, *bounds], strict=False):
        step = bound - previous
        while step >= 0x80:
            out.append(step & 0x7F | 0x80)
            step >>= 7
        out.append(step)
    return _note_version + base64.b85encode(zlib.compress(bytes(out), 9)).decode()


def _read_note(note: str) -> Iterable[tuple[int, int]]:
    """The ranges in a note. Raises PenstockError."""
    if not note:
        return []
    try:
        if not note.startswith(_note_version):
            raise ValueError(note[:10])
        packed = zlib.decompress(base64.b85decode(note.removeprefix(_note_version)))
    except (ValueError, zlib.error) as error:
        raise PenstockError(
            "the note beside the replay group's offset was not written by this version"
        ) from error
    bounds, bound, step, shift = [], 0, 0, 0
    for byte in packed:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            bound += step
            bounds.append(bound)
            step = shift = 0
    return list(zip(bounds[::2], bounds[1::2], strict=True))
