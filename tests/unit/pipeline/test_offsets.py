"""What polled records are in partitions and offsets, against a look at one record after the other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pipeline.offsets import Stretch, bounds, stretches
from penstock.schemas.records import Records, Unreadable

polled = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(-1, 9)), max_size=30)
"""Of each record its partition, how far it is behind the last one of it, and its timestamp."""


@given(polled, st.booleans(), st.data())
def test_stretches_and_bounds_are_what_a_look_at_each_record_finds(
    polled: list[tuple[int, int, int]], grouped: bool, data: st.DataObject
) -> None:
    if grouped:
        polled = sorted(polled, key=lambda each: each[0])
    reached: dict[int, int] = {}
    wanted: dict[int, Stretch] = {}
    offsets = []
    for place, (partition, step, stamp) in enumerate(polled):
        offset = reached[partition] = reached.get(partition, 100 * partition) + step
        offsets.append(offset)
        before = wanted.get(partition)
        wanted[partition] = Stretch(
            partition=partition,
            first=before.first if before else offset,
            last=offset,
            oldest_timestamp_ms=min(before.oldest_timestamp_ms, stamp) if before else stamp,
            records=before.records + 1 if before else 1,
            last_place=place,
        )
    whole = data.draw(st.sets(st.integers(0, max(len(polled) - 1, 0)))) if polled else set()
    records = Records(
        topic="in",
        partitions=np.array([each[0] for each in polled], np.int32),
        offsets=np.array(offsets, np.int64),
        timestamps_ms=np.array([each[2] for each in polled], np.int64),
        keys=[None] * len(polled),
        values=[None] * len(polled),
        unreadable={
            place: Unreadable(first=offsets[place], next=offsets[place] + 7, why="bytes") for place in whole
        },
    )
    assert stretches(records) == [wanted[partition] for partition in sorted(wanted)]
    assert bounds(records) == [
        (
            partition,
            (
                each.first,
                each.last + 6 if each.last_place in whole else each.last,
                each.oldest_timestamp_ms,
                each.records,
            ),
        )
        for partition, each in sorted(wanted.items())
    ]
