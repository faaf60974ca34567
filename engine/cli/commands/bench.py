"""`penstock bench`: the figures of the README, measured here and now."""

import argparse
import importlib

from penstock.engine.console.terminal import Terminal

summary = "Measure Penstock on this machine, beside what else there is, in one run. A quiet machine gives honest figures."
example = "penstock bench explain --models 100x6,500x6"

kinds = {
    "codec": "Avro records to a matrix and results to Avro, beside fastavro",
    "explain": "SHAP values, beside shap, XGBoost, LightGBM, FastTreeSHAP, shapiq, treeshap and WOODELF; LIME beside lime",
    "peers": "records through a real Kafka, beside loops in Java and Python, Kafka Streams, Quix, Faust and MLServer",
    "predict": "trees by our kernel, beside ONNX Runtime and XGBoost",
    "pipeline": "records through a real Kafka, beside a hand-written Python loop",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind."""
    subparsers = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for kind, says in kinds.items():
        module = importlib.import_module(f"penstock_bench.{kind}")
        subparser = subparsers.add_parser(kind, help=says, description=module.summary)
        module.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Measure and show."""
    module = importlib.import_module(f"penstock_bench.{arguments.kind}")
    terminal.result(module.run(arguments, terminal))
    return 0
