"""Which member gets which partitions when there are n of them, as the assignor in force does it: by count, never by load."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Assignor = Literal["sticky", "range"]
"""`sticky`: cooperative-sticky of the classic protocol and uniform of the consumer protocol."""


def assign(owners: NDArray[np.int64], members: int, assignor: Assignor) -> NDArray[np.int64]:
    """The member of each partition, from 0 to `members` - 1, shape (partitions,).

    `owners` are the present ones, -1 for nobody; members from `members` on have gone. Range gives neighbours to one
    member; sticky leaves what it can where it is, and no member has two partitions more than another.
    """
    partitions = len(owners)
    share = np.full(members, partitions // members, dtype=np.int64)
    if assignor == "range":
        share[: partitions % members] += 1
        return np.repeat(np.arange(members), share)
    held = np.where(owners < members, owners, -1)
    counts = np.bincount(held[held >= 0], minlength=members)
    most_first = np.argsort(-counts, kind="stable")
    share[most_first[: partitions % members]] += 1
    # Each member keeps its first partitions up to its share; the rest go, in order, to whoever has less than its share.
    order = np.argsort(held, kind="stable")
    sorted_held = held[order]
    first = np.searchsorted(sorted_held, np.arange(members))
    rank = np.arange(partitions) - first[np.maximum(sorted_held, 0)]
    kept = np.zeros(partitions, dtype=bool)
    kept[order] = (sorted_held >= 0) & (rank < share[np.maximum(sorted_held, 0)])
    given = np.where(kept, held, -1)
    lacking = share - np.bincount(given[given >= 0], minlength=members)
    given[~kept] = np.repeat(np.arange(members), lacking)
    return given


def fullest(loads: NDArray[np.float64], owners: NDArray[np.int64], members: int, assignor: Assignor) -> float:
    """Load of the member with the most, records per second, when there are so many members."""
    if not len(loads):
        return 0.0
    placed = assign(owners, members, assignor)
    return float(np.bincount(placed, weights=loads, minlength=members).max())


def fewest(
    loads: NDArray[np.float64],
    owners: NDArray[np.int64],
    assignor: Assignor,
    *,
    capacity: float,
    least: int,
    most: int,
    step: int = 1,
) -> int | None:
    """The fewest members, `least` to `most` by `step`, of which none has more than `capacity`; None where none will do.

    More members are not always better: which partitions come together changes with their number.
    """
    for members in range(least, most + 1, step):
        if fullest(loads, owners, members, assignor) <= capacity:
            return members
    return None
