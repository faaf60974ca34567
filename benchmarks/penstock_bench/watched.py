"""`penstock bench pipeline --watched`: what it costs that somebody looks, and that batches are traced, each for itself; and what the looking takes."""

import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from penstock.connectors.embedded.cluster import free_ports
from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.tracing import TracingSettings
from penstock.engine.telemetry.metrics_reference import series_max
from penstock.engine.worker.startup.tracing import require_tracing
from penstock.schemas.errors import ConfigError, NotReadyError
from penstock_bench import module_command
from penstock_bench.audience import Seen, look_signal, rest_signal
from penstock_bench.collector import Collected
from penstock_bench.looks import latencies_in_turns
from penstock_bench.peers.contestants import Contestant, Entry, chosen, penstock
from penstock_bench.peers.environment import BenchEnvironment, open_environment
from penstock_bench.peers.latency import Latency, settle_broker
from penstock_bench.peers.statistics import ratios_told, verdict
from penstock_bench.peers.throughput import Run, measure_throughput
from penstock_bench.slices import measure_in_slices

turns_max: Final = 100
warm_up_records: Final = 40_000
turns_decide_min: Final = 3
"""The interval of fewer turns says nothing of what another turn would give."""
contestants: Final = ("plain", "watched", "traced")
throughput_bars: Final = {"watched": 0.02, "traced": 0.03}
"""What each may cost of the records a second."""
traced_one_in: Final = 100
slice_s: Final = 2.0
"""The supervisor looks four times a second: after each pause once at once, which is one time in nine."""
p99_bar_ms: Final = 1.0
scrape_bar_ms: Final = 50.0
supervisor_bar_mb: Final = 120.0
supervisor_bar_records: Final = 1_000_000
"""The supervisor's memory is held against its bar behind so many records, not fewer."""


def measure(
    *, turns: int, records: int, rate: int, seconds: float, seed: int, terminal: Terminal, clock: Clock
) -> dict[str, Any]:
    """All three in slices of two seconds each for their records a second, then one that is looked at now and then for its p99; shows
    it and returns all of it. `seconds`: how long it is looked at, and how long it is left alone, six times each.

    Raises ConfigError, NotReadyError.
    """
    if not 1 <= turns <= turns_max:
        raise ConfigError(f"--watched is from 1 to {turns_max} turns")
    require_tracing(TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces"))
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    p99: dict[str, list[Latency]] = {"plain": [], "watched": []}
    seen: list[Seen] = []
    seen_full: list[Seen] = []
    collected: list[Collected] = []
    plain = chosen("penstock")[0]
    with open_environment(terminal, clock) as environment:
        terminal.say("a first run that counts for nobody, so that the broker is warm ...")
        measure_throughput(environment, plain, records=min(warm_up_records, records), seed=seed)
        for turn in range(turns):
            with looking_on(environment, seen_full) as (port, audience), collecting(environment, collected) as (endpoint, collector):  # fmt: skip
                three = {"plain": plain, "watched": _at_port(plain, port), "traced": _traced(plain, endpoint)}
                first = turn % len(contestants)
                order = {name: three[name] for name in (*contestants[first:], *contestants[:first])}
                for name, run in measure_in_slices(
                    environment, order, records=records, seed=seed, beside={"watched": audience, "traced": collector}, each_s=slice_s,
                ).items():  # fmt: skip
                    runs[name].append(run)
        settle_broker(environment, plain, rate=rate, seconds=seconds, seed=seed)
        for turn in range(turns):
            with looking_on(environment, seen) as (port, audience):
                by_looks = latencies_in_turns(
                    environment, _at_port(plain, port), rate=rate, window_s=seconds, seed=seed + turn, looks=_looks(audience)
                )  # fmt: skip
            p99["plain"].append(by_looks[False])
            p99["watched"].append(by_looks[True])
    found = compared(runs, p99, seen, seen_full, collected, seed=seed)
    show(found, terminal)
    return found


def _looks(audience: int) -> Callable[[bool], None]:
    """Tells the process of an audience to look, or to stop."""
    return lambda looked: os.kill(audience, look_signal if looked else rest_signal)


@contextmanager
def looking_on(environment: BenchEnvironment, seen: list[Seen]) -> Iterator[tuple[int, int]]:
    """A port, and the process of an audience at it; in the end `seen` has what the audience got."""
    with _beside(environment, "audience", len(seen)) as (port, pid, report):
        yield port, pid
    seen.append(Seen(**_told(report, "the audience")))


@contextmanager
def collecting(environment: BenchEnvironment, collected: list[Collected]) -> Iterator[tuple[str, int]]:
    """Where traces can be sent, and the process that takes them; in the end `collected` has what came."""
    with _beside(environment, "collector", len(collected)) as (port, pid, report):
        yield f"http://127.0.0.1:{port}/v1/traces", pid
    collected.append(Collected(**_told(report, "the collector")))


@contextmanager
def _beside(environment: BenchEnvironment, kind: str, number: int) -> Iterator[tuple[int, int, Path]]:
    port = free_ports(1)[0]
    report = Path(environment.folder, f"{kind}-{number}.json")
    command = module_command(f"penstock_bench.{kind}", str(port), str(report))
    with environment.beside(f"{kind}-{number}", command) as pid:
        yield port, pid, report


def _told(report: Path, who: str) -> dict[str, Any]:
    if not report.exists():
        raise NotReadyError(f"{who} ended before it said what it got")
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def _at_port(contestant: Contestant, port: int) -> Contestant:
    def start(entry: Entry, _: object) -> list[str]:
        return penstock(entry, http={"port": port})

    return replace(contestant, slug="penstock-watched", start=start)


def _traced(contestant: Contestant, endpoint: str) -> Contestant:
    """One batch in a hundred; in a full stream, and after it stood still, all batches would be slow ones."""

    def start(entry: Entry, _: object) -> list[str]:
        tracing = {"endpoint": endpoint, "one_in": traced_one_in, "slow_ms": 600_000}
        return penstock(entry, tracing=tracing)

    return replace(contestant, slug="penstock-traced", start=start)


def compared(
    runs: Mapping[str, Sequence[Run]],
    p99: Mapping[str, Sequence[Latency]],
    seen: Sequence[Seen],
    seen_full: Sequence[Seen],
    collected: Sequence[Collected],
    *,
    seed: int,
) -> dict[str, Any]:
    """Of each turn what the watched and the traced one did for each that the plain one did, and what the watched one's p99 was above the
    plain one's. `seen`: at the offered rate; `seen_full`: while the records came as fast as they went."""
    rates = {
        name: ratios_told(
            [ours.records_per_s / theirs.records_per_s for theirs, ours in zip(runs["plain"], runs[name], strict=True)], seed=seed,
        )
        for name in throughput_bars
    }  # fmt: skip
    above_ms = [
        ours.p99_ms - theirs.p99_ms for theirs, ours in zip(p99["plain"], p99["watched"], strict=True)
    ]
    machine_cores = os.cpu_count() or 1
    looked_share = [
        (ours.cores - theirs.cores) / machine_cores
        for theirs, ours in zip(p99["plain"], p99["watched"], strict=True)
    ]
    whole = all(run.lost == 0 and run.duplicated == 0 for each in runs.values() for run in each)
    supervisor_mb = max((run.first_process_mb or 0.0 for run in runs["watched"]), default=0.0)
    behind = max((run.records for run in runs["watched"]), default=0)
    figures = {
        "cpu_share": round(statistics.median(looked_share), 5),
        "p99_above_ms": round(statistics.median(above_ms), 3),
        "scrape_p99_ms": round(max(each.scrape_p99_ms for each in seen), 2),
        "scrape_full_p99_ms": round(max(each.scrape_p99_ms for each in seen_full), 2),
        "series": max(each.series for each in (*seen, *seen_full)),
        "supervisor_mb": round(supervisor_mb, 1),
    }
    bars = {
        "cpu_share": throughput_bars["watched"],
        "p99_above_ms": p99_bar_ms,
        "scrape_p99_ms": scrape_bar_ms,
        "scrape_full_p99_ms": scrape_bar_ms,
        "series": series_max,
        "supervisor_mb": supervisor_bar_mb,
    }
    verdicts = {name: "within" if figures[name] <= bar else "beyond" for name, bar in bars.items()}
    if min(above_ms) <= p99_bar_ms < max(above_ms):  # two runs of the same stream differ by more
        verdicts["p99_above_ms"] = "undecided"
    if behind < supervisor_bar_records and verdicts["supervisor_mb"] == "within":
        verdicts["supervisor_mb"] = "undecided"
    batches = sum(each.batches for each in collected)
    for name, bar in throughput_bars.items():
        verdicts[name] = verdict(rates[name], bar=bar) if whole else "beyond"
        if whole and (len(runs[name]) < turns_decide_min or (name == "traced" and not batches)):
            verdicts[name] = "undecided"
    return {
        "turns": [{name: runs[name][turn].as_json() for name in runs} for turn in range(len(runs["plain"]))],
        "latencies": {name: [each.as_json() for each in found] for name, found in p99.items()},
        "events": sum(each.events for each in seen_full),
        "scrapes": sum(each.scrapes for each in seen_full),
        "scrape_p50_ms": round(statistics.median(each.scrape_p50_ms for each in seen), 2),
        "scrape_full_p50_ms": round(statistics.median(each.scrape_p50_ms for each in seen_full), 2),
        "traced_batches": batches,
        "spans": sum(each.spans for each in collected),
        "watched_for_plain": rates["watched"],
        "traced_for_plain": rates["traced"],
        "p99_above_each_ms": [round(each, 3) for each in above_ms],
        "cpu_share_each": [round(each, 5) for each in looked_share],
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
            p99 = found["latencies"][name][number]["p99_ms"] if name in found["latencies"] else ""
            turns.add_row(
                str(number + 1), name, f"{run['records_per_s']:,.0f}", f"{run['engine_us_per_record']:.3f}",
                f"{run['first_process_mb']:.0f}", "never" if p99 is None else p99 and f"{p99:.2f}",
                f"{run.get('lost', '?')}/{run.get('duplicated', '?')}",
            )  # fmt: skip
    terminal.say(turns)
    said = found["verdicts"]
    whats = {
        "watched": f"three pages open and a scrape each second, {found['events']} events and {found['scrapes']} scrapes",
        "traced": f"one batch in {traced_one_in} traced, {found['traced_batches']} batches of {found['spans']} spans",
    }
    for name, what in whats.items():
        rate, least = found[f"{name}_for_plain"], 1 - throughput_bars[name]
        terminal.say(
            f"{name} for plain ({what}), records a second: {rate['mean']:.3f}, {rate['low']:.3f} to {rate['high']:.3f} with 95 %; "
            f"bar {least:.2f}: {said[name]}"
        )
    for name, words in (
        ("cpu_share", f"CPU that looking takes, of all of the machine's, at the offered rate: {found['cpu_share']:.2%}, in all turns from {min(found['cpu_share_each']):.2%} to {max(found['cpu_share_each']):.2%}; bar {throughput_bars['watched']:.0%}"),
        ("p99_above_ms", f"p99 above the plain one's, in the middle turn: {found['p99_above_ms']:.2f} ms, in all from {min(found['p99_above_each_ms']):.2f} to {max(found['p99_above_each_ms']):.2f}; bar {p99_bar_ms:g} ms"),
        ("scrape_p99_ms", f"a scrape at the offered rate, p50 {found['scrape_p50_ms']:.1f} ms, p99 of the slowest run: {found['scrape_p99_ms']:.1f} ms; bar {scrape_bar_ms:g} ms"),
        ("scrape_full_p99_ms", f"a scrape while the stream has all cores, p50 {found['scrape_full_p50_ms']:.1f} ms, p99 of the slowest run: {found['scrape_full_p99_ms']:.1f} ms; bar {scrape_bar_ms:g} ms"),
        ("series", f"series of a scrape: {found['series']}; bar {series_max:,}"),
        ("supervisor_mb", f"the supervisor at most: {found['supervisor_mb']:.0f} MB, behind {found['records']:,} records; bar {supervisor_bar_mb:g} MB behind {supervisor_bar_records:,}"),
    ):  # fmt: skip
        terminal.say(f"{words}: {said[name]}")
    terminal.say("every record once" if found["whole"] else "records are missing or came twice")
