"""What may be taken of records that come in order, or again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka.reading.read_positions import ReadHeads

records = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=30)


def pass_over(heads: ReadHeads, batch: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], dict[int, int]]:
    partitions, offsets = (np.array(column) for column in zip(*batch, strict=True))
    taken, forward = heads.pass_over(partitions.astype(np.int32), offsets.astype(np.int64))
    return batch if taken is None else [batch[index] for index in taken], forward


@given(starts=st.lists(st.integers(-2, 8), min_size=4, max_size=4), batches=st.lists(records, max_size=4))
def test_a_partition_only_goes_forward(starts: list[int], batches: list[list[tuple[int, int]]]) -> None:
    heads, expected = ReadHeads(), {}
    for partition, start in enumerate(starts):
        heads.put(partition, start)
        expected[partition] = start
    for batch in batches:
        fallen = set()
        wanted = []
        for partition, offset in batch:
            if offset >= expected[partition]:
                expected[partition] = offset + 1
                wanted.append((partition, offset))
            else:
                fallen.add(partition)
        found, forward = pass_over(heads, batch)
        assert found == wanted
        assert forward == {partition: max(expected[partition], 0) for partition in fallen}


def test_gaps_are_no_fault_and_a_seek_back_is_followed() -> None:
    heads = ReadHeads()
    heads.put(2, 5)
    assert pass_over(heads, [(2, 7), (2, 90)]) == ([(2, 7), (2, 90)], {})
    heads.put(2, 7)
    assert pass_over(heads, [(2, 7)]) == ([(2, 7)], {})


def test_a_head_that_is_put_leaves_the_others_alone() -> None:
    heads = ReadHeads()
    heads.put(0, 3)
    heads.put(5, 9)
    assert pass_over(heads, [(5, 1), (0, 3), (5, 9)]) == ([(0, 3), (5, 9)], {5: 10})
