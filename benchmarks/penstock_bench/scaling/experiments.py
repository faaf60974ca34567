"""What is run: rivals tuned on some loads, everybody measured on others, and what must not change anything."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from penstock_bench.scaling.autoscaler import Array
from penstock_bench.scaling.loads import Load, load, names
from penstock_bench.scaling.plant import Outcome, Policy, simulate
from penstock_bench.scaling.policies import Penstock, rivals

measures: Final = ("violation_min", "replica_min", "changes")
money_times: Final = 1.1
"""A rival's best setting is the one with the fewest violations that costs at most so many times Penstock's replica-minutes."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One policy over several loads: `table` (measures, settings, loads)."""

    name: str
    settings: list[str]
    table: Array
    outcomes: tuple[Outcome, ...]

    def total(self) -> Array:
        """Over the loads: (measures, settings)."""
        return np.asarray(self.table.sum(axis=2))


Spread = Callable[[Callable[[Load], Outcome], Sequence[Load]], Iterator[Outcome]]
"""A function over loads, here or in several processes; results in the order of the loads, the same either way."""


@contextmanager
def spread(processes: int) -> Iterator[Spread]:
    """How to go over loads with so many processes. Those are ended with the block."""
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool.map


def outcome(make: Callable[[], Policy], load: Load, *, commit_s: int = 5, batch: int = 50) -> Outcome:
    """Of a policy made anew, under one load; a plain function, for `spread`."""
    return simulate(load, make(), commit_s=commit_s, batch=batch)


def measure(
    make: Callable[[], Policy], loads: Sequence[Load], say: Callable[[str], None], over: Spread = map
) -> Measured:
    """The policy, made anew for each load."""
    policy, outcomes = make(), []
    for each, found in zip(loads, over(partial(outcome, make), loads), strict=True):
        outcomes.append(found)
        say(f"{policy.name}: {each.name}, seed {each.seed}")
    table = np.stack([np.stack([getattr(o, m) for o in outcomes], axis=-1) for m in measures])
    return Measured(name=policy.name, settings=policy.settings, table=table, outcomes=tuple(outcomes))


def tuned(rival: Measured, ours: Measured) -> int:
    """The setting that does best for comparable money."""
    violations, replicas, _ = rival.total()
    affordable = replicas <= money_times * ours.total()[1, 0]
    if not affordable.any():
        return int(np.argmin(replicas))
    return int(np.lexsort((replicas, np.where(affordable, violations, np.inf)))[0])


def better_on_all(rival: Array, ours: Array) -> list[tuple[int, int]]:
    """(setting, load) of each where a rival is better on every measure at once; equal on one is not better.

    `rival` (measures, settings, loads), `ours` (measures, loads).
    """
    dominated = (rival < ours[:, None, :]).all(axis=0)
    return [(int(setting), int(place)) for setting, place in np.argwhere(dominated)]


def by_kind(table: Array, kinds: Sequence[str], loads: Sequence[Load]) -> Array:
    """The sums over the seeds of each kind of load: (..., loads) to (..., kinds)."""
    return np.stack(
        [table[..., [each.name == kind for each in loads]].sum(axis=-1) for kind in kinds], axis=-1
    )


def sensitivity(
    loads: Sequence[Load], policies: Sequence[tuple[Callable[[], Policy], int]], over: Spread = map
) -> list[dict[str, Any]]:
    """Each policy at one setting with commits every 1 and 30 s, and batches of 50 and 500."""
    rows = []
    for commit_s, batch in ((1, 50), (30, 50), (1, 500)):
        for make, setting in policies:
            outcomes = list(over(partial(outcome, make, commit_s=commit_s, batch=batch), loads))
            totals = {m: float(sum(getattr(o, m)[setting] for o in outcomes)) for m in measures}
            rows.append({"policy": make().name, "commit_s": commit_s, "batch": batch, **totals})
    return rows


def compare(
    *,
    tuning_seeds: Sequence[int],
    seeds: Sequence[int],
    kinds: Sequence[str],
    say: Callable[[str], None],
    only: Sequence[str],
    over: Spread = map,
) -> dict[str, Any]:
    """Everything but the pictures; the figures as plain values, and under `_` what the pictures are drawn from."""
    chosen = [make for make in rivals if not only or make().name in only]
    tuning = [load(name, seed) for name in kinds for seed in tuning_seeds]
    loads = [load(name, seed) for name in kinds for seed in seeds]
    ours_tuning, ours = measure(Penstock, tuning, say, over), measure(Penstock, loads, say, over)
    found: dict[str, Any] = {
        "tuning_seeds": list(tuning_seeds), "seeds": list(seeds), "loads": list(kinds),
        "penstock": dict(zip(measures, ours.total()[:, 0].tolist(), strict=True)), "rivals": [],
        "dominated": [], "dominated_once": [],
    }  # fmt: skip
    drawn: dict[str, Any] = {"loads": loads, "ours": ours, "rivals": []}
    found["per_load"] = [
        {
            "load": each.name, "seed": each.seed, "policy": ours.name,
            **dict(zip(measures, ours.table[:, 0, place].tolist(), strict=True)),
            "late_share": float(ours.outcomes[place].late_share[0]), "p99_age_s": float(ours.outcomes[place].p99_age_s[0]),
        }
        for place, each in enumerate(loads)
    ]  # fmt: skip
    for make in chosen:
        best = tuned(measure(make, tuning, say, over), ours_tuning)
        rival = measure(make, loads, say, over)
        found["rivals"].append(
            {"name": rival.name, "setting": rival.settings[best], **dict(zip(measures, rival.total()[:, best].tolist(), strict=True))}
        )  # fmt: skip
        of_kinds = better_on_all(
            by_kind(rival.table[:, [best]], kinds, loads), by_kind(ours.table[:, 0], kinds, loads)
        )
        found["dominated"] += [
            {"rival": rival.name, "setting": rival.settings[best], "load": kinds[place]}
            for _, place in of_kinds
        ]
        found["dominated_once"] += [
            {
                "rival": rival.name, "setting": rival.settings[setting], "load": loads[place].name, "seed": loads[place].seed,
                "tuned": setting == best,
            }
            for setting, place in better_on_all(rival.table, ours.table[:, 0])
        ]  # fmt: skip
        found["per_load"] += [
            {
                "load": each.name, "seed": each.seed, "policy": rival.name,
                **dict(zip(measures, rival.table[:, best, place].tolist(), strict=True)),
                "late_share": float(rival.outcomes[place].late_share[best]),
                "p99_age_s": float(rival.outcomes[place].p99_age_s[best]),
            }
            for place, each in enumerate(loads)
        ]  # fmt: skip
        drawn["rivals"].append((rival, best))
    found["sensitivity"] = sensitivity(loads[:2], [(Penstock, 0)], over)
    return found | {"_": drawn}


all_kinds: Final = names
