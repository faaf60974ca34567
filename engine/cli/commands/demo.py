"""`penstock demo`: broker, topics, model, producer, worker and a live view, on one machine, and an account at the end."""

import argparse

from penstock.engine.console.terminal import Terminal
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

summary = (
    "Everything on one machine: a real Apache Kafka, a model trained on real flights of 2013, a producer that streams the "
    "departures after its training months in order of time, and a worker that predicts and explains each exactly once."
)
example = "penstock demo --seconds 20 --rate 3000"

seconds_default = 30.0
rate_default = 4000


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
        default=rate_default,
        metavar="R",
        help=f"departures a second (default {rate_default})",
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
    if not 1 <= arguments.rate <= 200_000:
        raise ConfigError("--rate must be from 1 to 200000")
    try:
        from penstock.engine.demo.show import run_demo
    except ModuleNotFoundError as error:
        raise ConfigError(f"the demo needs {error.name}: {how_to_install('demo')}") from error

    return run_demo(terminal, seconds=arguments.seconds, rate=arguments.rate, broker=arguments.broker)
