"""Finds the record that kills its worker: notes that outlive the process, and trials of the suspects one by one."""

import json
import mmap
import os
import signal
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.engine.pipeline.offsets import stretches
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records

_header = struct.Struct("<qdddd32s")
"""Entries; number of the batch in hand, its bound, the loop's beat, 1 when warm; the topic's id."""
_whole, _number = struct.Struct("<q"), struct.Struct("<d")
_batch_at, _bound_at, _beat_at, _warm_at, _topic_at = 8, 16, 24, 32, 40
_topic_id = struct.Struct("32s")
_entry = struct.Struct("<qqq")
_entries_max = 512
_suspects_max = 256
_condemned_max = 10_000

library_signals = frozenset({signal.SIGABRT, signal.SIGSEGV})
"""A client library that meets what it does not expect dies of these, while some other record is in hand or none."""
fault_signals = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""A process dies of these by its own doing; SIGKILL may come from anybody, so it proves less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Offsets from `first` to before `next` of one partition."""

    partition: int
    first: int
    next: int
    topic_id: str | None = None  # an offset is another record in a topic that was made anew; None: not known

    def is_of(self, topic_id: str | None) -> bool:
        """Whether its offsets are those of this topic, as far as is known."""
        return self.topic_id is None or topic_id is None or self.topic_id == topic_id

    @property
    def single(self) -> bool:
        """Whether it is one record."""
        return self.next - self.first == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Vitals:
    """What a worker's note says of its life, whether it still lives or not."""

    ranges: tuple[Range, ...] = ()  # in hand now
    batch: float = 0.0  # which batch: it goes up with each
    bound_s: float = 0.0  # how long one may be in hand; 0 until the worker is warm
    beat: float = 0.0  # goes up while the polling loop turns
    warm: bool = False


class InFlightLog:
    """A small file that says which records a process is computing; it can be read after the process died of them.

    Where the file cannot be had (no space, no permission) the worker goes on without: `kept` is then false, and why in `fault`.
    """

    def __init__(self, path: Path) -> None:
        size = _header.size + _entries_max * _entry.size
        self.fault = ""
        self._batch, self._beat = 0.0, 0.0
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                # Not ftruncate: a hole that finds no space later is a SIGBUS in the middle of the stream.
                os.posix_fallocate(descriptor, 0, size)
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.fault = error.strerror or str(error)
            self._map = mmap.mmap(-1, size)
        self.clear()

    @property
    def kept(self) -> bool:
        """Whether anybody else can read it."""
        return not self.fault

    def write(self, ranges: Sequence[Range]) -> None:
        """These are in hand now. A very scattered batch is noted by as many ranges as fit."""
        self.clear()
        kept = ranges[:_entries_max]
        for place, r in enumerate(kept):
            _entry.pack_into(self._map, _header.size + place * _entry.size, r.partition, r.first, r.next)
        topic_id = (kept[0].topic_id or "") if kept else ""
        _topic_id.pack_into(self._map, _topic_at, topic_id.encode())
        self._batch += 1
        _number.pack_into(self._map, _batch_at, self._batch)
        _whole.pack_into(self._map, 0, len(kept))

    def clear(self) -> None:
        """Nothing is in hand."""
        _whole.pack_into(self._map, 0, 0)

    def warm(self, *, bound_s: float) -> None:
        """The model is warm; from now on one batch may be in hand for so long."""
        _number.pack_into(self._map, _bound_at, bound_s)
        _number.pack_into(self._map, _warm_at, 1.0)

    def beat(self) -> None:
        """The polling loop turns. On another thread than the rest, so it touches its own place alone."""
        self._beat += 1
        _number.pack_into(self._map, _beat_at, self._beat)


def read_vitals(path: Path) -> Vitals:
    """What the process that writes the note has in hand, or had when it ended; nothing where there is no note."""
    try:
        data = path.read_bytes()
        count, batch, bound_s, beat, warm, topic = _header.unpack_from(data)
        entries = [
            _entry.unpack_from(data, _header.size + place * _entry.size)
            for place in range(min(count, _entries_max))
        ]
    except (OSError, struct.error):
        return Vitals()
    topic_id = topic.rstrip(b"\0").decode(errors="replace") or None
    ranges = tuple(
        Range(partition=partition, first=first, next=next_, topic_id=topic_id)
        for partition, first, next_ in entries
    )
    return Vitals(ranges=ranges, batch=batch, bound_s=bound_s, beat=beat, warm=warm > 0)


def read_note(path: Path) -> list[Range]:
    """What the process that wrote the note had in hand when it ended."""
    return list(read_vitals(path).ranges)


class CarefulPlaces:
    """Where a careful worker found what, for the supervisor that is to say so when it dies all the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, tuple[int, str]] = {}

    def note(self, partition: int, offset: int, what: str) -> bool:
        """Whether this is new."""
        if self._places.get(partition) == (offset, what):
            return False
        self._places[partition] = offset, what
        with suppress(OSError):  # no space: then the supervisor names no place, and the worker's own log does
            self._path.write_text(json.dumps(self._places))
        return True


def read_careful_places(path: Path) -> dict[int, tuple[int, str]]:
    """Offset and what was found there, by partition; nothing where there is no such note."""
    try:
        return {int(p): (offset, what) for p, (offset, what) in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        return {}


class Quarantine:
    """The supervisor's judgement: which records are suspects, and which are set aside for good.

    A record is condemned when a worker died with it in hand twice, the second time alone: for a fault of the process once
    in company and once alone, for SIGKILL (which may come from outside) twice alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._suspects: deque[Range] = deque(maxlen=_suspects_max)
        self._condemned: deque[Range] = deque(maxlen=_condemned_max)
        self._killed_alone: dict[Range, int] = {}
        self.fault = ""
        self.write()

    def worker_died(self, in_hand: Sequence[Range], *, by_signal: int) -> list[Range]:
        """Learn from a death; the records condemned by it."""
        condemned = []
        for r in in_hand:
            if not r.single:
                self._suspects.append(r)
                continue
            self._killed_alone[r] = self._killed_alone.get(r, 0) + 1
            suspected = any(
                s.partition == r.partition and s.first <= r.first < s.next and s.is_of(r.topic_id)
                for s in self._suspects
            )
            deaths = self._killed_alone[r] + (1 if suspected and by_signal in fault_signals else 0)
            if deaths >= 2:
                self._condemned.append(r)
                condemned.append(r)
                del self._killed_alone[r]
            else:
                self._suspects.append(r)
        self.write()
        return condemned

    def write(self) -> None:
        """Tell the workers. Where the file cannot be written `fault` says why, and the caller tries again later."""
        tree = {
            "suspects": [[r.partition, r.first, r.next, r.topic_id] for r in self._suspects],
            "condemned": [[r.partition, r.first, r.topic_id] for r in self._condemned],
        }
        aside = self._path.with_suffix(".new")
        try:
            aside.write_text(json.dumps(tree))
            aside.replace(self._path)
        except OSError as error:
            self.fault = error.strerror or str(error)
        else:
            self.fault = ""


class Isolation:
    """The worker's side: notes what is in hand, tries suspects alone before their batch, knows the condemned."""

    def __init__(
        self, *, note: InFlightLog, verdicts: Path, in_hand: Callable[[bool], None] = lambda _: None
    ) -> None:
        """`in_hand` is told, on the thread that computes, when records are taken in hand and when they are done."""
        self._note = note
        self._in_hand = in_hand
        self._verdicts = verdicts
        self._suspects: list[Range] = []
        self._condemned: dict[int, dict[int, Range]] = {}  # by partition and offset
        self.reload()

    def reload(self) -> None:
        """Read the supervisor's verdicts again; to be called on every rebalance, when a record may move here."""
        try:
            tree = json.loads(self._verdicts.read_text())
        except (OSError, ValueError):  # none yet, or no space when it was written: those known stay
            return
        self._suspects = [
            Range(partition=p, first=first, next=next_, topic_id=topic_id)
            for p, first, next_, topic_id in tree["suspects"]
        ]
        condemned: dict[int, dict[int, Range]] = {}
        for partition, offset, topic_id in tree["condemned"]:
            found = Range(partition=partition, first=offset, next=offset + 1, topic_id=topic_id)
            condemned.setdefault(partition, {})[offset] = found
        self._condemned = condemned

    def condemned(self, records: Records) -> Sequence[int]:
        """Places of the records that are not to be computed again."""
        if not self._condemned:
            return ()
        pairs = zip(records.partitions.tolist(), records.offsets.tolist(), strict=True)
        topic_id = records.topic_id
        return [
            place
            for place, (p, offset) in enumerate(pairs)
            if (found := self._condemned.get(p, {}).get(offset)) is not None and found.is_of(topic_id)
        ]

    def guard(self, score: Callable[[Records], Outcome]) -> Callable[[Records], Outcome]:
        """The same function, leaving a note while it works."""

        def guarded(records: Records) -> Outcome:
            if self._suspects:
                self._try_suspects(records, score)
            return self._noted(records, score)

        return guarded

    def _noted(self, records: Records, score: Callable[[Records], Outcome]) -> Outcome:
        self._note.write(_ranges(records))
        self._in_hand(True)
        try:
            outcome = score(records)
        except UnavailableError:  # these are given again later, and in nobody's hand until then
            self._note.clear()
            raise
        finally:
            self._in_hand(False)
        self._note.clear()
        return outcome

    def _try_suspects(self, records: Records, score: Callable[[Records], Outcome]) -> None:
        condemned = set(self.condemned(records))
        for place in self._suspect_places(records):
            if place in condemned:
                continue
            alone = records.take(np.array([place], dtype=np.int64))
            self._noted(alone, score)
        seen = {r.partition: r for r in _ranges(records)}
        self._suspects = [
            s for s in self._suspects if not (s.partition in seen and s.next <= seen[s.partition].next)
        ]

    def _suspect_places(self, records: Records) -> Iterable[int]:
        chosen = np.zeros(len(records), dtype=np.bool_)
        for s in self._suspects:
            if not s.is_of(records.topic_id):
                continue
            mine = (
                (records.partitions == s.partition)
                & (records.offsets >= s.first)
                & (records.offsets < s.next)
            )
            chosen |= mine
        return [int(place) for place in np.flatnonzero(chosen)]


def _ranges(records: Records) -> list[Range]:
    return [
        Range(partition=each.partition, first=each.first, next=each.last + 1, topic_id=records.topic_id)
        for each in stretches(records)
    ]
