"""Finds the record that kills its worker: notes that outlive the process, and trials of the suspects one by one."""

import json
import mmap
import os
import signal
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.records import Records

_header = struct.Struct("<q")
_entry = struct.Struct("<qqq")
_entries_max = 512
_suspects_max = 256
_condemned_max = 10_000

fault_signals = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""A process dies of these by its own doing; SIGKILL may come from anybody, so it proves less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Offsets from `first` to before `next` of one partition."""

    partition: int
    first: int
    next: int

    @property
    def single(self) -> bool:
        """Whether it is one record."""
        return self.next - self.first == 1


class InFlightLog:
    """A small file that says which records a process is computing; it can be read after the process died of them."""

    def __init__(self, path: Path) -> None:
        size = _header.size + _entries_max * _entry.size
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.clear()

    def write(self, ranges: Sequence[Range]) -> None:
        """These are in hand now. A very scattered batch is noted by as many ranges as fit."""
        self.clear()
        kept = ranges[:_entries_max]
        for place, r in enumerate(kept):
            _entry.pack_into(self._map, _header.size + place * _entry.size, r.partition, r.first, r.next)
        _header.pack_into(self._map, 0, len(kept))

    def clear(self) -> None:
        """Nothing is in hand."""
        _header.pack_into(self._map, 0, 0)


def read_note(path: Path) -> list[Range]:
    """What the process that wrote the note had in hand when it ended."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    (count,) = _header.unpack_from(data)
    entries = (_entry.unpack_from(data, _header.size + place * _entry.size) for place in range(count))
    return [Range(partition=partition, first=first, next=next_) for partition, first, next_ in entries]


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
        self._write()

    def worker_died(self, in_hand: Sequence[Range], *, by_signal: int) -> list[Range]:
        """Learn from a death; the records condemned by it."""
        condemned = []
        for r in in_hand:
            if not r.single:
                self._suspects.append(r)
                continue
            self._killed_alone[r] = self._killed_alone.get(r, 0) + 1
            suspected = any(
                s.partition == r.partition and s.first <= r.first < s.next for s in self._suspects
            )
            deaths = self._killed_alone[r] + (1 if suspected and by_signal in fault_signals else 0)
            if deaths >= 2:
                self._condemned.append(r)
                condemned.append(r)
                del self._killed_alone[r]
            else:
                self._suspects.append(r)
        self._write()
        return condemned

    def _write(self) -> None:
        tree = {
            "suspects": [[r.partition, r.first, r.next] for r in self._suspects],
            "condemned": [[r.partition, r.first] for r in self._condemned],
        }
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(tree))
        aside.replace(self._path)


class Isolation:
    """The worker's side: notes what is in hand, tries suspects alone before their batch, knows the condemned."""

    def __init__(self, *, note: InFlightLog, verdicts: Path) -> None:
        self._note = note
        self._verdicts = verdicts
        self._suspects: list[Range] = []
        self._condemned: dict[int, set[int]] = {}
        self.reload()

    def reload(self) -> None:
        """Read the supervisor's verdicts again; to be called on every rebalance, when a record may move here."""
        try:
            tree = json.loads(self._verdicts.read_text())
        except FileNotFoundError:
            return
        self._suspects = [Range(partition=p, first=first, next=next_) for p, first, next_ in tree["suspects"]]
        condemned: dict[int, set[int]] = {}
        for partition, offset in tree["condemned"]:
            condemned.setdefault(partition, set()).add(offset)
        self._condemned = condemned

    def condemned(self, records: Records) -> Sequence[int]:
        """Places of the records that are not to be computed again."""
        if not self._condemned:
            return ()
        pairs = zip(records.partitions.tolist(), records.offsets.tolist(), strict=True)
        return [place for place, (p, offset) in enumerate(pairs) if offset in self._condemned.get(p, ())]

    def guard(self, score: Callable[[Records], Outcome]) -> Callable[[Records], Outcome]:
        """The same function, leaving a note while it works."""

        def guarded(records: Records) -> Outcome:
            if self._suspects:
                self._try_suspects(records, score)
            self._note.write(_ranges(records))
            outcome = score(records)
            self._note.clear()
            return outcome

        return guarded

    def _try_suspects(self, records: Records, score: Callable[[Records], Outcome]) -> None:
        condemned = set(self.condemned(records))
        for place in self._suspect_places(records):
            if place in condemned:
                continue
            alone = records.take(np.array([place], dtype=np.int64))
            self._note.write(_ranges(alone))
            score(alone)
        self._note.clear()
        seen = {r.partition: r for r in _ranges(records)}
        self._suspects = [
            s for s in self._suspects if not (s.partition in seen and s.next <= seen[s.partition].next)
        ]

    def _suspect_places(self, records: Records) -> Iterable[int]:
        chosen = np.zeros(len(records), dtype=np.bool_)
        for s in self._suspects:
            mine = (
                (records.partitions == s.partition)
                & (records.offsets >= s.first)
                & (records.offsets < s.next)
            )
            chosen |= mine
        return [int(place) for place in np.flatnonzero(chosen)]


def _ranges(records: Records) -> list[Range]:
    partitions: NDArray[np.int32] = records.partitions
    ranges = []
    for partition in np.unique(partitions).tolist():
        theirs = records.offsets[partitions == partition]
        ranges.append(Range(partition=partition, first=int(theirs[0]), next=int(theirs[-1]) + 1))
    return ranges
