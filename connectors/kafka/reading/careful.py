"""Reading in which no stored batch comes before the client that was not looked at by hand: after a worker died in the client."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from confluent_kafka import Consumer, Message

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.reading.batch_looks import BatchLooks
from penstock.connectors.kafka.reading.log_bounds import LogBounds
from penstock.connectors.kafka.reading.read_positions import ReadHeads
from penstock.connectors.kafka.reading.returns import Returns
from penstock.schemas.records import Unreadable

poll_every_s: Final = 0.02
begin_patience_s: Final = 15.0  # so long a partition waits for the look at the place where it begins
ends_after_s: Final = 60.0  # at the latest, without a death: whatever it was is behind, or costs one more
passed_patience_s: Final = 10.0  # behind a broken batch others may be

Tell = Callable[[int, int, str, bool], None]
"""Hears of a partition, the offset where it begins or goes on, what was found there, and whether a person should know of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Careful:
    """How a worker reads carefully."""

    pause_s: float
    """So long the client waits with its next fetch while the records of the last one are there."""
    tell: Tell


class CarefulReading:
    """What was looked at, and what it showed. Polling thread only; never waits.

    A partition begins once the batch at its first offset was looked at, and those behind it that are broken as well. After
    that each place that reading has come to is looked at while the client waits with its next fetch (`group_settings`), and
    where a look comes too late the client dies again, a few records further on. It is over when the client has read all that
    was stored when its partitions began: what its predecessor died of was among that.
    """

    def __init__(
        self,
        how: Careful,
        consumer: Consumer,
        looks: BatchLooks,
        bounds: LogBounds,
        *,
        heads: ReadHeads,
        returns: Returns,
        clock: Clock,
        stop: Callable[[int, int, str], None] | None,
    ) -> None:
        """`stop`: called with partition, offset and why, where what cannot be read is not set aside."""
        self._tell = how.tell
        self._consumer = consumer
        self._looks = looks
        self._bounds = bounds
        self._heads = heads
        self._returns = returns
        self._clock = clock
        self._stop = stop
        self._since_s: dict[int, float] = {}  # partitions that wait to begin
        self._found: dict[int, Unreadable] = {}  # where those begin
        self._looked: dict[int, int] = {}  # the head that was looked at last
        self._until: dict[int, int] = {}  # where the log ended when the partition began
        self._through: set[int] = set()  # partitions in which no record is left before that
        self._ends_s = clock.monotonic_s() + ends_after_s

    @property
    def over(self) -> bool:
        """It has done what it can: the next worker may read as ever."""
        return self._clock.monotonic_s() >= self._ends_s

    def poll(self, timeout_s: float) -> Message | None:
        """As the client's. It decides about its next fetch right after it has put records into its queue, and has to find
        them there: so nobody waits at the queue, and it is looked into now and then."""
        message = self._consumer.poll(0)
        if message is None:
            self._clock.sleep(min(timeout_s, poll_every_s))
            message = self._consumer.poll(0)
        return message

    def begin(
        self,
        starts: Mapping[int, int],
        seek: Callable[[int, int], bool],
        begun: Callable[[Mapping[int, int]], None],
    ) -> None:
        """Begin those of the partitions whose place was looked at; the others wait, and are given again.

        `seek` sends the client somewhere, if it can; `begun` hears where partitions begin, before anything is said of them.
        """
        for partition, offset in starts.items():
            if not self._looked_at(partition, offset):
                continue
            broken = self._found.pop(partition, None)
            if broken is not None and self._stop is not None:
                self._stop(partition, broken.first, broken.why)
                continue
            # What is broken is not shown to the client at all.
            if not seek(partition, offset if broken is None else broken.next):
                continue
            begun({partition: offset})
            if broken is not None:
                self._returns.pass_over(partition, broken)
                self._pass(partition, broken)

    def turn(self, partitions: Collection[int], *, waiting: bool) -> None:
        """Pass over what is broken where reading of these stands, before the client asks for it; a place is looked at once.

        `waiting`: there are others, which are not read now.
        """
        for partition in sorted(partitions):
            head = self._heads.next(partition)
            if self._heads.anywhere(partition) or self._looked.get(partition) == head:
                continue
            look = None if partition in self._returns else self._looks.of(partition, head)
            if look is None:
                continue
            self._looked[partition] = head
            if not look.fault and (look.batch is None or look.batch.base >= self._until.get(partition, inf)):
                self._through.add(partition)
            if look.broken is not None and self._stop is not None:
                self._stop(partition, head, look.broken.why)
            elif look.broken is not None:
                self._returns.pass_over(partition, look.broken)
                self._returns.read_from(partition, look.broken.next)
                self._pass(partition, look.broken)
        if partitions and not waiting and all(map(self._is_through, partitions)):
            self._ends_s = min(self._ends_s, self._clock.monotonic_s())

    def forget(self, partitions: Collection[int]) -> None:
        """They are read elsewhere."""
        for partition in partitions:
            self._since_s.pop(partition, None)
            self._found.pop(partition, None)
            self._looked.pop(partition, None)
            self._until.pop(partition, None)
            self._through.discard(partition)

    def _is_through(self, partition: int) -> bool:
        return partition in self._through or self._heads.next(partition) >= self._until.get(partition, inf)

    def _looked_at(self, partition: int, offset: int) -> bool:
        now_s = self._clock.monotonic_s()
        since_s = self._since_s.setdefault(partition, now_s)
        place: int | None = offset
        if partition in self._found:
            place = self._found[partition].next
        elif offset < 0:
            bounds = self._bounds.of([partition], since_s).get(partition)
            place = None if bounds is None else bounds[0]
        look = None if place is None else self._looks.of(partition, place)
        if (look is None or look.fault) and now_s - since_s < begin_patience_s:
            return False
        if look is not None and look.broken is not None:
            first = self._found[partition].first if partition in self._found else look.broken.first
            self._found[partition] = Unreadable(first=first, next=look.broken.next, why=look.broken.why)
            self._since_s[partition] = now_s
            return False
        del self._since_s[partition]
        if look is not None and not look.fault:
            self._until[partition] = offset if look.batch is None else look.batch.end
        if partition in self._found:
            return True
        if look is None or look.fault:
            why = f"no answer in {begin_patience_s:g} s" if look is None else look.fault
            self._tell(
                partition, offset, f"what is stored there could not be looked at by hand ({why})", True
            )
        elif look.batch is None:
            self._tell(partition, offset, "nothing is stored there yet", False)
        elif look.batch.sound:
            self._tell(partition, offset, "the batch stored there is sound", False)
        else:
            doubtful = "what is stored there is not sound, and how far that goes is not certain"
            self._tell(partition, offset, doubtful, True)
        return True

    def _pass(self, partition: int, broken: Unreadable) -> None:
        self._looked.pop(partition, None)  # it is looked at again, should reading return there
        self._tell(partition, broken.next, f"{broken.detail}; passed over", True)
        self._ends_s = min(self._ends_s, self._clock.monotonic_s() + passed_patience_s)
