"""Hooks of the polling loop: telemetry, and the limit on rejections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pipeline.batcher import Batch
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.ledger import Ledger
from penstock.schemas.records import Rejection
from penstock.schemas.waits import WaitKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Rows by where they wait."""

    batcher: int
    compute: int
    delivery: int


class Contact(Protocol):
    """What is known of the broker at one moment."""

    @property
    def address(self) -> str:
        """Where it is asked."""

    @property
    def answer_age_s(self) -> float:
        """Time since it last answered."""

    @property
    def fault(self) -> str:
        """The newest error since then, "" when there is none."""

    @property
    def partitions(self) -> int | None:
        """Of the input topic; None while unknown."""

    @property
    def outputs(self) -> Mapping[str, int]:
        """Partitions of each output topic."""

    @property
    def members(self) -> str:
        """Who is in the group, in words; "" unless it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pausing:
    """Which partitions an operator wants to stand still."""

    everything: bool = False
    partitions: frozenset[int] = frozenset()

    def __contains__(self, partition: int) -> bool:
        return self.everything or partition in self.partitions

    def __bool__(self) -> bool:
        return self.everything or bool(self.partitions)


nothing_paused: Final = Pausing()
paused_by_operator: Final = Held(kind=WaitKind.PAUSED, reason="paused by an operator, until resumed")


class PipelineHooks(Protocol):
    """Told what happens, on the polling thread; counts it and shows it."""

    def turn(self, *, ledger: Ledger, waiting: Waiting) -> None:
        """The loop is alive."""

    def draining(self) -> None:
        """The loop was asked to stop; what is in flight is being finished."""

    def batch_closed(self, batch: Batch) -> None:
        """A batch was handed to the compute side."""

    def delivered(self, finished: Sequence[Finished], *, took_s: float) -> None:
        """These batches are acknowledged, and their offsets are committed or about to be; `took_s` since submitted."""

    def rewound(self, *, cause: str) -> None:
        """Everything in flight was dropped and will be read again; the cause is abort, revoke, lost or hold."""

    def rebalanced(self, *, assigned: Sequence[int], lost: bool = False) -> None:
        """The assignment changed; `lost`: what went is another's already."""

    def holding(self, held: Mapping[int, Held]) -> None:
        """Exactly these partitions stand still now."""

    def stopped(self, *, unfinished: int) -> None:
        """The loop has ended with so many records unfinished, which will be read again."""


class Breaker(Protocol):
    """Stops a partition of which too much is set aside."""

    def observe(
        self,
        places: Callable[[], tuple[NDArray[np.int32], NDArray[np.int64]]],
        bad: NDArray[np.bool_],
        rejections: Sequence[Rejection],
    ) -> Mapping[int, str]:
        """Take in the next batch: partition and offset of each record, which are bad, and why. The partitions to stop
        behind this batch, each with a sentence for a person."""
