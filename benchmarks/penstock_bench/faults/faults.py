"""`penstock simulate faults`: runs of the engine under trouble, each replayed exactly by its seed."""

import argparse
import math
from typing import Any

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError
from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.runs import count_kinds, default_processes, simulate_all
from penstock_bench.faults.world import Result

summary = (
    "Whole workers (the engine's own pipeline, sources and sinks for Kafka) run in simulated time against a simulated Kafka. "
    "Calls are slow, refused, fenced, lost, late or doubled; workers are killed, frozen and started; the topic grows, loses "
    "records and is made anew. Then every record is counted by a checker that shares no code with the engine. The same seed "
    "gives the same run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[str(trouble) for trouble in Trouble],
        metavar="KIND",
        help=f"all of these kinds of trouble in each run, and no other: {', '.join(Trouble)}",
    )
    parser.add_argument(
        "--delivery", choices=("exactly_once", "at_least_once"), help="this one only (default: both, by seed)"
    )
    parser.add_argument(
        "--hours",
        type=float,
        help="so long at most: no further run begins then (default: until all are done)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=default_processes(),
        help="how many at once (default: one for each core)",
    )


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> bool:
    """Simulate and show; whether anything was found. Raises ConfigError for numbers that make no sense."""
    clock = clock or SystemClock()
    if arguments.seeds < 1 or arguments.processes < 1 or arguments.first < 0:
        raise ConfigError("--seeds and --processes are at least 1, and --first at least 0")
    if arguments.hours is not None and arguments.hours <= 0:
        raise ConfigError("--hours is more than 0")
    only = frozenset(Trouble(kind) for kind in arguments.only or ())
    began_s = clock.monotonic_s()
    ends_s = math.inf if arguments.hours is None else began_s + 3600 * arguments.hours
    failed: list[Result] = []
    done = records = 0
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    parts = simulate_all(seeds, only=only, mode=arguments.delivery, processes=arguments.processes)
    with terminal.progress(label="simulating", total=len(seeds)) as advance:
        for results in parts:
            for result in results:
                records += result.records
                if result.findings:
                    failed.append(result)
                    terminal.say(f"seed {result.seed}: {result.findings[0]}; {_replay(result, arguments)}")
            done += len(results)
            advance(len(results))
            if clock.monotonic_s() >= ends_s:
                parts.close()
                break
    took_s = clock.monotonic_s() - began_s
    terminal.say(
        f"{done} runs from seed {arguments.first} on with {records} records in {took_s:.0f} s: {len(failed)} with findings"
        + "".join(f", {count} {kind}" for kind, count in sorted(count_kinds(failed).items()))
    )
    terminal.result(_report(arguments, failed, done, records, took_s))
    return bool(failed)


def _replay(result: Result, arguments: argparse.Namespace) -> str:
    words = [f"penstock simulate faults --first {result.seed} --seeds 1"]
    if arguments.only:
        words.append(f"--only {' '.join(arguments.only)}")
    if arguments.delivery:
        words.append(f"--delivery {arguments.delivery}")
    return " ".join(words)


def _report(
    arguments: argparse.Namespace, failed: list[Result], seeds: int, records: int, took_s: float
) -> dict[str, Any]:
    return {
        "seeds": seeds,
        "first": arguments.first,
        "records": records,
        "took_s": round(took_s, 1),
        "failed": [
            {
                "seed": result.seed,
                "delivery": result.mode,
                "troubles": list(result.troubles),
                "digest": result.digest,
                "findings": [{"fault": str(f.fault), "what": f.what} for f in result.findings],
                "replay": _replay(result, arguments),
            }
            for result in sorted(failed, key=lambda result: result.seed)
        ],
    }
