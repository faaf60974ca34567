"""Partitions that stand still while the others go on: why, and from where each is read again."""

from collections.abc import Collection, Mapping

from penstock.engine.pipeline.compute import Held
from penstock.engine.pipeline.hooks import paused_by_operator


class Standstill:
    """What the loop keeps of partitions that wait for something, were stopped, or are paused by an operator."""

    def __init__(self) -> None:
        """Every partition goes on."""
        self._held: dict[int, Held] = {}
        self._from: dict[int, int] = {}
        self.paused: set[int] = set()

    @property
    def holds(self) -> bool:
        """Whether any partition cannot go on, paused ones left aside."""
        return bool(self._held)

    @property
    def partitions(self) -> set[int]:
        """Those of which nothing is to be fetched."""
        return self._held.keys() | self.paused

    @property
    def reasons(self) -> dict[int, Held]:
        """Every partition that stands still, and why."""
        return dict.fromkeys(self.paused, paused_by_operator) | self._held

    def hold(self, due: Mapping[int, Held], again: Mapping[int, int]) -> None:
        """These cannot go on; `again` has the offsets from which they are read when they can."""
        self._held |= due
        self._from |= {p: offset for p, offset in again.items() if p in due}

    def over(self, waiting: Collection[int]) -> list[int]:
        """Those that can go on, since they are not among the waiting any more."""
        return [p for p, held in self._held.items() if not held.stopped and p not in waiting]

    def let_go(self, over: Collection[int]) -> dict[int, int]:
        """They go on; from which offsets."""
        for partition in over:
            self._held.pop(partition, None)
        return {p: self._from.pop(p) for p in over if p in self._from}

    def learn(self, waiting: Mapping[int, Held]) -> bool:
        """Why they wait now; whether that is new of any."""
        changed = {p: waiting[p] for p in self._held if p in waiting and waiting[p] != self._held[p]}
        self._held |= changed
        return bool(changed)

    def forget(self, partitions: Collection[int]) -> None:
        """They are another worker's now."""
        for partition in partitions:
            self._held.pop(partition, None)
            self._from.pop(partition, None)
        self.paused.difference_update(partitions)

    def stopped(self, ours: Collection[int]) -> str | None:
        """Why the first of our partitions was stopped, where all of them were: then nothing is left to read."""
        stopped = {p: held for p, held in self._held.items() if held.stopped}
        if not ours or not set(ours) <= stopped.keys():
            return None
        partition = min(ours)
        return f"partition {partition}: {stopped[partition].reason}"
