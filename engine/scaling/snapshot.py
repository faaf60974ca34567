"""What the law decides on: one moment of the group, in numbers only."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import InvariantError


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The group at one moment. Every number is finite and not negative; arrays have one value per partition, ascending.

    `arrivals`: records per second and partition, forecast over `horizon_s`; `arrivals_now`: as they are; `backlog`: records that
    wait; `owners`: the member that has a partition, from 0, -1 for nobody; `left_out`: partitions that no worker gets on with,
    and why.
    """

    arrivals: NDArray[np.float64]
    arrivals_now: NDArray[np.float64]
    backlog: NDArray[np.float64]
    owners: NDArray[np.int64]
    oldest_age_s: float
    capacity_records_per_s: float | None  # of one worker; None when nobody has measured it yet
    startup_s: float  # how long a new worker takes until it helps
    rebalance_s: float  # how long partitions stand still when they change hands
    horizon_s: float  # until a number that is asked for now has its effect
    replicas_now: int  # with partitions, or reporting
    starting: int = 0  # workers that report and have not joined yet
    watched_s: float = math.inf  # how long the offsets have been looked at
    left_out: dict[int, str] = field(default_factory=dict)
    quiet: bool = True  # the assignment has not changed lately
    finished_records_per_s: float = 0.0  # by all workers together, over a short window

    def __post_init__(self) -> None:
        numbers = (
            self.oldest_age_s, self.capacity_records_per_s or 0.0, self.startup_s, self.rebalance_s, self.horizon_s,
            self.replicas_now, self.finished_records_per_s,
        )  # fmt: skip
        finite = all(math.isfinite(number) and number >= 0 for number in numbers)
        arrays = (self.arrivals, self.arrivals_now, self.backlog)
        if not finite or not all(np.isfinite(array).all() and (array >= 0).all() for array in arrays):
            raise InvariantError(f"a demand that is no number cannot be planned for: {self}")

    @property
    def partitions(self) -> int:
        """Of the input topic."""
        return len(self.backlog)
