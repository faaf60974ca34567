"""`penstock simulate bugs`: wrong versions of the engine, and how many runs it takes until the simulation catches each."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from penstock.engine.console.terminal import Terminal
from penstock_bench.faults.checker import Finding
from penstock_bench.faults.world import simulate
from penstock_bench.faults.wrong import delivery, pipeline, reading
from penstock_bench.faults.wrong.versions import Bug, planted

summary = (
    "Each of these bugs is put into the engine, one after the other, and the simulation runs until it finds it. A bug that it "
    "does not find in the given number of runs is one that the tests would let pass: exit 1."
)
seeds_max: Final = 600
known: Final[tuple[Bug, ...]] = (*reading.bugs, *delivery.bugs, *pipeline.bugs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """What showed a bug, in which run; None where nothing did."""

    bug: Bug
    runs: int
    finding: Finding | None


def catch(bug: Bug, *, runs_max: int = seeds_max) -> Caught:
    """Run the wrong version until something is found."""
    with planted(bug):
        for seed in range(runs_max):
            result = simulate(seed, only=frozenset(bug.only), mode=bug.mode, start=bug.start)
            if result.findings:
                return Caught(bug=bug, runs=seed + 1, finding=result.findings[0])
    return Caught(bug=bug, runs=runs_max, finding=None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--only", metavar="WORDS", help="bugs whose name has these words in it")
    parser.add_argument(
        "--runs-max", type=int, default=seeds_max, help="runs for each bug at most (default: %(default)s)"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table as Markdown as well")


def run(arguments: argparse.Namespace, terminal: Terminal) -> bool:
    """Plant, simulate and show; whether any bug was not caught."""
    chosen = [bug for bug in known if not arguments.only or arguments.only in bug.name]
    caught = [
        catch(bug, runs_max=arguments.runs_max) for bug in terminal.track(chosen, label="planting bugs")
    ]
    table = Table("bug", "runs", "found as", box=None)
    for each in caught:
        table.add_row(
            each.bug.name, str(each.runs), "not found" if each.finding is None else each.finding.fault
        )
    terminal.say(table)
    missed = [each.bug.name for each in caught if each.finding is None]
    terminal.say(f"{len(caught) - len(missed)} of {len(caught)} caught")
    if arguments.table is not None:
        arguments.table.write_text(markdown(caught))
    terminal.result(
        {
            "caught": len(caught) - len(missed),
            "bugs": [
                {
                    "name": each.bug.name,
                    "where": each.bug.where,
                    "runs": each.runs,
                    "found_as": None if each.finding is None else str(each.finding.fault),
                }
                for each in caught
            ],
        }
    )
    return bool(missed)


def markdown(caught: list[Caught]) -> str:
    """The table of a page."""
    lines = [
        "# Seeded bugs",
        "",
        "Written by `penstock simulate bugs --table docs/figures/bugs.md`: wrong versions of the engine, and the number of simulated",
        "runs until each was found. A test plants every one of them, and fails for one that is not found or that no longer",
        "changes the code.",
        "",
        "| bug | in | found as | runs |",
        "|---|---|---|---:|",
    ]
    lines += [
        f"| {each.bug.name} | `{each.bug.where}` | {'not found' if each.finding is None else each.finding.fault} | {each.runs} |"
        for each in caught
    ]
    return "\n".join(lines) + "\n"
