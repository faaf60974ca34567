"""Looks become samples, and samples of ten minutes become hints."""

from collections import deque
from typing import Final

from penstock.engine.hints.causes import Hints, hints
from penstock.engine.hints.sample import PartitionSample, Sample
from penstock.engine.watch.look import PartitionSeen, Seen

every_s: Final = 5.0
kept_s: Final = 600.0
_transaction, _registry = "a producer's transaction", "schema registry"


class Hinting:
    """Keeps a sample each five seconds, of the last ten minutes."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(kept_s / every_s) + 1)
        self._found = Hints()

    def add(self, seen: Seen) -> Hints:
        """What is to be said now; nothing where the engine does not tell scaling.max_age_s."""
        if seen.max_age_s is None:
            return Hints()
        if not self._samples or seen.at_s - self._samples[-1].at_s >= every_s * 0.9:
            self._samples.append(sample_of(seen))
            self._found = hints(tuple(self._samples), max_age_s=seen.max_age_s)
        return self._found


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
        waits_for_registry=_registry in each.waits,
        open_transaction=1.0 if _transaction in each.waits else 0.0,
    )
