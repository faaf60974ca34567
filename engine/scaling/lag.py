"""How far behind: per partition, in records and in seconds, and whether anything moves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Protocol

Start = Literal["earliest", "latest", "error"]


class OffsetReading(Protocol):
    """What the broker says of one partition; connectors/kafka/admin/group_offsets.py matches it."""

    @property
    def partition(self) -> int: ...
    @property
    def earliest(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def committed(self) -> int | None: ...
    @property
    def oldest_unfinished_timestamp_ms(self) -> int | None: ...
    @property
    def stamped_by_broker(self) -> bool: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def fault(self) -> str: ...
    @property
    def topic_id(self) -> str | None: ...
    @property
    def committed_topic_id(self) -> str | None: ...


class Movement(StrEnum):
    """What a partition does between two readings."""

    CAUGHT_UP = "caught up"
    MOVING = "moving"
    STUCK = "stuck"  # owned and behind, and not one record was finished in between
    UNOWNED = "unowned"  # behind, and no member of the group has it
    BEHIND = "behind"  # one reading only: it cannot be told yet
    UNREADABLE = (
        "unreadable"  # the next record cannot be read: every worker stops there until someone intervenes
    )
    OUT_OF_RANGE = "out of range"  # the committed offset is not in the log, or is of another topic
    FOREIGN = "foreign"  # owned by another program's member of the group: what that reads is not predicted


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionLag:
    """How far behind the group is in one partition.

    `lag_records` counts offsets from the next one to `end`: what compaction has taken, commit markers and aborted records
    between readable ones count with them; where none but those are left it is 0. `lag_seconds` is None where the next record
    could not be read. `open_offsets` lie behind an open transaction of a producer and cannot be read before it ends.
    """

    partition: int
    committed: int | None
    end: int
    lag_records: int
    lag_seconds: float | None
    owner: str | None
    movement: Movement
    open_offsets: int = 0
    note: str = ""  # a sentence where a person should know more

    @property
    def position(self) -> int:
        """The offset that comes next."""
        return self.end - self.lag_records


def measure(readings: Sequence[OffsetReading], *, now_ms: int, start: Start) -> list[PartitionLag]:
    """Lag of every partition from one reading, ascending; `start` is where a group without commits begins.

    What retention has deleted is no work any more, and a partition whose remaining offsets hold no record (commit markers,
    aborted records) is caught up: counting those would keep a worker running for ever.
    """
    fresh = all(reading.committed is None for reading in readings)  # `start` is about the group as a whole
    return [
        _lag(reading, now_ms=now_ms, at_end=fresh and start == "latest")
        for reading in sorted(readings, key=lambda r: r.partition)
    ]


def _lag(reading: OffsetReading, *, now_ms: int, at_end: bool) -> PartitionLag:
    trouble = _trouble(reading)
    if trouble is not None:
        return trouble
    if reading.committed is not None:
        position = max(reading.committed, reading.earliest)
    else:
        position = reading.end if at_end else reading.earliest
    oldest_ms = reading.oldest_unfinished_timestamp_ms
    records = max(reading.end - position, 0) if oldest_ms is not None else 0
    seconds = (
        max(now_ms - oldest_ms, 0) / 1000 if records and oldest_ms is not None and oldest_ms >= 0 else 0.0
    )
    movement = Movement.CAUGHT_UP
    if records:
        movement = Movement.UNOWNED if reading.owner is None else Movement.BEHIND
    return PartitionLag(
        partition=reading.partition,
        committed=reading.committed,
        end=reading.end,
        lag_records=records,
        lag_seconds=seconds,
        owner=reading.owner,
        movement=movement,
        open_offsets=reading.high - reading.end,
        note=_note(reading, unowned=movement is Movement.UNOWNED, position=position),
    )


def _note(reading: OffsetReading, *, unowned: bool, position: int) -> str:
    if reading.high > reading.end:
        return f"{reading.high - reading.end:,} offsets are behind an open transaction of a producer"
    return f"nobody reads it, from offset {position} on" if unowned else ""


def _trouble(reading: OffsetReading) -> PartitionLag | None:
    """Where the group cannot go on by itself: what it is, and the offsets that wait as far as they can be told."""
    committed, position, movement = reading.committed, reading.committed, Movement.OUT_OF_RANGE
    if committed is not None and reading.committed_topic_id not in (None, reading.topic_id):
        position = reading.earliest
        note = f"offset {committed} was committed of an earlier topic of this name; this one is read from its beginning"
    elif committed is not None and committed > reading.high:
        position = reading.earliest
        note = f"the group is at offset {committed}, but the partition ends at {reading.high}; penstock offsets reset"
    elif committed is not None and committed < reading.earliest:
        position = reading.earliest
        note = (
            f"offsets {committed} to {reading.earliest - 1} were deleted before the group read them (retention); "
            "penstock offsets reset"
        )
    elif reading.fault:
        position = max(committed or 0, reading.earliest)
        movement = Movement.UNREADABLE
        note = f"the record at or after offset {position} cannot be read: {reading.fault}"
    else:
        return None
    return PartitionLag(
        partition=reading.partition,
        committed=committed,
        end=reading.end,
        lag_records=max(reading.end - (position or 0), 0),
        lag_seconds=None,
        owner=reading.owner,
        movement=movement,
        open_offsets=reading.high - reading.end,
        note=note,
    )


def compare(before: Sequence[PartitionLag], after: Sequence[PartitionLag]) -> list[PartitionLag]:
    """The later lag, with what each partition did in between."""
    earlier: Mapping[int, PartitionLag] = {lag.partition: lag for lag in before}
    return [_compared(earlier.get(lag.partition), lag) for lag in after]


def _compared(before: PartitionLag | None, after: PartitionLag) -> PartitionLag:
    if before is None or after.movement is not Movement.BEHIND:
        return after
    if not before.lag_records or before.committed != after.committed:
        movement = Movement.MOVING
    else:
        movement = Movement.STUCK
    if movement is Movement.STUCK and not after.note:
        first = "the first" if after.committed is None else f"offset {after.committed}"
        note = f"nothing from {first} on was finished in between; penstock doctor says why"
        return replace(after, movement=movement, note=note)
    return replace(after, movement=movement)


def with_foreign(lags: Sequence[PartitionLag], is_worker: Callable[[str], bool]) -> list[PartitionLag]:
    """The same; what a member owns that is no worker, by its client id, is FOREIGN and says so, however little waits there."""
    return [
        _foreign(lag) if lag.owner is not None and not is_worker(_client_id(lag.owner)) else lag
        for lag in lags
    ]


def _foreign(lag: PartitionLag) -> PartitionLag:
    what = "what it commits there is not predicted; give it a group of its own"
    told = f"owned by {lag.owner}, which is no worker of this group: {what}"
    stands = lag.movement in (Movement.UNREADABLE, Movement.OUT_OF_RANGE)
    return replace(
        lag,
        movement=lag.movement if stands else Movement.FOREIGN,
        note=f"{lag.note}; {told}" if lag.note else told,
    )


def _client_id(owner: str) -> str:
    """Of an owner as OffsetReading tells it, client id and address."""
    return owner.rpartition("@")[0] or owner


def oldest_s(lags: Sequence[PartitionLag]) -> float:
    """The greatest known age; 0 when nothing waits."""
    return max((lag.lag_seconds for lag in lags if lag.lag_seconds is not None), default=0.0)
