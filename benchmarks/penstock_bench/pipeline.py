"""`penstock bench pipeline`: Penstock from Kafka to Kafka, beside a hand-written Python loop and the limits, in one run."""

import argparse
from typing import Any

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock_bench.peers.contestants import chosen
from penstock_bench.peers.plan import Plan, carry_out, parse_rates

summary = (
    "Penstock on a real Kafka on this machine: throughput, CPU (engine and broker apart), memory, time from process start to the "
    "first committed output, and latency at an offered rate; 30 doubles a record, a model of 100 trees x depth 6. "
    "With --records 2000000 or more it also tells by how much memory grows."
)
_names = "penstock,penstock-onnxruntime,penstock-alo,penstock-explained,python-loop,echo,echo-eos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--only", default=_names, metavar="NAMES", help="these, comma-separated (default: %(default)s)"
    )
    parser.add_argument(
        "--records", type=int, default=600_000, help="on the input topic (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of order and records (default: %(default)s)")
    parser.add_argument(
        "--rates",
        default="1000",
        help="offered rates for latency, records a second; empty: none (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="at each offered rate (default: %(default)s)"
    )
    parser.add_argument(
        "--watched",
        type=int,
        metavar="TURNS",
        help="instead of all that: Penstock with three pages open and a scrape each second, Penstock that traces one batch in 100, and Penstock that nobody looks at, taking turns of two seconds, with so many starts of all three; then the p99 of one that is looked at every other few seconds (--seconds), above its own without; what a scrape takes and holds, and the supervisor's memory",
    )
    parser.add_argument(
        "--guarded",
        type=int,
        metavar="TURNS",
        help="instead of all that: Penstock with admin port, audit, signed and pinned model and Penstock without, taking turns of half a second, with so many pairs of starts",
    )


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show tables, and return all of it."""
    if arguments.guarded is not None:
        from penstock_bench.guarded import measure  # late: it needs the extra `sign`

        return measure(
            turns=arguments.guarded,
            records=arguments.records,
            seed=arguments.seed,
            terminal=terminal,
            clock=clock or SystemClock(),
        )
    if arguments.watched is not None:
        from penstock_bench import watched  # late, as the other: its traces need an extra

        return watched.measure(
            turns=arguments.watched,
            records=arguments.records,
            rate=parse_rates(arguments.rates)[0],
            seconds=arguments.seconds,
            seed=arguments.seed,
            terminal=terminal,
            clock=clock or SystemClock(),
        )
    plan = Plan(
        contestants=tuple(chosen(arguments.only)),
        onnxruntime_alone=True,
        records=arguments.records,
        seed=arguments.seed,
        rates=parse_rates(arguments.rates),
        seconds=arguments.seconds,
    )
    return carry_out(plan, terminal, clock or SystemClock())
