"""`penstock simulate scaling`: the scaling law beside its rivals, each tuned by a grid, on loads that none was tuned on."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.engine.console.terminal import Terminal
from penstock_bench.picture import require_folder
from penstock_bench.scaling.experiments import all_kinds, compare, measures, outcome, spread
from penstock_bench.scaling.loads import capacity_records_per_s, partitions, trace, zipf_steady
from penstock_bench.scaling.pictures import front, timeline
from penstock_bench.scaling.plant import Outcome
from penstock_bench.scaling.policies import Penstock, rivals

summary = "Penstock's scaling law beside KEDA's triggers, Flink's law and others on a simulated group, in seconds of a clock that is none."


zipf_seed: Final = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the simulation takes."""
    parser.add_argument(
        "--seeds",
        type=int,
        default=2,
        metavar="N",
        help="seeds of each load to measure on (default: %(default)s)",
    )
    parser.add_argument(
        "--tuning-seeds",
        type=int,
        default=1,
        metavar="N",
        help="seeds of each load to tune the rivals on (default: %(default)s)",
    )
    parser.add_argument(
        "--loads",
        default=",".join(all_kinds),
        metavar="NAMES",
        help="which, separated by commas (default: all)",
    )
    parser.add_argument(
        "--rivals",
        default="",
        metavar="NAMES",
        help=f"which of {', '.join(make().name for make in rivals)} (default: all)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="N",
        help="go over the loads in so many processes; the figures are the same (default: %(default)s)",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE.csv",
        help="a recorded load too: time stamp, count of five minutes",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="write scaling.md, scaling-front.svg and scaling-timeline.svg there",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Simulate and show; 1 where a tuned rival is better on everything on some kind of load."""
    require_folder(arguments.figures / "x" if arguments.figures else None, "--figures")
    kinds = [name.strip() for name in arguments.loads.split(",")]
    only = [name.strip() for name in arguments.rivals.split(",") if name.strip()]
    tuning = list(range(arguments.tuning_seeds))
    seeds = list(range(1000, 1000 + arguments.seeds))
    terminal.say(f"tuned on seeds {tuning}, measured on seeds {seeds}")
    hours = (24, 2) if arguments.trace is not None else ()
    with spread(arguments.processes) as over:
        # The longest first: the others are done beside it.
        recorded = [trace(arguments.trace, 1000, hours=each) for each in hours]
        apart = over(partial(outcome, Penstock), [*recorded, zipf_steady(zipf_seed)])
        found = compare(tuning_seeds=tuning, seeds=seeds, kinds=kinds, say=terminal.say, only=only, over=over)
        *traces, skewed = apart
    found["zipf"] = zipf(skewed)
    if traces:
        found["trace"] = [
            {"hours": each, "startup_s": 180, **{m: float(getattr(its, m)[0]) for m in measures}}
            for each, its in reversed(list(zip(hours, traces, strict=True)))
        ]
    if arguments.figures is not None:
        for name, drawn in (("scaling-front.svg", front(found)), ("scaling-timeline.svg", timeline(found))):
            (arguments.figures / name).write_text(drawn, encoding="utf-8")
        (arguments.figures / "scaling.md").write_text(table(found), encoding="utf-8")
        terminal.say(f"written: {arguments.figures}/scaling.md and two pictures")
    shown = {key: value for key, value in found.items() if key != "_"}
    if arguments.json:
        terminal.result(shown)
    else:
        terminal.say_lines(table(found))
    return 1 if found["dominated"] else 0


def zipf(found: Outcome) -> dict[str, Any]:
    """What became of the steady load of which a few partitions get much, and the fewest replicas that can do it nine times out of ten, placed by count."""
    load = zipf_steady(zipf_seed)
    rates = load.arrivals.mean(axis=0)
    feasible = next(n for n in range(1, partitions + 1) if _fullest(rates, n) <= capacity_records_per_s)
    return {
        "violation_min": float(found.violation_min[0]), "replicas": float(found.replica_min[0] / 120),
        "fewest_feasible": feasible,
    }  # fmt: skip


def _fullest(rates: "np.typing.NDArray[np.float64]", members: int) -> float:
    """Load of the fullest where an assignor that counts places by chance: exceeded in one case of ten."""
    rng = np.random.default_rng(0)
    owners = np.arange(partitions) % members
    loads = [np.bincount(owners, weights=rng.permutation(rates)).max() for _ in range(200)]
    return float(np.percentile(loads, 90))


def table(found: dict[str, Any]) -> str:
    """docs/figures/scaling.md."""
    lines = [
        "# The scaling law in simulation", "",
        "Made by `penstock simulate scaling --figures docs/figures`; nothing here ran on a cluster. 64 partitions, 100 records a second and",
        "replica, the autoscaler as Kubernetes reckons; rivals at the setting that was best on the tuning seeds at no more than 1.1 times the",
        f"replica-minutes. Tuned on seeds {found['tuning_seeds']}, measured on seeds {found['seeds']}; loads: {', '.join(found['loads'])}.", "",
        "| law | setting | violation minutes | replica-minutes | rebalances |", "|---|---|---|---|---|",
    ]  # fmt: skip
    ours = found["penstock"]
    for name, setting, row in (
        ("penstock", "max_age_s 30", ours),
        *((r["name"], r["setting"], r) for r in found["rivals"]),
    ):
        lines.append(
            f"| {name} | {setting} | {row['violation_min']:.0f} | {row['replica_min']:,.0f} | {row['changes']:.0f} |"
        )
    lines += [
        "",
        f"Better on all three measures at once: on {len(found['dominated'])} of the {len(found['loads'])} kinds of load one of these rivals, the seeds of a kind summed. In single",
        f"runs, of any setting of the grids: {len(found['dominated_once'])}.",
    ]
    lines += [f"- {d['rival']}, {d['setting']}: {d['load']}" for d in found["dominated"]]
    lines += [
        f"- {d['rival']}, {d['setting']}{', the tuned one' if d['tuned'] else ''}: {d['load']}, seed {d['seed']}"
        for d in found["dominated_once"]
    ]
    lines += ["", "| Penstock with | violation minutes | replica-minutes | rebalances |", "|---|---|---|---|"]
    for row in found["sensitivity"]:
        lines.append(
            f"| commits every {row['commit_s']} s, batches of {row['batch']} | {row['violation_min']:.0f} | {row['replica_min']:,.0f} | {row['changes']:.0f} |"
        )
    z = found["zipf"]
    lines += [
        "",
        f"Zipf 0.5, steady: {z['violation_min']:.0f} of 120 minutes in violation at {z['replicas']:.1f} replicas, where {z['fewest_feasible']} are the fewest that do nine times out of ten.",
    ]
    if "trace" in found:
        for t in found["trace"]:
            lines += [
                "",
                f"A recorded load (a count every five minutes, scaled to 1,000 a second), its first {t['hours']} hours, start-up {t['startup_s']} s: {t['violation_min']:.0f} minutes in violation, {t['replica_min']:,.0f} replica-minutes, {t['changes']:.0f} rebalances.",
            ]
    lines += [
        "",
        "| load | seed | law | violation minutes | late records | p99 age, s | replica-minutes | rebalances |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found["per_load"], key=lambda r: (r["load"], r["seed"])):
        lines.append(
            f"| {row['load']} | {row['seed']} | {row['policy']} | {row['violation_min']:.0f} | {row['late_share']:.2%} | {row['p99_age_s']:.0f} | {row['replica_min']:,.0f} | {row['changes']:.0f} |"
        )
    return "\n".join(lines) + "\n"
