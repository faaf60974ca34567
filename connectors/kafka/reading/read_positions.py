"""Where reading stands in each partition: a client that falls back is noticed, and sent forward again."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

anywhere: Final = -2  # below every offset, as the client writes it: the beginning of the log


class ReadHeads:
    """The lowest offset that may come next, by partition.

    librdkafka 2.16 can fall back behind a seek: an answer about the beginning that arrives after the seek makes it ask
    again, and read from there (confluentinc/librdkafka#2256). What it then brings was scored long ago.
    """

    def __init__(self) -> None:
        """Nothing is expected of any partition yet."""
        self._next = np.zeros(0, np.int64)

    def put(self, partition: int, offset: int) -> None:
        """From now on `offset` is the lowest that may come; a negative one means any: the log's beginning, wherever it is."""
        missing = partition + 1 - len(self._next)
        if missing > 0:
            self._next = np.append(self._next, np.zeros(missing, np.int64))
        self._next[partition] = offset if offset >= 0 else anywhere

    def next(self, partition: int) -> int:
        """The lowest offset that may come."""
        return max(int(self._next[partition]), 0)

    def anywhere(self, partition: int) -> bool:
        """Whether it is read from its beginning, and nothing of it came yet."""
        return int(self._next[partition]) == anywhere

    def place(self, partition: int) -> int:
        """Where the client has to be sent to go on: the lowest offset that may come, or `anywhere`."""
        return int(self._next[partition])

    def pass_over(
        self, partitions: NDArray[np.int32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64] | None, dict[int, int]]:
        """Which of these records (N,) may be taken, None for all; and where the client must be sent, by partition.

        Every partition must have been put. The heads move behind what may be taken.
        """
        order = np.argsort(partitions, kind="stable")
        grouped, ascending = partitions[order], offsets[order]
        before = np.empty_like(ascending)
        before[1:] = ascending[:-1]
        first = np.empty(len(order), np.bool_)
        first[:1] = True
        np.not_equal(grouped[1:], grouped[:-1], out=first[1:])
        before[first] = self._next[grouped[first]] - 1
        if (ascending > before).all():
            self._next[grouped] = ascending + 1  # of a partition that stands there often, the last one counts
            return None, {}
        return self._sort_out(partitions.tolist(), offsets.tolist())

    def _sort_out(
        self, partitions: list[int], offsets: list[int]
    ) -> tuple[NDArray[np.int64], dict[int, int]]:
        taken: list[int] = []
        back: set[int] = set()
        for index, (partition, offset) in enumerate(zip(partitions, offsets, strict=True)):
            if offset < self._next[partition]:
                back.add(partition)
            else:
                self._next[partition] = offset + 1
                taken.append(index)
        return np.array(taken, np.int64), {partition: int(self._next[partition]) for partition in back}
