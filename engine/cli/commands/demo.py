"""`penstock demo`: broker, topics, model, producer, worker and a live view, on one machine, and an account at the end."""

import argparse
import os

from penstock.engine.console.terminal import Terminal
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

summary = (
    "Everything on one machine: a real Apache Kafka, a model trained on real flights of 2013, a producer that streams the "
    "departures after its training months in order of time, and a worker that predicts and explains each exactly once."
)
example = "penstock demo --seconds 20 --rate 3000"

seconds_default = 30.0
rate_default_max = 4000
rate_a_core = 1000
"""Broker, producer, worker and the reader that decodes everything share the cores: more than this a core, and they wait for each other."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds_default,
        metavar="N",
        help=f"how long departures are streamed (default {seconds_default:g})",
    )
    parser.add_argument(
        "--rate",
        type=int,
        metavar="R",
        help=f"departures a second (default: {rate_a_core} for each core, at most {rate_default_max})",
    )
    parser.add_argument(
        "--broker",
        choices=("kafka", "memory"),
        default="kafka",
        help="kafka: a real one, embedded (default; needs Java); memory: Penstock's own, in this process",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Run the demo; 0 only if every record is accounted for."""
    if not 1 <= arguments.seconds <= 3600:
        raise ConfigError("--seconds must be from 1 to 3600")
    rate = (
        min(rate_a_core * (os.cpu_count() or 1), rate_default_max)
        if arguments.rate is None
        else arguments.rate
    )
    if not 1 <= rate <= 200_000:
        raise ConfigError("--rate must be from 1 to 200000")
    try:
        from penstock.engine.demo.show import run_demo
    except ModuleNotFoundError as error:
        raise ConfigError(f"the demo needs {error.name}: {how_to_install('demo')}") from error

    return run_demo(terminal, seconds=arguments.seconds, rate=rate, broker=arguments.broker)
