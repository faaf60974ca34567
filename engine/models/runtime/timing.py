"""Batch sizes, and what models take for a batch of each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.ports import Model

compared_rows = (1, 16, 256, 1024)
compared_rows_on_gpu = (*compared_rows, 4096)
compared_runs = 5
compared_run_s_max = 0.02
"""Where a run takes longer than this, larger batches would tell no more."""


def buckets(batch_rows_max: int) -> list[int]:
    """The batch sizes that are run before the model is ready: powers of two, and the limit itself."""
    sizes = [1 << power for power in range(batch_rows_max.bit_length())]
    return [*(size for size in sizes if size < batch_rows_max), batch_rows_max]


def bucket_of(rows: int, batch_rows_max: int) -> int:
    """The smallest of `buckets(batch_rows_max)` that takes as many rows, 1 to `batch_rows_max`."""
    return min(1 << (rows - 1).bit_length(), batch_rows_max)


def batch_of(rows: NDArray[np.generic], size: int, *, run: int) -> NDArray[np.generic]:
    """Different `size` of these rows (R, F) for each run: repeated rows would measure the branch predictor."""
    return np.take(rows, range(run * size, (run + 1) * size), axis=0, mode="wrap")


def in_turns(
    models: Sequence[Model],
    rows: NDArray[np.generic],
    *,
    sizes: Sequence[int],
    runs: int,
    run_s_max: float,
    clock: Clock,
) -> list[tuple[int, list[float]]]:
    """Rows of a batch, and the milliseconds that each model takes for it: the fastest of a few runs after a first one.

    The models take turns, so that a slow moment meets all of them. Where a run takes longer than `run_s_max`, no larger
    batch is timed. Raises as the models do.
    """
    found = []
    for size in sizes:
        fastest_s = [float("inf")] * len(models)
        for run in range(runs + 1):
            batch = batch_of(rows, size, run=run)
            for place, model in enumerate(models):
                before_s = clock.monotonic_s()
                model.predict(batch)
                took_s = clock.monotonic_s() - before_s
                if run:  # the first one warms up
                    fastest_s[place] = min(fastest_s[place], took_s)
        found.append((size, [each_s * 1000 for each_s in fastest_s]))
        if max(fastest_s) > run_s_max:
            break
    return found


def compared_times(
    models: Sequence[Model],
    rows: NDArray[np.generic],
    *,
    sizes: Sequence[int],
    batch_rows_max: int,
    clock: Clock,
) -> list[tuple[int, list[float]]]:
    """As `in_turns`, at these sizes up to `batch_rows_max`, for a choice between the models at start."""
    return in_turns(
        models,
        rows,
        sizes=sorted({min(size, batch_rows_max) for size in sizes}),
        runs=compared_runs,
        run_s_max=compared_run_s_max,
        clock=clock,
    )
