"""`penstock score`: files of records scored as the stream scores them."""

import argparse
from typing import Any

from penstock.engine.batch.errors import ScoreError
from penstock.engine.batch.run import Report, Request, prepare
from penstock.engine.batch.run import run as run_prepared
from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = (
    "Score files with the stream's own stages: the same values to the bit, and the same reasons for what is set aside. Memory "
    "does not grow with the input; a run that was stopped goes on with the parts that are left; nothing half-written ever "
    "stands under the final name."
)
example = "penstock score models/fraud transactions/2026-11-*.parquet --out scores.parquet --explain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the model bundle")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="Parquet, CSV (.gz too) or JSON lines: a file, a folder, a glob in quotes, or any address that fsspec opens",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="OUTPUT",
        help="one file (.parquet, .jsonl), or any other name: a folder with a file for each part",
    )
    parser.add_argument(
        "--dead-letters",
        metavar="FILE",
        help="what is set aside and why, as JSON lines (default: OUTPUT.dead-letters.jsonl)",
    )
    parser.add_argument("--explain", action="store_true", help="say why, for every record")
    parser.add_argument(
        "--top", type=int, default=0, metavar="N", help="only the strongest N attributions (default 0: all)"
    )
    parser.add_argument(
        "--output",
        default="predicted",
        metavar="NAME",
        help="what is explained: predicted (default), or a class or output",
    )
    parser.add_argument(
        "--keep",
        default="",
        metavar="COLUMNS",
        help="columns of the input to pass on, comma-separated; none that is called as one of the results",
    )
    parser.add_argument(
        "--format", choices=("parquet", "csv", "jsonl"), help="of the input, where its name does not say it"
    )
    parser.add_argument(
        "--output-format", choices=("parquet", "jsonl"), help="of the files in a folder (default: parquet)"
    )
    parser.add_argument(
        "--delimiter", default=",", metavar="CHAR", help="between the columns of a CSV file (default: ,)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the parts: row groups of Parquet, ranges of lines of JSON, ranges of records of CSV (default 1)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda or cuda:1"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "onnxruntime", "native"),
        default="auto",
        help="as model.runtime of the stream; name the stream's to get its very bits",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run_request(request: Request, terminal: Terminal) -> Report:
    """Score with a progress bar."""
    prepared = prepare(request)
    with terminal.progress(label=f"scoring {request.input}", total=prepared.rows) as advance:
        return run_prepared(prepared, SystemClock(), advance)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Score the files."""
    if arguments.top < 0:
        raise ConfigError("--top cannot be negative")
    if not arguments.explain and (arguments.top or arguments.output != "predicted"):
        raise ConfigError("--top and --output go with --explain")
    if len(arguments.delimiter.encode()) != 1:
        raise ConfigError("--delimiter is one character")
    request = Request(
        bundle=arguments.bundle,
        input=arguments.input,
        out=arguments.out,
        dead_letters=arguments.dead_letters,
        input_format=arguments.format,
        output_format=arguments.output_format,
        explain=arguments.explain,
        output=arguments.output,
        top=arguments.top,
        keep=tuple(name.strip() for name in arguments.keep.split(",") if name.strip()),
        delimiter=arguments.delimiter,
        device=arguments.device,
        runtime=arguments.runtime,
        processes=arguments.processes,
        overwrite=arguments.overwrite,
    )
    report = run_request(request, terminal)
    counts = report.counts
    rate = (counts.predicted + counts.rejected) / max(report.seconds, 1e-9)
    terminal.say(
        f"{_records(counts.predicted)} scored in {report.seconds:.1f} s ({rate:,.0f}/s): {report.out}"
    )
    if report.parts_resumed:
        terminal.say(f"{report.parts_resumed} of {report.parts} parts were there from an earlier run")
    if counts.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.reasons.items()))
        terminal.say(f"{_records(counts.rejected)} set aside ({reasons}): {report.dead_letters}")
    terminal.result(_json(report))
    if counts.rejected and not counts.predicted:
        raise ScoreError("every record was set aside: the input is hardly meant for this model")
    return 0


def _json(report: Report) -> dict[str, Any]:
    counts = report.counts
    return {
        "out": report.out,
        "dead_letters": report.dead_letters,
        "predicted": counts.predicted,
        "rejected": counts.rejected,
        "reasons": counts.reasons,
        "files": report.files,
        "parts": report.parts,
        "parts_resumed": report.parts_resumed,
        "seconds": report.seconds,
    }


def _records(count: int) -> str:
    return f"{count:,} record{'s' * (count != 1)}"
