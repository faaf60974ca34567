"""What polled records, finished batches and groups of them are in partitions and offsets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pipeline.compute import Finished
from penstock.engine.ports import Delivery
from penstock.schemas.records import Outgoing, Records


class Stretch(NamedTuple):
    """The records of one partition among others: the offsets of the first and of the last, and where the last stands."""

    partition: int
    first: int
    last: int
    oldest_timestamp_ms: int
    records: int
    last_place: int


def stretches(records: Records) -> list[Stretch]:
    """Of each partition, by ascending number. A few passes over the columns, however many partitions there are."""
    partitions, offsets, timestamps = records.partitions, records.offsets, records.timestamps_ms
    count = len(partitions)
    if count == 0:
        return []
    cuts = np.flatnonzero(partitions[1:] != partitions[:-1])
    if not len(cuts):
        first, last = int(offsets[0]), int(offsets[-1])
        return [Stretch(int(partitions[0]), first, last, int(timestamps.min()), count, count - 1)]
    order: NDArray[np.intp] | None = None
    numbers = partitions[cuts]
    if not ((numbers[1:] > numbers[:-1]).all() and partitions[-1] > numbers[-1]):
        order = np.argsort(partitions, kind="stable")
        partitions, offsets, timestamps = partitions[order], offsets[order], timestamps[order]
        cuts = np.flatnonzero(partitions[1:] != partitions[:-1])
    lasts = np.concatenate((cuts, (count - 1,)))
    starts = np.concatenate(((0,), cuts + 1))
    columns = (
        partitions[starts], offsets[starts], offsets[lasts], np.minimum.reduceat(timestamps, starts), lasts - starts + 1,
        lasts if order is None else order[lasts],
    )  # fmt: skip
    return [Stretch._make(each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def bounds(records: Records) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Per partition: its first and last offset, its oldest timestamp, and how many records."""
    found = []
    for each in stretches(records):
        # A row that stands for a range ends where the range does.
        row = records.unreadable.get(each.last_place) if records.unreadable else None
        last = each.last if row is None else row.next - 1
        found.append((each.partition, (each.first, last, each.oldest_timestamp_ms, each.records)))
    return found


def places(finished: Finished) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    polls = [poll.records for poll in finished.batch.polls]
    return (
        np.concatenate([records.partitions for records in polls]),
        np.concatenate([records.offsets for records in polls]),
    )


def delivery(group: Sequence[Finished]) -> Delivery:
    outgoing: list[Outgoing] = []
    positions: dict[int, int] = {}
    for finished in group:
        assert finished.outcome is not None
        outgoing += finished.outcome.outgoing
        for span in finished.batch.spans:
            positions[span.partition] = max(span.next, positions.get(span.partition, 0))
    return Delivery(outgoing=outgoing, positions=positions)
