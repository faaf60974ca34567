"""`penstock bench peers`: Penstock beside what else streams records through a model, on one Kafka in one run."""

import argparse
from pathlib import Path
from typing import Any

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock_bench.peers.contestants import chosen, contestants
from penstock_bench.peers.picture import draw
from penstock_bench.peers.plan import Plan, carry_out, parse_rates
from penstock_bench.picture import require_folder, write_figures

summary = (
    "Penstock beside hand-written loops in Java and Python, Kafka Streams, Quix Streams, Faust and MLServer, and two limits: one "
    "real Kafka on this machine, the same records (30 doubles) and the same model (100 trees x depth 6), one after the other in "
    "an order that the seed decides. Each is a process of its own with an environment of its own, made once. Three tenths of the "
    "records pass before the clock starts; at the end a read_committed reader counts every output. Latency is open loop: from "
    "the moment a record was due."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--only",
        default="",
        metavar="NAMES",
        help=f"only these, comma-separated, of: {', '.join(each.slug for each in contestants)}, onnxruntime",
    )
    parser.add_argument(
        "--records",
        type=int,
        default=600_000,
        help="on the input topic; slow ones get a part (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of order and records (default: %(default)s)")
    parser.add_argument(
        "--rates",
        default="1000,10000",
        help="offered rates for latency, records a second; empty: none (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="at each offered rate (default: %(default)s)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the figures into this file")


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show tables, and return all of it."""
    names = [name.strip() for name in arguments.only.split(",") if name.strip()]
    alone = not names or "onnxruntime" in names
    others = [name for name in names if name != "onnxruntime"]
    plan = Plan(
        contestants=tuple(chosen(",".join(others))) if others or not names else (),
        onnxruntime_alone=alone,
        records=arguments.records,
        seed=arguments.seed,
        rates=parse_rates(arguments.rates),
        seconds=arguments.seconds,
    )
    require_folder(arguments.picture, "--picture")
    found = carry_out(plan, terminal, clock or SystemClock())
    write_figures(arguments.picture, draw, found, terminal)
    return found
