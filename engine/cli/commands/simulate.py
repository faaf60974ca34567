"""`penstock simulate`: workers on a simulated Kafka under every kind of trouble, each run from one seed; in a clone."""

import argparse
import importlib

from penstock.engine.cli.laboratory import find_laboratory
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = (
    "Run workers on a simulated Kafka under every kind of trouble, drawn from seeds, and count every record."
)
example = "penstock simulate faults --seeds 1000"

kinds = {
    "faults": "many runs of the engine: nothing lost, doubled, torn, out of order, wrong or silent, and none that hangs",
    "bugs": "the same with wrong versions of the engine, one after the other: how soon each is caught",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind; without their options where the laboratory is not installed."""
    subparsers = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    here = find_laboratory()
    for kind, title in kinds.items():
        if not here:
            # Another prefix: options, which nobody knows here, are taken as words.
            subparser = subparsers.add_parser(kind, help=title, prefix_chars="+", add_help=False)
            subparser.add_argument("options", nargs="*")
            continue
        module = importlib.import_module(f"penstock_bench.faults.{kind}")
        subparser = subparsers.add_parser(kind, help=title, description=module.summary)
        module.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Simulate; 1 when anything was found. Raises ConfigError where the laboratory is not installed."""
    if not find_laboratory():
        raise ConfigError(
            "the simulation is not part of the installed package: run `penstock simulate` in a clone of the repository, after `make setup`"
        )
    module = importlib.import_module(f"penstock_bench.faults.{arguments.kind}")
    found: bool = module.run(arguments, terminal)
    return 1 if found else 0
