"""`python -m tests.error_matrix.run`: lives through the matrix on an embedded Kafka, and writes its table."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.error_matrix.book import Book, Row
from tests.error_matrix.cells import code_name, codes, every_cell, later_code, sample, spots
from tests.error_matrix.lane import deadline_s
from tests.error_matrix.lanes import live_all
from tests.error_matrix.verdict import Verdict

broker_settings = {
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "3000",
    "broker.session.timeout.ms": "60000",  # a machine that is busy must not take the node for dead
}
letters = {
    "retry": "r",
    "abort and rewind": "a",
    "new producer": "n",
    "rejoin": "j",
    "exit Config": "C",
    "exit Unavailable": "U",
    "exit Fenced": "F",
    "exit Aborted": "A",
    "exit Invariant": "I",
    "not asked": "-",
    "FAULT": "**!**",
}


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every cell has a verdict and none is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.error_matrix.run", description=__doc__)
    parser.add_argument("--lanes", type=int, default=8, help="cells at the same time (%(default)s)")
    parser.add_argument("--per-spot", type=int, help="so many codes in each place, by chance; else all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="places whose name begins so")
    parser.add_argument("--codes", default="", help="only these codes, by number, with commas")
    parser.add_argument(
        "--report",
        type=Path,
        help="where the table is written; beside it, as .jsonl, every cell that it has, which the next run adds to",
    )
    parser.add_argument("--missing", action="store_true", help="only cells that the report does not have yet")
    parser.add_argument("--hours", type=float, help="so long at most")
    arguments = parser.parse_args(argv)
    cells = sample(arguments.per_spot, arguments.seed) if arguments.per_spot else every_cell()
    wanted = {int(code) for code in arguments.codes.split(",") if code} or set(codes)
    book = Book(arguments.report.with_suffix(".jsonl")) if arguments.report else None
    known = book.rows if book and arguments.missing else {}
    cells = [
        cell
        for cell in cells
        if cell.spot.name.startswith(arguments.only)
        and cell.code in wanted
        and (cell.spot.name, cell.code) not in known
    ]
    began_s = time.monotonic()
    done: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        done.append(verdict)
        if book:
            book.add(Row.of(verdict))
        if len(done) % 100 == 0:
            print(f"{len(done)} of {len(cells)} cells", flush=True)
            if book:
                arguments.report.write_text(report(book.in_order()))
        if verdict.faults or not verdict.struck or verdict.took_s > deadline_s / 2:
            print(f"{verdict.cell}: {verdict.outcome}, {verdict.took_s:.1f} s {verdict.faults}", flush=True)

    with EmbeddedKafka(settings=broker_settings) as kafka:
        ends_s = began_s + 3600 * arguments.hours if arguments.hours else None
        verdicts = live_all(cells, kafka.bootstrap_servers, arguments.lanes, tell, ends_s=ends_s)
    took_s = time.monotonic() - began_s
    print(f"{len(verdicts)} cells in {took_s:.0f} s: {dict(Counter(each.outcome for each in verdicts))}")
    if book:
        arguments.report.write_text(report(book.in_order()))
    return int(any(verdict.faults for verdict in verdicts))


def report(rows: Sequence[Row]) -> str:
    """The table as a page."""
    by_place = {(each.spot, each.code): each for each in rows}
    counts = Counter(each.outcome for each in rows)
    faults = [each for each in rows if each.faults]
    timed = [each for each in rows if each.took_s is not None and each.turn_s_max is not None]
    times = []
    if timed:
        slowest = max(timed, key=lambda each: each.took_s or 0.0)
        longest = max(timed, key=lambda each: each.turn_s_max or 0.0)
        times = [
            f"The slowest of the {len(timed):,} cells whose times were kept took {slowest.took_s:.1f} s ({slowest.place}), the",
            f"longest turn of the polling loop {longest.turn_s_max:.2f} s ({longest.place}).",
        ]
    asked = sum(each.outcome != "not asked" for each in rows)
    versions = sorted({each.versions for each in rows})
    lines = [
        "# What a worker does about every error code of the protocol",
        "",
        "Written by `python -m tests.error_matrix.run --report docs/figures/error-matrix.md`. A real worker (source, ledger,",
        "delivery, pipeline) reads and writes a real Kafka through a proxy, which answers one request with one code. In each cell",
        "records come before the code and behind it, and at the end a reader of committed records counts them: none lost, none",
        "twice (at least once: none lost), in order, with the right value, and exactly their offsets committed.",
        "",
        f"{'; '.join(versions)}. {len(rows):,} cells of {len(every_cell()):,}, {asked:,} of them asked, {len(faults)} faults.",
        *times,
        "Every cell as a line of JSON: [error-matrix.jsonl](error-matrix.jsonl). `make soak` adds cells that are missing.",
        "",
        "| | what the worker did | cells |",
        "|---|---|---:|",
        *(f"| {letters.get(name, name)} | {name} | {count} |" for name, count in counts.most_common()),
        "",
        "An exit is followed by the successor that the supervisor starts, which did the rest. `refused`: the broker did nothing;",
        "`top` and `inner`: it did what it was asked, and said the code at the top of its answer or of each thing in it. There is",
        "no cell for a batch that is refused as stored before (46) and was not: every client goes by that word.",
        "",
        *(f"{number}. {spot.name}" for number, spot in enumerate(spots, 1)),
        "",
        "| " + " | ".join(["code", *(str(number) for number in range(1, len(spots) + 1))]) + " |",
        "|---|" + "---|" * len(spots),
    ]
    for code in codes:
        row = [by_place.get((spot.name, code)) for spot in spots]
        if any(row):
            name = code_name(code) if code == later_code else f"{code} {code_name(code)}"
            told = [letters.get(each.outcome, each.outcome) if each else "" for each in row]
            lines.append(f"| {name} | " + " | ".join(told) + " |")
    for each in faults:
        lines += ["", f"**{each.place}**: {'; '.join(each.faults)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
