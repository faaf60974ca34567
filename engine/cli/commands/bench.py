"""`penstock bench`: the figures of the README, measured here and now."""

import argparse
import importlib

from penstock.engine.cli.laboratory import add_kinds, find_laboratory
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

summary = "Measure Penstock on this machine, beside what else there is, in one run. A quiet machine gives honest figures."
example = "penstock bench explain --models 100x6,500x6"

kinds = {
    "codec": "Avro records to a matrix and results to Avro, beside fastavro",
    "explain": "SHAP values, beside shap, XGBoost, LightGBM, FastTreeSHAP, shapiq, treeshap and WOODELF; LIME beside lime",
    "score": "files through `penstock score`, beside the bare kernels",
    "peers": "records through a real Kafka, beside loops in Java and Python, Kafka Streams, Quix, Faust and MLServer",
    "predict": "trees by Penstock's kernel, beside ONNX Runtime and XGBoost",
    "size": "a deep forest of millions of nodes: memory and time to package it, and of a worker",
    "pipeline": "records through a real Kafka, beside a hand-written Python loop",
    "replay": "a scaler and workers under a changing load: a step, zero and back, a rolling upgrade, every record counted",
}


modules = {kind: f"penstock_bench.{kind}" for kind in kinds} | {"replay": "penstock_bench.replay.replay"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each kind; without their options where the laboratory is not installed."""
    add_kinds(parser, kinds, modules, here=find_laboratory(), json="print the figures as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Measure and show. Raises ConfigError where the laboratory is not installed."""
    if not find_laboratory():
        raise ConfigError(
            "the laboratory is not part of the installed package: run `penstock bench` in a clone of the repository, after `make setup`"
        )
    module = importlib.import_module(modules[arguments.kind])
    terminal.result(module.run(arguments, terminal))
    return 0
