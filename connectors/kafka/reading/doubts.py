"""Partitions whose client reported an error: where reading returns to, when what it brings is believed again, and what is said when it is given up."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from penstock.schemas.records import Unreadable

UnreadablePolicy = Literal["stop", "set_aside"]

retry_s = 0.5  # between two attempts at the same offset
unreadable_patience_s = (
    10.0  # so long may the same offset give bytes that cannot be read: a replica may have good ones
)
quiet_s = 5.0  # so long nothing comes behind offsets that cannot be read: they are set aside without waiting for more
_known_max = 1024


class ReadFault(Enum):
    """What a client says of a partition."""

    UNREADABLE = auto()  # the bytes of a batch cannot be read
    OUT_OF_RANGE = auto()  # the offset asked for is not in the log
    OTHER = auto()  # anything else that may pass


class GivenUp(Enum):
    """Reading of the partition cannot go on without an operator."""

    UNREADABLE = auto()
    OUT_OF_RANGE = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Return:
    """Read the partition from `offset` again, and not before `at_s` on the clock of the reports."""

    offset: int
    at_s: float


@dataclass(slots=True)
class _Doubt:
    head: int  # the offset that the next record taken must not be below
    at: int  # where reading was sent; beyond the head while the end of what cannot be read is looked for
    since_s: float
    sent_s: float  # when reading was sent to `at`
    why: str = ""
    tried: bool = False  # `at`, once, while the end of what cannot be read is looked for
    astray: bool = False  # the newest error was about an offset that nobody asked for


@dataclass(slots=True)
class ReadDoubts:
    """After an error nothing of its partition is taken until reading was sent back to the partition's head.

    A client may move its position with an error, sometimes far ahead (librdkafka 2.16 at a wrong checksum reads garbage as
    offsets), so the records that follow say nothing about what lies before them. Sent back to the head, the client either
    brings records, or the error again before any record: a response is parsed in order. Where the same offset stays
    unreadable, `set_aside` tries one offset after the other: the range set aside ends where a record is read, and every
    offset of it was tried, twice: one error may be the connection's. Where a look by hand shows before that how far what is
    broken goes, that is passed over at once.
    """

    policy: UnreadablePolicy
    _doubts: dict[int, _Doubt] = field(default_factory=dict)
    _known: dict[tuple[int, int], Unreadable] = field(default_factory=dict)

    def __contains__(self, partition: int) -> bool:
        return partition in self._doubts

    def __bool__(self) -> bool:
        return bool(self._doubts)

    def forget(self, partition: int) -> None:
        """It is not read here any more, or from another place."""
        self._doubts.pop(partition, None)

    def forget_ranges(self) -> None:
        """What was found unreadable at an offset says nothing any more: it is another topic."""
        self._known.clear()

    def since_s(self, partition: int) -> float:
        """When the first error was reported since the partition was last read."""
        return self._doubts[partition].since_s

    def sentences(self) -> dict[int, str]:
        """What is in doubt now, by partition."""
        return {
            partition: f"offset {doubt.head} cannot be read ({doubt.why})"
            for partition, doubt in self._doubts.items()
        }

    def report(
        self,
        partition: int,
        *,
        head: int,
        fault: ReadFault,
        offset: int,
        why: str,
        end: int,
        now_s: float,
    ) -> Return | Unreadable | GivenUp:
        """What to do about an error. `offset` is the client's; `end` is the log's end as far as it is known, -1 if not.

        Unreadable: reading goes on at its `next`, and the range must become an outcome before anything behind it.
        """
        doubt = self._doubts.get(partition)
        if doubt is None or doubt.head != head:
            self._doubts[partition] = _Doubt(head=head, at=head, since_s=now_s, sent_s=now_s, why=why)
            return Return(offset=head, at_s=now_s)
        if fault is ReadFault.UNREADABLE:
            doubt.why, doubt.astray = why, False
            return self._unreadable(partition, doubt, end, now_s)
        if fault is ReadFault.OUT_OF_RANGE and offset == doubt.at:
            if doubt.at == head:
                return GivenUp.OUT_OF_RANGE
            doubt.at = head  # the log ends before, or retention came by: look again from the head
        elif fault is ReadFault.OUT_OF_RANGE and doubt.at != head and not doubt.astray:
            doubt.astray = True  # the client took garbage for its next place: that tells nothing of `at`
            return Return(offset=doubt.at, at_s=now_s)
        return Return(offset=doubt.at, at_s=now_s + retry_s)

    def head(self, partition: int) -> int | None:
        """The offset in doubt, None where none is."""
        doubt = self._doubts.get(partition)
        return None if doubt is None else doubt.head

    def pass_over(self, partition: int, broken: Unreadable) -> None:
        """It is certain what of it cannot be read, from its head on: nothing more is tried."""
        del self._doubts[partition]
        self._keep(partition, broken)

    def settled(self, partition: int) -> Unreadable | None:
        """Records of it came after the return: what had to be passed over to get there, if anything."""
        doubt = self._doubts.pop(partition, None)
        if doubt is None or doubt.at == doubt.head:
            return None
        return self._passed(partition, doubt)

    def outwaited(self, now_s: float) -> list[tuple[int, Unreadable]]:
        """What was passed over with nothing behind it for a while, no error and no record: markers of transactions, perhaps, up
        to the end. Reading is beyond these ranges already."""
        quiet = [
            partition
            for partition, doubt in self._doubts.items()
            if doubt.at != doubt.head and now_s - doubt.sent_s >= quiet_s
        ]
        return [(partition, self._passed(partition, self._doubts.pop(partition))) for partition in quiet]

    def _unreadable(
        self, partition: int, doubt: _Doubt, end: int, now_s: float
    ) -> Return | Unreadable | GivenUp:
        known = self._known.get((partition, doubt.head))
        if known is not None and doubt.at == doubt.head:
            del self._doubts[partition]
            return known
        if doubt.at == doubt.head and now_s - doubt.since_s < unreadable_patience_s:
            return Return(offset=doubt.head, at_s=now_s + retry_s)
        if self.policy == "stop":
            return GivenUp.UNREADABLE
        if doubt.at != doubt.head and not doubt.tried:
            doubt.tried, doubt.sent_s = True, now_s
            return Return(offset=doubt.at, at_s=now_s)
        doubt.at, doubt.tried, doubt.sent_s = doubt.at + 1, False, now_s
        if 0 <= end <= doubt.at:
            del self._doubts[partition]
            return self._passed(partition, doubt)
        return Return(offset=doubt.at, at_s=now_s)

    def _passed(self, partition: int, doubt: _Doubt) -> Unreadable:
        return self._keep(partition, Unreadable(first=doubt.head, next=doubt.at, why=doubt.why))

    def _keep(self, partition: int, passed: Unreadable) -> Unreadable:
        if len(self._known) >= _known_max:
            self._known.clear()
        self._known[partition, passed.first] = passed
        return passed


def unreadable_sentence(topic: str, partition: int, head: int, why: str) -> str:
    """The bytes at offset `head` cannot be read, and `input.unreadable` is `stop`."""
    return (
        f"topic {topic}, partition {partition}: what is stored at offset {head} cannot be read ({why}); with "
        "input.unreadable: set_aside it becomes a dead letter, and reading goes on behind it"
    )


def lost_range_sentence(
    topic: str, partition: int, *, head: int, group: str, bounds: tuple[int, int] | None
) -> str:
    """The broker does not have offset `head`. `bounds`: the first offset that it has and the one behind its last, None where
    no broker said so."""
    where = f"topic {topic}, partition {partition}"
    cure = "penstock offsets reset says where to go on"
    if bounds is None:
        return f"{where}: the next offset to read, {head}, is not on the broker any more, and no broker says which are; {cure}"
    first, end = bounds
    if head < first:
        return (
            f"{where}: offsets {head} to {first - 1} were deleted before group {group} read them (retention); the "
            f"first that is left is {first}; {cure}"
        )
    return (
        f"{where}: group {group} is at offset {head}, but the partition ends at {end}: records were lost at the "
        f"broker, or the offset is of another topic; {cure}"
    )
