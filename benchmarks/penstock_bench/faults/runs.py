"""Many seeds, by several processes."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.journal import Mode
from penstock_bench.faults.world import Result, simulate

seeds_per_task = 25


def default_processes() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def simulate_all(
    seeds: Sequence[int],
    *,
    only: frozenset[Trouble] = frozenset(),
    mode: Mode | None = None,
    processes: int = 1,
) -> Generator[list[Result], None, None]:
    """The results of all seeds, some at a time; in the order of the seeds with one process, else as they come. Closed, it ends
    when what is under way does."""
    tasks = [(seeds[i : i + seeds_per_task], only, mode) for i in range(0, len(seeds), seeds_per_task)]
    if processes == 1:
        yield from (_some(*task) for task in tasks)
        return
    todo = iter(tasks)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        under_way: set[Future[list[Result]]] = {
            pool.submit(_some, *task) for task in islice(todo, 2 * processes)
        }
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                under_way |= {pool.submit(_some, *task) for task in islice(todo, 1)}
                yield future.result()


def _some(seeds: Sequence[int], only: frozenset[Trouble], mode: Mode | None) -> list[Result]:
    return [simulate(seed, only=only, mode=mode) for seed in seeds]


def count_kinds(results: Sequence[Result]) -> Counter[str]:
    """How many runs have a finding of each kind."""
    return Counter(fault for result in results for fault in {finding.fault for finding in result.findings})
