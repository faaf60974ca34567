"""Looks become samples, and samples of ten minutes become hints."""

from penstock.engine.hints.causes import Hints
from penstock.engine.hints.ring import HintRing
from penstock.engine.hints.sample import PartitionSample, Sample
from penstock.engine.watch.look import PartitionSeen, Seen


class Hinting:
    """What is to be said of an engine that is looked at now and then."""

    def __init__(self) -> None:
        self._ring = HintRing()

    def add(self, seen: Seen) -> Hints:
        """What is to be said now; nothing where the engine does not tell scaling.max_age_s."""
        if seen.max_age_s is None:
            return Hints()
        if not self._ring.due(seen.at_s):
            return self._ring.found
        return self._ring.add(sample_of(seen), max_age_s=seen.max_age_s)


def sample_of(seen: Seen) -> Sample:
    """What of a look the hints are made from."""
    return Sample(
        at_s=seen.at_s,
        workers=tuple(worker.counters for worker in seen.workers if worker.counters is not None),
        partitions=tuple(_partition(each) for each in seen.partitions),
    )


def _partition(each: PartitionSeen) -> PartitionSample:
    return PartitionSample(
        partition=each.partition,
        owner=each.owner,
        end=each.end,
        age_s=-each.ahead_s if each.ahead_s else each.age_s,
        waits=each.waits,
    )
