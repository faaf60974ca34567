"""`penstock simulate`: what would take days or a cluster, from seeds; in a clone."""

import argparse
import importlib

from penstock.engine.cli.laboratory import add_kinds, find_laboratory
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = "Simulate what would take days or a cluster, from seeds that are printed."
example = "penstock simulate faults --seeds 1000"

kinds = {
    "faults": "many runs of the engine on a simulated Kafka: nothing lost, doubled, torn, out of order, wrong or silent, and none that hangs",
    "bugs": "the same with wrong versions of the engine, one after the other: how soon each is caught",
    "scaling": "the scaling law beside its rivals under every kind of load",
}
modules = {
    "faults": "penstock_bench.faults.faults",
    "bugs": "penstock_bench.faults.bugs",
    "scaling": "penstock_bench.scaling.scaling",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind; without their options where the laboratory is not installed."""
    add_kinds(parser, kinds, modules, here=find_laboratory(), json="print what was found as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Simulate; 1 when anything was found. Raises ConfigError where the laboratory is not installed."""
    if not find_laboratory():
        raise ConfigError(
            "the simulation is not part of the installed package: run `penstock simulate` in a clone of the repository, after `make setup`"
        )
    module = importlib.import_module(modules[arguments.kind])
    found: bool = module.run(arguments, terminal)
    return 1 if found else 0
