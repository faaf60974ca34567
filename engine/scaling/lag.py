"""How far behind: per partition, in records and in seconds, and whether anything moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

Start = Literal["earliest", "latest", "error"]


class OffsetReading(Protocol):
    """What the broker says of one partition; connectors/kafka/group_offsets.py matches it."""

    @property
    def partition(self) -> int: ...
    @property
    def earliest(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def committed(self) -> int | None: ...
    @property
    def oldest_unfinished_timestamp_ms(self) -> int | None: ...
    @property
    def owner(self) -> str | None: ...


class Movement(StrEnum):
    """What a partition does between two readings."""

    CAUGHT_UP = "caught up"
    MOVING = "moving"
    STUCK = "stuck"  # owned and behind, and not one record was finished in between
    UNOWNED = "unowned"  # behind, and no member of the group has it
    BEHIND = "behind"  # one reading only: it cannot be told yet


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionLag:
    """How far behind the group is in one partition."""

    partition: int
    committed: int | None
    end: int
    lag_records: int
    lag_seconds: float
    owner: str | None
    movement: Movement


def measure(readings: Sequence[OffsetReading], *, now_ms: int, start: Start) -> list[PartitionLag]:
    """Lag of every partition from one reading, ascending; `start` is where a group without commits begins.

    What retention has deleted is no work any more, and a partition whose remaining offsets hold no record (commit markers,
    aborted records) is caught up: counting those would keep a worker running for ever.
    """
    return [
        _lag(reading, now_ms=now_ms, start=start) for reading in sorted(readings, key=lambda r: r.partition)
    ]


def _lag(reading: OffsetReading, *, now_ms: int, start: Start) -> PartitionLag:
    if reading.committed is not None:
        position = max(reading.committed, reading.earliest)
    else:
        position = reading.end if start == "latest" else reading.earliest
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
    return PartitionLag(
        partition=after.partition,
        committed=after.committed,
        end=after.end,
        lag_records=after.lag_records,
        lag_seconds=after.lag_seconds,
        owner=after.owner,
        movement=movement,
    )
