"""The stages run before the first record comes: what is slow once is slow then, and the batcher learns what a batch costs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.pipeline.batcher import CostCurve
from penstock.engine.pipeline.scorer import Scorer

small_runs, small_rows_max, runs = 4, 256, 2
"""How often a size is run; the first time is not counted."""
run_s_max = 0.25
"""A size that takes longer is the last: larger ones cost as much a row."""


bound_times, bound_s_min = 50.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """What a batch of `rows` rows takes behind the decoder."""

    rows: int
    ms: float


def rehearse(
    scorer: Scorer, rows: NDArray[np.generic], *, batch_rows_max: int, clock: Clock
) -> tuple[Rehearsed, ...]:
    """Run the stages behind the decoder at sizes up to `batch_rows_max`, on these rows (R, F) in turn, and time them."""
    found = []
    for size in sizes(batch_rows_max):
        fastest_s = float("inf")
        for run in range(small_runs if size <= small_rows_max else runs):
            batch = np.take(rows, range(run * size, (run + 1) * size), axis=0, mode="wrap")
            before_s = clock.monotonic_s()
            scorer.rehearse(batch)
            took_s = clock.monotonic_s() - before_s
            if run or took_s > run_s_max:
                fastest_s = min(fastest_s, took_s)
            if took_s > run_s_max:
                break
        found.append(Rehearsed(rows=size, ms=fastest_s * 1000))
        if fastest_s > run_s_max:
            break
    return tuple(found)


def sizes(batch_rows_max: int) -> list[int]:
    """Powers of four, and the limit itself."""
    powers = [4**power for power in range(16)]
    return [*(size for size in powers if size < batch_rows_max), batch_rows_max]


def batch_bound_s(rehearsed: tuple[Rehearsed, ...], batch_rows_max: int) -> float:
    """How long a batch may be in hand before its worker counts as hung."""
    return max(bound_s_min, bound_times * cost_curve(rehearsed).seconds(batch_rows_max))


def cost_curve(rehearsed: tuple[Rehearsed, ...]) -> CostCurve:
    """What the batcher goes by."""
    return CostCurve([(each.rows, each.ms / 1000) for each in rehearsed])
