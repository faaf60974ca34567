"""Partitions in memory: an append-only log with transactions and a last stable offset."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.records import Headers, Records, no_headers

merge_records_max = 256  # records appended one by one share chunks up to this size
marker_bytes = 80
_no_offsets = np.empty(0, np.int64)


class State(Enum):
    """How a transaction stands."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of one producer: what it touched, and what it will commit to a group."""

    began_s: float
    state: State = State.OPEN
    logs: list["PartitionLog"] = field(default_factory=list)
    offsets: dict[tuple[str, str, int], int] = field(default_factory=dict)  # (group, topic, partition)
    topic_id: str | None = None  # which topic of that name the offsets are of


@dataclass(slots=True, eq=False)
class _Chunk:
    first: int
    size: int  # offsets taken
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[Headers] | None
    transaction: Transaction | None
    stored_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What a read found: columns of equal length, and where to read on (further than the last record after a gap)."""

    offsets: NDArray[np.int64]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]  # empty when no record has any
    position: int


class OutOfRangeError(Exception):
    """The position asked for is not on the log."""


class PartitionLog:
    """One partition. Not thread-safe: the broker's lock guards it.

    Promises: offsets ascend and never repeat; a committed read sees no record of an open or aborted transaction and
    none after the first open one; beyond `retention_bytes` the oldest chunks are deleted, and `earliest` moves up.
    """

    def __init__(self, retention_bytes: int) -> None:
        self._retention_bytes = retention_bytes
        self._stored_bytes = 0
        self._chunks: list[_Chunk] = []
        self._firsts: list[int] = []
        self.earliest = 0
        self.end = 0

    @property
    def stable_end(self) -> int:
        """Where the first open transaction begins, or the end."""
        return next(
            (c.first for c in self._chunks if c.transaction and c.transaction.state is State.OPEN), self.end
        )

    def append(
        self,
        *,
        keys: list[bytes | None],
        values: list[bytes | None],
        timestamps_ms: list[int],
        headers: list[Headers] | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Add records; the offset of the first. The lists are kept: the caller lets go of them."""
        first, size = self.end, len(values)
        stored_bytes = sum(len(v) for v in values if v) + sum(len(k) for k in keys if k) + 64 * size
        last = self._chunks[-1] if self._chunks else None
        if (
            last is not None
            and last.transaction is transaction
            and last.headers is None
            and headers is None
            and 0 < len(last.values) + size <= merge_records_max
            and last.size == len(last.values)
            and last.stored_bytes + stored_bytes <= self._retention_bytes // 16  # chunks go as a whole
        ):
            last.keys += keys
            last.values += values
            last.timestamps_ms += timestamps_ms
            last.size += size
            last.stored_bytes += stored_bytes
        else:
            self._add(_Chunk(first, size, keys, values, timestamps_ms, headers, transaction, stored_bytes))
        if transaction is not None and self not in transaction.logs:
            transaction.logs.append(self)
        self.end += size
        self._stored_bytes += stored_bytes
        self._trim()
        return first

    def mark(self) -> None:
        """A control record, as the end of a transaction writes one: it takes an offset and is never read."""
        self._add(_Chunk(self.end, 1, [], [], [], None, None, marker_bytes))
        self.end += 1
        self._stored_bytes += marker_bytes
        self._trim()

    def read(self, position: int, records_max: int, *, committed_only: bool = True) -> Read:
        """Up to `records_max` records from `position` on. Raises OutOfRangeError."""
        if not self.earliest <= position <= self.end:
            raise OutOfRangeError(f"offset {position} is not in {self.earliest} to {self.end}")
        if position == self.end:
            return Read(
                offsets=_no_offsets, timestamps_ms=[], keys=[], values=[], headers=[], position=position
            )
        offsets: list[NDArray[np.int64]] = []
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        timestamps_ms: list[int] = []
        headers: list[Headers] = []
        with_headers = False
        for chunk in self._chunks[max(bisect_right(self._firsts, position) - 1, 0) :]:
            transaction = chunk.transaction
            if committed_only and transaction is not None and transaction.state is not State.COMMITTED:
                if transaction.state is State.OPEN:
                    break
                position = chunk.first + chunk.size
                continue
            start = position - chunk.first
            stop = min(len(chunk.values), start + records_max - len(values))
            if start < stop:
                offsets.append(np.arange(position, chunk.first + stop, dtype=np.int64))
                keys += chunk.keys[start:stop]
                values += chunk.values[start:stop]
                timestamps_ms += chunk.timestamps_ms[start:stop]
                headers += chunk.headers[start:stop] if chunk.headers else [()] * (stop - start)
                with_headers = with_headers or chunk.headers is not None
            if stop < len(chunk.values):
                position = chunk.first + stop
                break
            position = chunk.first + chunk.size
        return Read(
            offsets=np.concatenate(offsets) if offsets else _no_offsets,
            timestamps_ms=timestamps_ms,
            keys=keys,
            values=values,
            headers=headers if with_headers else [],
            position=position,
        )

    def forget(self, before: int) -> None:
        """Nothing before this offset can be read any more; whole chunks of it are freed."""
        self.earliest = max(self.earliest, min(before, self.end))
        gone = 0
        while gone < len(self._chunks) - 1 and self._firsts[gone + 1] <= self.earliest:
            self._stored_bytes -= self._chunks[gone].stored_bytes
            gone += 1
        del self._chunks[:gone], self._firsts[:gone]

    def _add(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._firsts.append(chunk.first)

    def _trim(self) -> None:
        gone = 0
        while self._stored_bytes > self._retention_bytes and gone < len(self._chunks) - 1:
            self._stored_bytes -= self._chunks[gone].stored_bytes
            gone += 1
        if gone:
            del self._chunks[:gone], self._firsts[:gone]
            self.earliest = max(self.earliest, self._firsts[0])


def finish(transaction: Transaction, state: State) -> None:
    """Commit or abort: the records of it become visible or void, and each partition gets its marker."""
    transaction.state = state
    for log in transaction.logs:
        log.mark()


def joined(topic: str, reads: Mapping[int, Read], topic_id: str | None = None) -> Records:
    """What was read of several partitions, one after the other; each read holds at least one record."""
    sizes = [len(read.values) for read in reads.values()]
    headers = (
        [h for read in reads.values() for h in (read.headers or [()] * len(read.values))]
        if any(read.headers for read in reads.values())
        else []
    )
    return Records(
        topic=topic,
        partitions=np.repeat(np.asarray(list(reads), np.int32), sizes),
        offsets=np.concatenate([read.offsets for read in reads.values()]),
        timestamps_ms=np.asarray([t for read in reads.values() for t in read.timestamps_ms], np.int64),
        keys=[key for read in reads.values() for key in read.keys],
        values=[value for read in reads.values() for value in read.values],
        headers=headers.__getitem__ if headers else no_headers,
        any_headers=lambda: any(headers),
        topic_id=topic_id,
    )
