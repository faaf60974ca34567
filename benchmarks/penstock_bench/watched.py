"""`penstock bench pipeline --watched`: what it costs that somebody looks, and what the looking itself takes."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from penstock.connectors.embedded.cluster import free_ports
from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.telemetry.metrics_reference import series_max
from penstock.schemas.errors import ConfigError, NotReadyError
from penstock_bench import module_command
from penstock_bench.audience import Seen
from penstock_bench.peers.contestants import Contestant, Entry, chosen, penstock
from penstock_bench.peers.environment import BenchEnvironment, open_environment
from penstock_bench.peers.latency import Latency, latencies
from penstock_bench.peers.statistics import ratios_told, verdict
from penstock_bench.peers.throughput import Run, measure_at_once, measure_throughput

turns_max: Final = 100
warm_up_records: Final = 40_000
turns_decide_min: Final = 3
"""The interval of fewer turns says nothing of what another turn would give."""
throughput_bar: Final = 0.02
"""What being watched may cost of the records a second."""
p99_bar_ms: Final = 1.0
scrape_bar_ms: Final = 50.0
supervisor_bar_mb: Final = 120.0
supervisor_bar_records: Final = 1_000_000
"""The supervisor's memory is held against its bar behind so many records, not fewer."""


def measure(
    *, turns: int, records: int, rate: int, seconds: float, seed: int, terminal: Terminal, clock: Clock
) -> dict[str, Any]:
    """Both at once for their records a second, then one after the other for their p99; shows it and returns all of it.

    Raises ConfigError, NotReadyError.
    """
    if not 1 <= turns <= turns_max:
        raise ConfigError(f"--watched is from 1 to {turns_max} turns")
    runs: dict[str, list[Run]] = {"plain": [], "watched": []}
    p99: dict[str, list[Latency]] = {"plain": [], "watched": []}
    seen: list[Seen] = []
    plain = chosen("penstock")[0]
    with open_environment(terminal, clock) as environment:
        terminal.say("a first run that counts for nobody, so that the broker is warm ...")
        measure_throughput(environment, plain, records=min(warm_up_records, records), seed=seed)
        for turn in range(turns):
            with looking_on(environment, seen) as port:
                both = {"plain": plain, "watched": _at_port(plain, port)}
                order = {name: both[name] for name in sorted(both, reverse=turn % 2 == 1)}
                for name, run in measure_at_once(environment, order, records=records, seed=seed).items():
                    runs[name].append(run)
        for turn in range(turns):
            for name in sorted(p99, reverse=turn % 2 == 1):
                p99[name].append(_latency(environment, plain, name, seen, rate, seconds, seed + turn))
    found = compared(runs, p99, seen, seed=seed)
    show(found, terminal)
    return found


def _latency(
    environment: BenchEnvironment, plain: Contestant, name: str, seen: list[Seen], rate: int, seconds: float, seed: int
) -> Latency:  # fmt: skip
    if name == "plain":
        return latencies(environment, plain, rates=[rate], seconds=seconds, seed=seed)[0]
    with looking_on(environment, seen) as port:
        return latencies(environment, _at_port(plain, port), rates=[rate], seconds=seconds, seed=seed)[0]


@contextmanager
def looking_on(environment: BenchEnvironment, seen: list[Seen]) -> Iterator[int]:
    """A port, and an audience at it; in the end `seen` has what the audience got."""
    port = free_ports(1)[0]
    report = Path(environment.folder, f"seen-{len(seen)}.json")
    with environment.beside(
        f"audience-{len(seen)}", module_command("penstock_bench.audience", str(port), str(report))
    ):
        yield port
    if not report.exists():
        raise NotReadyError("the audience ended before it said what it saw")
    seen.append(Seen(**json.loads(report.read_text(encoding="utf-8"))))


def _at_port(contestant: Contestant, port: int) -> Contestant:
    def start(entry: Entry, _: object) -> list[str]:
        return penstock(entry, http={"port": port})

    return replace(contestant, slug="penstock-watched", start=start)


def compared(
    runs: Mapping[str, Sequence[Run]], p99: Mapping[str, Sequence[Latency]], seen: Sequence[Seen], *, seed: int
) -> dict[str, Any]:  # fmt: skip
    """Of each turn what the watched one did for each that the plain one did, and what the watched one's p99 was above the other's."""
    pairs = list(zip(runs["plain"], runs["watched"], strict=True))
    rate = ratios_told([ours.records_per_s / theirs.records_per_s for theirs, ours in pairs], seed=seed)
    above_ms = [
        ours.p99_ms - theirs.p99_ms for theirs, ours in zip(p99["plain"], p99["watched"], strict=True)
    ]
    whole = all(run.lost == 0 and run.duplicated == 0 for each in runs.values() for run in each)
    supervisor_mb = max((run.first_process_mb or 0.0 for run in runs["watched"]), default=0.0)
    behind = max((run.records for run in runs["watched"]), default=0)
    figures = {
        "p99_above_ms": round(statistics.median(above_ms), 3),
        "scrape_p99_ms": round(max(each.scrape_p99_ms for each in seen), 2),
        "series": max(each.series for each in seen),
        "supervisor_mb": round(supervisor_mb, 1),
    }
    bars = {
        "p99_above_ms": p99_bar_ms,
        "scrape_p99_ms": scrape_bar_ms,
        "series": series_max,
        "supervisor_mb": supervisor_bar_mb,
    }
    verdicts = {name: "within" if figures[name] <= bar else "beyond" for name, bar in bars.items()}
    if behind < supervisor_bar_records and verdicts["supervisor_mb"] == "within":
        verdicts["supervisor_mb"] = "undecided"
    verdicts["records_per_s"] = verdict(rate, bar=throughput_bar) if whole else "beyond"
    if whole and len(pairs) < turns_decide_min:
        verdicts["records_per_s"] = "undecided"
    return {
        "turns": [{name: runs[name][turn].as_json() for name in runs} for turn in range(len(pairs))],
        "latencies": {name: [each.as_json() for each in found] for name, found in p99.items()},
        "events": sum(each.events for each in seen),
        "scrapes": sum(each.scrapes for each in seen),
        "watched_for_plain": rate,
        "records": behind,
        "whole": whole,
        **figures,
        "verdicts": verdicts,
    }  # fmt: skip


def show(found: Mapping[str, Any], terminal: Terminal) -> None:
    """The turns, and each figure beside its bar."""
    turns = Table(box=None, padding=(0, 1, 0, 0))
    for index, name in enumerate(
        ("turn", "", "records/s", "CPU us", "supervisor MB", "p99 ms", "lost/twice")
    ):
        turns.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for number, turn in enumerate(found["turns"]):
        for name, run in turn.items():
            p99 = found["latencies"][name][number]["p99_ms"]
            turns.add_row(
                str(number + 1), name, f"{run['records_per_s']:,.0f}", f"{run['engine_us_per_record']:.3f}",
                f"{run['first_process_mb']:.0f}", "never" if p99 is None else f"{p99:.2f}",
                f"{run.get('lost', '?')}/{run.get('duplicated', '?')}",
            )  # fmt: skip
    terminal.say(turns)
    rate, said = found["watched_for_plain"], found["verdicts"]
    for name, words in (
        ("records_per_s", f"watched for plain, records a second: {rate['mean']:.3f}, {rate['low']:.3f} to {rate['high']:.3f} with 95 %; bar {1 - throughput_bar:.2f}"),
        ("p99_above_ms", f"p99 above the plain one's, in the middle turn: {found['p99_above_ms']:.2f} ms; bar {p99_bar_ms:g} ms"),
        ("scrape_p99_ms", f"a scrape, p99: {found['scrape_p99_ms']:.1f} ms, of {found['scrapes']} beside {found['events']} events of pages; bar {scrape_bar_ms:g} ms"),
        ("series", f"series of a scrape: {found['series']}; bar {series_max:,}"),
        ("supervisor_mb", f"the supervisor at most: {found['supervisor_mb']:.0f} MB, behind {found['records']:,} records; bar {supervisor_bar_mb:g} MB behind {supervisor_bar_records:,}"),
    ):  # fmt: skip
        terminal.say(f"{words}: {said[name]}")
    terminal.say("every record once" if found["whole"] else "records are missing or came twice")
