"""A consumer group in memory: members, generations, cooperative rebalances, committed offsets."""

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.memory.log import State, Transaction


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """What a member shows when it commits."""

    group: str
    member: str
    generation: int
    topic_id: str | None = None  # which topic of that name its offsets are of


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What a member has to do now."""

    expelled: bool = False
    revoke: tuple[int, ...] = ()
    grant: tuple[int, ...] = ()


_no_orders = Orders()


@dataclass(slots=True, eq=False)
class _Member:
    topic: str
    expires_after_s: float
    polled_at_s: float
    generation: int = -1
    target: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)


class Group:
    """Not thread-safe: the broker's lock guards it.

    Promises: a partition has one holder at a time, moves only after its holder let go (or was expelled), and not
    before transactions that hold offsets of it have ended.
    """

    def __init__(self, name: str, clock: Clock, partitions: Callable[[str], int]) -> None:
        self._name = name
        self._clock = clock
        self._partitions = partitions
        self._members: dict[str, _Member] = {}
        self._joined = 0
        self._generation = 0
        self._balanced: dict[str, int] = {}  # partitions per topic at the last rebalance
        self._unsettled: list[Transaction] = []
        self.committed: dict[tuple[str, int], int] = {}
        self.committed_topic_ids: dict[
            tuple[str, int], str | None
        ] = {}  # which topic of that name each is an offset of

    @property
    def members(self) -> list[str]:
        """Ids, in the order of joining."""
        return list(self._members)

    def join(self, topic: str, expires_after_s: float) -> str:
        """A new member's id."""
        self._joined += 1
        member = f"{self._name}-{self._joined}"
        self._members[member] = _Member(topic, expires_after_s, self._clock.monotonic_s())
        self._rebalance()
        return member

    def leave(self, member: str) -> None:
        """Gone, with everything it held."""
        if self._members.pop(member, None) is not None:
            self._rebalance()

    def sync(self, member: str) -> Orders:
        """A member polls: what it is to give up, or else what it now gets."""
        self._expel_silent()
        ours = self._members.get(member)
        if ours is None:
            return Orders(expelled=True)
        ours.polled_at_s = self._clock.monotonic_s()
        if self._balanced.get(ours.topic) != self._partitions(ours.topic):
            self._rebalance()
        revoke = ours.held - ours.target
        if revoke:
            return Orders(revoke=tuple(sorted(revoke)))
        ours.generation = self._generation
        wanted = ours.target - ours.held
        if not wanted:
            return _no_orders
        others = {
            p for m in self._members.values() if m is not ours and m.topic == ours.topic for p in m.held
        }
        grant = {p for p in wanted - others if not self.unstable(ours.topic, p)}
        ours.held |= grant
        return Orders(grant=tuple(sorted(grant)))

    def release(self, member: str, partitions: tuple[int, ...]) -> None:
        """A member let go."""
        ours = self._members.get(member)
        if ours is not None:
            ours.held -= set(partitions)

    def membership(self, member: str) -> Membership | None:
        """None while the member has no generation."""
        ours = self._members.get(member)
        if ours is None or ours.generation < 0:
            return None
        return Membership(group=self._name, member=member, generation=ours.generation)

    def accepts(self, membership: Membership) -> bool:
        """Whether this member, in this generation, may commit."""
        ours = self._members.get(membership.member)
        return ours is not None and ours.generation == membership.generation

    def hold(self, transaction: Transaction) -> None:
        """This transaction carries offsets of this group."""
        if transaction not in self._unsettled:
            self._unsettled.append(transaction)

    def apply(self, transaction: Transaction) -> None:
        """It ended: what it committed counts now."""
        if transaction in self._unsettled:
            self._unsettled.remove(transaction)
        if transaction.state is State.COMMITTED:
            for (group, topic, partition), offset in transaction.offsets.items():
                if group == self._name:
                    self.committed[topic, partition] = offset
                    self.committed_topic_ids[topic, partition] = transaction.topic_id

    def unstable(self, topic: str, partition: int) -> bool:
        """Whether an open transaction may still change the committed offset."""
        return any((self._name, topic, partition) in t.offsets for t in self._unsettled)

    def holder(self, topic: str, partition: int) -> str | None:
        """Who holds a partition."""
        return next((n for n, m in self._members.items() if m.topic == topic and partition in m.held), None)

    def _expel_silent(self) -> None:
        now_s = self._clock.monotonic_s()
        silent = [n for n, m in self._members.items() if now_s - m.polled_at_s > m.expires_after_s]
        for member in silent:
            del self._members[member]
        if silent:
            self._rebalance()

    def _rebalance(self) -> None:
        """Even shares that move as little as may be."""
        self._generation += 1
        for topic in {m.topic for m in self._members.values()}:
            members = [m for m in self._members.values() if m.topic == topic]
            partitions = self._partitions(topic)
            self._balanced[topic] = partitions
            free = set(range(partitions))
            share, extra = divmod(partitions, len(members))
            for m in sorted(members, key=lambda m: -len(m.held)):  # who has more keeps the odd one
                quota = share + (1 if extra > 0 else 0)
                m.target = set(sorted(m.held & free)[:quota])
                free -= m.target
                extra -= len(m.target) == share + 1
            for m in sorted(members, key=lambda m: len(m.target)):
                quota = share + (1 if extra > 0 else 0)
                taken = sorted(free)[: max(quota - len(m.target), 0)]
                extra -= len(m.target) <= share < len(m.target) + len(taken)
                m.target |= set(taken)
                free -= set(taken)
