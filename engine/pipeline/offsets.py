"""What polled records, finished batches and groups of them are in partitions and offsets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pipeline.compute import Finished
from penstock.engine.ports import Delivery
from penstock.schemas.records import Outgoing, Records


def bounds(records: Records) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Per partition: its first and last offset, its oldest timestamp, and how many records."""
    partitions, offsets, timestamps = records.partitions, records.offsets, records.timestamps_ms
    found = []
    for partition in np.unique(partitions).tolist():
        own = partitions == partition
        theirs = offsets[own]
        last = int(theirs[-1])
        if records.unreadable:  # a row that stands for a range ends where the range does
            row = records.unreadable.get(int(np.flatnonzero(own)[-1]))
            last = last if row is None else row.next - 1
        found.append((partition, (int(theirs[0]), last, int(timestamps[own].min()), len(theirs))))
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
