"""`penstock check`: preflight, with the warm-up table."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal, printable
from penstock.engine.models.runtime.gpu_modes import ExecutionMode
from penstock.engine.settings.model import load_settings
from penstock.engine.settings.unencrypted import unencrypted_secrets
from penstock.engine.worker.preflight import Findings, Preflight

summary = (
    "Preflight: everything a worker proves before its first poll (bundle, device, golden batch, warm-up, schemas, topics, "
    "permissions, registry). Lists every fault and exits with 2 when there is one."
)
example = "penstock check penstock.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument("--no-kafka", action="store_true", help="leave out Kafka and the registry")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Check, and report; 0 when a worker would start."""
    settings = load_settings(arguments.settings)
    findings = Findings(
        good=[("settings", str(arguments.settings))],
        notes=[("unencrypted", sentence) for sentence in unencrypted_secrets(settings)],
    )
    preflight = Preflight(settings, SystemClock(), findings)
    if preflight.files():
        preflight.model()
        if not arguments.no_kafka:
            preflight.kafka()
            preflight.registry()
    _show(findings, terminal)
    terminal.result(as_json(findings))
    return 2 if findings.faults else 0


def as_json(findings: Findings) -> dict[str, Any]:
    """The findings for a program."""
    model, first = findings.model, findings.first_batch
    return {
        "ok": not findings.faults,
        "checks": dict(findings.good),
        "faults": [{"check": what, "fault": fault} for what, fault in findings.faults],
        "notes": [{"check": what, "note": note} for what, note in findings.notes],
        "device": model.device.name if model else None,
        "runtime": _runtime(findings),
        "warmup": [
            {"rows": timing.rows, "first_ms": timing.first_ms, "ms": timing.ms} for timing in model.warmup
        ]
        if model
        else [],
        "rehearsal": {
            "costs": [{"rows": each.rows, "ms": each.ms} for each in findings.rehearsed],
            "batch_rows_max": findings.batch_rows_max,
        },
        "first_batch": {
            "rows": first.rows,
            "first_ms": first.first_ms,
            "steady_ms": first.steady_ms,
            "ratio": first.ratio,
        }
        if first
        else None,
    }


def _runtime(findings: Findings) -> dict[str, Any] | None:
    model, bundle = findings.model, findings.bundle
    if model is None or bundle is None:
        return None
    return {
        "name": model.runtime,
        "reason": model.reason,
        "packaged": bundle.manifest.runtime.to_json(),
        "compared": [
            {"rows": each.rows, "onnxruntime_ms": each.onnxruntime_ms, "native_ms": each.native_ms}
            for each in model.compared
        ],
        "ways": [
            {
                "name": way.name,
                "fault": way.fault or None,
                "ms": [{"rows": rows, "ms": took_ms} for rows, took_ms in way.ms],
            }
            for way in model.ways
        ],
    }


def _show(findings: Findings, terminal: Terminal) -> None:
    for what, found in findings.good:
        terminal.say(Text.assemble(("ok     ", "green"), f"{what:<14}{printable(found)}"))
    for what, note in findings.notes:
        terminal.say(Text.assemble(("note   ", "yellow"), f"{what:<14}{printable(note)}"))
    for what, fault in findings.faults:
        terminal.say(Text.assemble(("fault  ", "bold red"), f"{what:<14}{printable(fault)}"))
    if findings.model is None:
        return
    warmup = _table("warm-up", "rows", "first, ms", "warm, ms", "rows/s")
    for timing in findings.model.warmup:
        warmup.add_row(
            f"{timing.rows:,}",
            f"{timing.first_ms:.3f}",
            f"{timing.ms:.3f}",
            f"{timing.rows / timing.ms * 1000:,.0f}",
        )
    terminal.say()
    terminal.say(warmup)
    if findings.model.compared:
        runtimes = _table("runtimes compared", "rows", "onnxruntime, ms", "native, ms", "times as fast")
        for each in findings.model.compared:
            runtimes.add_row(
                f"{each.rows:,}",
                f"{each.onnxruntime_ms:.3f}",
                f"{each.native_ms:.3f}",
                f"{each.speed_up:.1f}",
            )
        terminal.say()
        terminal.say(runtimes)
    if findings.model.ways:
        terminal.say()
        terminal.say(_ways(findings.model.ways))
        for way in findings.model.ways:
            if way.fault:
                terminal.say(f"{way.name}: {way.fault}")
    if findings.first_batch is None:
        return
    costs = _table("from the model to the messages", "records", "ms", "records/s")
    for cost in findings.rehearsed:
        costs.add_row(f"{cost.rows:,}", f"{cost.ms:.3f}", f"{cost.rows / cost.ms * 1000:,.0f}")
    terminal.say()
    terminal.say(costs)
    first = findings.first_batch
    terminal.say()
    terminal.say(
        f"The first batch after start, {first.rows:,} records, takes {first.first_ms:.2f} ms; those after it "
        f"{first.steady_ms:.2f} ms ({first.ratio:.2f}x)."
    )


def _ways(ways: Sequence[ExecutionMode]) -> Table:
    """What the model takes on its GPU in the ways that could be timed."""
    timed = [way for way in ways if way.ms]
    table = _table("ways to run it compared", "rows", *(f"{way.name}, ms" for way in timed))
    for row in zip(*(way.ms for way in timed), strict=True):
        table.add_row(f"{row[0][0]:,}", *(f"{took_ms:.3f}" for _, took_ms in row))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        *columns, title=Text(title, no_wrap=True, overflow="ignore"), box=None, title_justify="left"
    )
    for column in table.columns:
        column.justify = "right"
    return table
