"""`penstock simulate`: what would take days or a cluster, from seeds; in a clone."""

import argparse
import importlib

from penstock.engine.cli.laboratory import find_laboratory
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = "Simulate what would take days or a cluster, from seeds that are printed."
example = "penstock simulate faults --seeds 1000"

kinds = {
    "faults": (
        "penstock_bench.faults",
        "many runs of the engine on a simulated Kafka: nothing lost, doubled, torn, out of order, wrong or silent, and none that hangs",
    ),
    "bugs": (
        "penstock_bench.faults",
        "the same with wrong versions of the engine, one after the other: how soon each is caught",
    ),
    "scaling": ("penstock_bench.scaling", "the scaling law beside its rivals under every kind of load"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind; without their options where the laboratory is not installed."""
    subparsers = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    here = find_laboratory()
    for kind, (place, title) in kinds.items():
        if not here:
            # Another prefix: options, which nobody knows here, are taken as words.
            subparser = subparsers.add_parser(kind, help=title, prefix_chars="+", add_help=False)
            subparser.add_argument("options", nargs="*")
            continue
        module = importlib.import_module(f"{place}.{kind}")
        subparser = subparsers.add_parser(kind, help=title, description=module.summary)
        module.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Simulate; 1 when anything was found. Raises ConfigError where the laboratory is not installed."""
    if not find_laboratory():
        raise ConfigError(
            "the simulation is not part of the installed package: run `penstock simulate` in a clone of the repository, after `make setup`"
        )
    module = importlib.import_module(f"{kinds[arguments.kind][0]}.{arguments.kind}")
    found: bool = module.run(arguments, terminal)
    return 1 if found else 0
