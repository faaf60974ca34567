"""What a run consists of, carried out: who takes part, in which order, and the tables of what they did."""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.table import Table

from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError, NotReadyError
from penstock_bench.peers.alone import onnxruntime_alone
from penstock_bench.peers.contestants import Contestant, chosen
from penstock_bench.peers.environment import BenchEnvironment, open_environment
from penstock_bench.peers.latency import Latency, latencies, settle_broker
from penstock_bench.peers.statistics import ratio, shuffled
from penstock_bench.peers.throughput import Run, measure_throughput

Found = TypeVar("Found")
records_max: Final = 100_000_000
warm_up_records: Final = 40_000
alone_slug: Final = "onnxruntime"
alone_s: Final = 2.0
_short: Final = {"exactly-once": "EOS", "at-least-once": "ALO", "none": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run of a bench. Raises ConfigError for what makes no sense."""

    contestants: tuple[Contestant, ...]
    onnxruntime_alone: bool
    records: int
    seed: int
    rates: tuple[int, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not 2_000 <= self.records <= records_max:
            raise ConfigError(f"--records is from 2000 to {records_max}")
        if not 1 <= self.seconds <= 600:
            raise ConfigError("--seconds is from 1 to 600")


def parse_rates(text: str) -> tuple[int, ...]:
    """Records a second, ascending. Raises ConfigError."""
    try:
        rates = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError as error:
        raise ConfigError(f"--rates {text} is not a comma-separated list of numbers") from error
    if rates and not 1 <= rates[0] <= rates[-1] <= 1_000_000:
        raise ConfigError("--rates are from 1 to 1000000 records a second")
    return tuple(rates)


def carry_out(plan: Plan, terminal: Terminal, clock: Clock) -> dict[str, Any]:
    """Make ready who can take part, measure, show the tables, and return all of it."""
    ready, skipped = _ready(plan.contestants, terminal)
    laps: dict[str, Run] = {}
    slow: dict[str, list[Latency]] = {}
    alone: dict[str, dict[str, float]] = {}
    with open_environment(terminal, clock) as environment:
        terminal.say("a first run that counts for nobody, so that the broker is warm ...")
        measure_throughput(
            environment, chosen("python-loop")[0], records=min(warm_up_records, plan.records), seed=plan.seed
        )
        order: list[Contestant | None] = shuffled(
            [*ready, *([None] if plan.onnxruntime_alone else [])], plan.seed
        )
        for contestant in order:
            if contestant is None:
                terminal.say("ONNX Runtime alone ...")
                alone = onnxruntime_alone(environment.workload.onnx, seconds=alone_s, seed=plan.seed)
            else:
                lap = _tried(contestant, skipped, _racing(environment, contestant, plan))
                if lap is not None:
                    laps[contestant.slug] = lap
        if plan.rates:
            # Full speed has not compiled what the broker does for small requests: that took half of the time of the first
            # contestants at a low rate.
            settle_broker(
                environment,
                chosen("python-loop")[0],
                rate=plan.rates[0],
                seconds=plan.seconds,
                seed=plan.seed,
            )
        for contestant in shuffled([each for each in ready if each.slug in laps], plan.seed + 1):
            rates = plan.rates[: {"none": 0, "lowest": 1, "all": len(plan.rates)}[contestant.offered]]
            if rates:
                latency = _tried(contestant, skipped, _offered(environment, contestant, plan, rates))
                if latency is not None:
                    slow[contestant.slug] = latency
    found = _as_json(plan, [each.slug if each else alone_slug for each in order], laps, slow, alone, skipped)
    show(found, terminal)
    return found


def _ready(
    contestants: tuple[Contestant, ...], terminal: Terminal
) -> tuple[list[Contestant], dict[str, str]]:
    """Who can take part, and why the others cannot."""
    ready, skipped = [], {}
    for contestant in contestants:
        try:
            contestant.prepare(terminal.say)
            ready.append(contestant)
        except ConfigError as error:
            skipped[contestant.slug] = str(error)
            terminal.say(f"{contestant.slug} does not take part: {error}")
    return ready, skipped


def _racing(environment: BenchEnvironment, contestant: Contestant, plan: Plan) -> Callable[[], Run]:
    return lambda: measure_throughput(environment, contestant, records=plan.records, seed=plan.seed)


def _offered(
    environment: BenchEnvironment, contestant: Contestant, plan: Plan, rates: tuple[int, ...]
) -> Callable[[], list[Latency]]:
    return lambda: latencies(environment, contestant, rates=rates, seconds=plan.seconds, seed=plan.seed)


def _tried(contestant: Contestant, skipped: dict[str, str], measure: Callable[[], Found]) -> Found | None:
    """A rival that fails is told of, and the others go on; one of ours ends the bench."""
    try:
        return measure()
    except NotReadyError as error:
        if contestant.ours:
            raise
        skipped[contestant.slug] = str(error)
        return None


def _as_json(
    plan: Plan,
    order: list[str],
    laps: dict[str, Run],
    slow: dict[str, list[Latency]],
    alone: dict[str, dict[str, float]],
    skipped: dict[str, str],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for contestant in plan.contestants:
        if contestant.slug not in laps:
            continue
        lap = laps[contestant.slug]
        ours = laps.get("penstock-explained" if contestant.explains else "penstock")
        faster = ratio(ours.records_per_s if ours and not contestant.limit else None, lap.records_per_s)
        found[contestant.slug] = {
            "title": contestant.title,
            "guarantee": contestant.guarantee,
            **({"note": contestant.note} if contestant.note else {}),
            **lap.as_json(),
            **({} if faster is None else {"penstock_is_times": round(faster, 3)}),
            "latency": [latency.as_json() for latency in slow.get(contestant.slug, [])],
        }
    return {
        "machine": _machine(),
        "records": plan.records,
        "seed": plan.seed,
        "order": order,
        "contestants": found,
        "onnxruntime_alone": alone,
        "skipped": skipped,
    }


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text(errors="replace")) if info.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[2], 2),
        "python": platform.python_version(),
    }


def show(found: dict[str, Any], terminal: Terminal) -> None:
    """The tables of a run."""
    terminal.say("EOS exactly-once, ALO at-least-once; CPU in us a record, memory in MB; first: seconds from process start to the first output")  # fmt: skip
    terminal.say(_throughput(found))
    for slug, each in found["contestants"].items():
        if "growth_mb_per_million" in each:
            terminal.say(f"memory of {slug}: {each['growth_mb_per_million']:+.2f} MB a million records")
        for key in ("note", "why"):
            if key in each:
                terminal.say(f"{slug}: {each[key]}")
    if any(each["latency"] for each in found["contestants"].values()):
        terminal.say(_offered_rates(found))
    for slug, why in found["skipped"].items():
        terminal.say(f"not measured: {slug}: {why}")


def _throughput(found: dict[str, Any]) -> Table:
    names = ("", "", "records/s", "Penstock", "CPU", "broker", "peak", "first", "lost/twice")
    table = _table(names)
    for slug, each in found["contestants"].items():
        table.add_row(
            slug,
            _short[each["guarantee"]],
            f"{each['records_per_s']:,.0f}",
            f"{each['penstock_is_times']:.2f}x" if "penstock_is_times" in each else "",
            f"{each['engine_us_per_record']:.4g}",
            f"{each['broker_us_per_record']:.4g}",
            f"{each['peak_mb']:.0f}",
            f"{each['first_output_s']:.1f}" if "first_output_s" in each else "",
            f"{each.get('lost', '?')}/{each.get('duplicated', '?')}",
        )
    for batch, each in found["onnxruntime_alone"].items():
        table.add_row(f"onnxruntime, by {batch}", "", f"{each['rows_per_s']:,.0f}", "", f"{each['us_per_row']:.2f}")  # fmt: skip
    return table


def _offered_rates(found: dict[str, Any]) -> Table:
    table = _table(("", "", "offered/s", "p50 ms", "p99 ms", "p99.9 ms", "unanswered", "sent late"))
    for slug, each in found["contestants"].items():
        for at in each["latency"]:
            figures = [
                "never" if at[name] is None else f"{at[name]:,.1f}"
                for name in ("p50_ms", "p99_ms", "p999_ms")
            ]
            table.add_row(slug, _short[each["guarantee"]], f"{at['rate']:,}", *figures, str(at["unanswered"]), f"{at['late_p99_ms']:.1f}")  # fmt: skip
    return table


def _table(names: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    return table
