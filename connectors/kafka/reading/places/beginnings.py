"""The first records of partitions: whether something before them was deleted that nobody of the group has read."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from confluent_kafka import Message

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.reading.log_bounds import LogBounds
from penstock.connectors.kafka.reading.read_positions import ReadHeads
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

ends_every_s: Final = (
    2.0  # so often it is looked whether logs end before the offsets that partitions were sent to
)
_partition = cast(Callable[[Message], int], Message.partition)


def first_offsets(messages: Iterable[Message]) -> dict[int, int]:
    """The offset of the first of each partition; none of them is an error."""
    first: dict[int, int] = {}
    for message in messages:
        first.setdefault(_partition(message), cast(int, message.offset()))
    return first


class Beginnings:
    """The group is owed every record of these from offset 0 on: they appeared while it read, or their topic was made anew.

    Reading from the beginning brings what is left, and the client says nothing of what is not. So the brokers are asked where
    the log begins, and what lies before is said and counted. Until then nothing of the partition may be taken but from offset
    0 on: what is taken is soon committed, and whoever reads on from there knows of nothing before it. Polling thread only;
    never waits.
    """

    def __init__(self, bounds: LogBounds, *, heads: ReadHeads, group: str, topic: str, clock: Clock) -> None:
        self._bounds = bounds
        self._heads = heads
        self._group = group
        self._topic = topic
        self._clock = clock
        self._owed: set[int] = set()
        self._since_s = 0.0
        self.lost_offsets = 0

    def __bool__(self) -> bool:
        return bool(self._owed)

    def __contains__(self, partition: object) -> bool:
        """Whether nothing of it may be taken yet: a record of offset 0 ends that, or an answer."""
        return partition in self._owed

    def put(self, partitions: Iterable[int]) -> None:
        """From now on these are read from their beginning."""
        for partition in partitions:
            self._owed.add(partition)
            self._since_s = self._clock.monotonic_s()

    def forget(self, partitions: Iterable[int]) -> None:
        """They are read elsewhere."""
        self._owed.difference_update(partitions)

    def believed(self, messages: list[Message]) -> tuple[list[Message], set[int]]:
        """Those that may be taken; and the partitions of the others, which have to be read again from where they stand."""
        first = first_offsets(messages)
        untold = self._owed & first.keys()
        whole = {partition for partition in untold if first[partition] == 0}
        self._owed -= whole
        untold -= whole
        return [message for message in messages if _partition(message) not in untold], untold

    def turn(self) -> dict[int, int]:
        """Where the logs begin, of those of which a broker has said so; what lies before is told now."""
        found = {p: begins for p, (begins, _) in self._bounds.of(self._owed, self._since_s).items()}
        for partition, begins in found.items():
            self._owed.remove(partition)
            # Of what was sought or passed over meanwhile, the missing is told when it is read.
            anywhere = self._heads.anywhere(partition)
            missing = begins if anywhere else min(begins, self._heads.next(partition))
            if missing > 0:
                self.lost_offsets += missing
                logger.warning(
                    "topic %s, partition %d: offsets 0 to %d were deleted before group %s read them (retention); reading begins at %d",
                    self._topic, partition, missing - 1, self._group, missing,
                    extra=LogCode.OFFSETS_DELETED.extra,
                )  # fmt: skip
        return found


class FirstRecords:
    """Partitions that were sent to an offset, until a record came of them. Polling thread only; never waits.

    A client may read from the beginning of the log instead (librdkafka 2256). Where that is further on, or the log ends before the
    offset, it does not say that the offset is gone; made anew at the same offset, its fetcher does.
    """

    def __init__(self, bounds: LogBounds, *, heads: ReadHeads) -> None:
        self._bounds = bounds
        self._heads = heads
        self._sent: dict[int, float | None] = {}  # since when what came was further on
        self._due_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._sent)

    def put(self, partitions: Iterable[int]) -> None:
        """Their next record is to be at their head, or behind offsets that hold none."""
        self._sent |= dict.fromkeys(partitions)

    def forget(self, partitions: Iterable[int]) -> None:
        """They are read elsewhere."""
        for partition in partitions:
            self._sent.pop(partition, None)

    def beyond_the_end(self, now_s: float, ends: Callable[[Iterable[int]], Mapping[int, int]]) -> list[int]:
        """Those whose log, as the client last saw it, ends before the offset, now and then: they are to be read from there anew."""
        if now_s < self._due_s:
            return []
        self._due_s = now_s + ends_every_s
        return [partition for partition, end in ends(self._sent).items() if end < self._heads.next(partition)]

    def believed(self, messages: list[Message], now_s: float) -> tuple[list[Message], set[int]]:
        """Those that may be taken; and the partitions of the others, which have to be read from their head again: the log may
        lack it."""
        first = first_offsets(messages)
        untold: set[int] = set()
        for partition in self._sent.keys() & first.keys():
            head = self._heads.next(partition)
            if first[partition] > head:
                noticed_s = self._sent[partition]
                self._sent[partition] = noticed_s = now_s if noticed_s is None else noticed_s
                bounds = self._bounds.of([partition], noticed_s).get(partition)
                if bounds is None or bounds[0] > head:
                    untold.add(partition)
                    continue
            del self._sent[partition]
        return [message for message in messages if _partition(message) not in untold], untold
