"""How many partitions the topics of a worker have, as they were last seen."""

from collections.abc import Iterator, Mapping


class PartitionCounts(Mapping[str, int]):
    """Topic to number of partitions. One thread learns, any thread reads: each answer is one of a whole that was true.

    A producer is made for the numbers of one moment, and replaced when they change: its client would learn of new
    partitions minutes later, and a result that is under way must not change its partition.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        """As they are at the start: the input and every output topic."""
        self._newest = dict(counts)

    def now(self) -> Mapping[str, int]:
        """The numbers of this moment; never changed afterwards."""
        return self._newest

    def learn(self, topic: str, partitions: int) -> None:
        """What a broker says now. A topic that is none of ours is passed over."""
        if topic in self._newest and self._newest[topic] != partitions:
            self._newest = {**self._newest, topic: partitions}

    def __getitem__(self, topic: str) -> int:
        return self._newest[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)
