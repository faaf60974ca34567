"""The only answer to what may be committed: a contiguous prefix of finished work, per partition and assignment."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.schemas.errors import InvariantError


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Consecutive records of one partition in one assignment: offsets from `first` to before `next`.

    Offsets inside a span may be missing on the broker (compaction, commit markers), so only its ends count.
    """

    partition: int
    epoch: int
    first: int
    next: int
    oldest_timestamp_ms: int
    records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What became of the records that were read, since the start: read = settled + in flight + dropped."""

    read: int
    settled: int
    in_flight: int
    dropped: int  # by a rewind or a revocation; what was dropped is read again, here or by its next owner


@dataclass(slots=True)
class _Partition:
    epoch: int
    opened: deque[Span] = field(default_factory=deque)
    settled: set[int] = field(default_factory=set)  # the `first` of spans finished out of turn
    position: int | None = None  # next offset to commit; None before anything was settled


class Ledger:
    """Follows every polled record until it is delivered.

    Promises: a position never passes an unfinished span, never goes back within an assignment, and work opened before
    a revocation or a rewind settles nothing. Not thread-safe: the polling thread owns it.
    """

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        self._epochs: dict[int, int] = {}  # survives revocation: an epoch is never used twice
        self._read = self._settled = self._dropped = 0
        self._open = (
            0  # spans, over all partitions: asked for several times a turn, however many partitions there are
        )

    def assign(self, partitions: Iterable[int]) -> None:
        """These partitions are ours from now on, with nothing open."""
        for partition in partitions:
            if (before := self._partitions.get(partition)) is not None:
                self._open -= len(before.opened)
            self._partitions[partition] = _Partition(epoch=self._next_epoch(partition))

    def revoke(self, partitions: Iterable[int]) -> None:
        """Forget these partitions: what is still open of them will settle nothing."""
        for partition in partitions:
            if (gone := self._partitions.pop(partition, None)) is not None:
                self._drop(gone)

    def rewind(self) -> dict[int, int]:
        """Drop everything open, in every partition; where to read each again from (its first unfinished offset)."""
        again = {}
        for number, partition in self._partitions.items():
            if partition.opened:
                again[number] = partition.opened[0].first
            self._drop(partition)
            partition.opened.clear()
            partition.settled.clear()
            partition.epoch = self._next_epoch(number)
        return again

    def open(self, *, partition: int, first: int, next: int, oldest_timestamp_ms: int, records: int) -> Span:
        """Note so many records that were polled. Raises InvariantError when they are not ours or not in order."""
        ours = self._partitions.get(partition)
        if ours is None:
            raise InvariantError(f"records of partition {partition} arrived, which is not assigned")
        last = ours.opened[-1].next if ours.opened else (ours.position or 0)
        if first < last or next <= first:
            raise InvariantError(f"partition {partition}: offsets {first} to {next} arrived after {last}")
        span = Span(
            partition=partition,
            epoch=ours.epoch,
            first=first,
            next=next,
            oldest_timestamp_ms=oldest_timestamp_ms,
            records=records,
        )
        self._read += records
        self._open += 1
        ours.opened.append(span)
        return span

    def is_current(self, span: Span) -> bool:
        """Whether the span's assignment still stands, so that finishing it means something."""
        ours = self._partitions.get(span.partition)
        return ours is not None and ours.epoch == span.epoch

    def settle(self, spans: Iterable[Span]) -> None:
        """These spans are delivered: whatever contiguous prefix that completes becomes committable."""
        for span in spans:
            self._settled += span.records
            if not self.is_current(span):
                self._dropped -= span.records  # delivered all the same
                continue
            ours = self._partitions[span.partition]
            ours.settled.add(span.first)
            while (
                ours.opened and ours.opened[0].first in ours.settled
            ):  # a hole would be skipped after a restart
                done = ours.opened.popleft()
                self._open -= 1
                ours.settled.remove(done.first)
                ours.position = done.next

    def positions(self) -> dict[int, int]:
        """Next offset to commit of each assigned partition in which something was settled."""
        return {number: p.position for number, p in self._partitions.items() if p.position is not None}

    def account(self) -> Account:
        """What became of every record."""
        return Account(
            read=self._read,
            settled=self._settled,
            in_flight=self._read - self._settled - self._dropped,
            dropped=self._dropped,
        )

    def assigned(self) -> list[int]:
        """The partitions that are ours, in order."""
        return sorted(self._partitions)

    def unfinished(self) -> int:
        """How many spans are open, over all partitions."""
        return self._open

    def oldest_unfinished_ms(self) -> dict[int, int]:
        """Per assigned partition, the timestamp of its oldest unfinished record; -1 when nothing is unfinished."""
        return {
            number: partition.opened[0].oldest_timestamp_ms if partition.opened else -1
            for number, partition in self._partitions.items()
        }

    def _drop(self, partition: _Partition) -> None:
        self._open -= len(partition.opened)
        self._dropped += sum(span.records for span in partition.opened if span.first not in partition.settled)

    def _next_epoch(self, partition: int) -> int:
        self._epochs[partition] = self._epochs.get(partition, 0) + 1
        return self._epochs[partition]
