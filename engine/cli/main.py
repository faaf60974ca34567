"""The `penstock` command: finds the subcommand, turns errors into one sentence and an exit code."""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import penstock
from penstock.engine.console.exhausted import exhausted
from penstock.engine.console.faults import show_faults
from penstock.engine.console.leaving import run_and_leave
from penstock.engine.console.terminal import Terminal, printable, write_safely
from penstock.schemas.distribution import extra_of, how_to_install
from penstock.schemas.errors import ConfigError, FencedError, NotReadyError, PenstockError

commands = {
    "demo": "everything on one machine: real flights, predicted and explained as they take off",
    "broker": "an Apache Kafka for this machine, in the foreground",
    "package": "make a model bundle from ONNX, XGBoost, LightGBM, CatBoost, scikit-learn or PMML",
    "sign": "sign a model bundle, for model.trust",
    "init": "write a penstock.yaml for a bundle and a topic",
    "check": "preflight: what would be refused at start, and the warm-up table",
    "doctor": "what is wrong now, the evidence, the cure",
    "run": "the worker(s)",
    "top": "a running engine: balance, rate, latency, partitions, newest predictions",
    "tail": "predictions with their reasons, as they come",
    "scaler": "the scaler: KEDA external-push service and metrics",
    "lag": "how far behind, in records and in seconds",
    "rules": "alerts, recording rules and dashboards that follow from the settings",
    "offsets": "the group's committed offsets: show, reset",
    "dlq": "dead letters: list, show, replay",
    "manifest": "Kubernetes objects, for those without Helm",
    "acl": "the least permissions of each role, for kafka-acls and Terraform",
    "audit": "the record of what acted over HTTP: verify",
    "score": "files: Parquet, CSV or JSON lines in, predictions and explanations out",
    "explain": "one record's prediction and its reasons",
    "completion": "the command line completed by bash, zsh or fish",
    "bench": "the figures of the README, measured here and now",
    "simulate": "what would take days or a cluster, from seeds",
}
exit_done, exit_failed, exit_usage, exit_fenced, exit_not_ready = 0, 1, 2, 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the process's exit code."""
    write_safely()
    show_faults()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else "penstock --help lists them"
        sys.stderr.write(f"penstock: there is no command {printable(name)}; {hint}\n")
        return exit_usage
    try:
        return _run(words, name)
    except Exception as error:
        sentence = exhausted(error)
        if sentence is None:
            raise
        sys.stderr.write(f"penstock {name}: {sentence}\n")
        return exit_failed


def command() -> int:
    """`penstock` as a process of its own."""
    return run_and_leave(main)


def _run(words: Sequence[str], name: str | None) -> int:
    parser = _parser([name] if name in commands else [])
    try:
        arguments = parser.parse_args(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else exit_usage
    if not arguments.command:
        parser.print_help()
        return exit_usage
    terminal = Terminal(json=getattr(arguments, "json", False))
    module = importlib.import_module(f"penstock.engine.cli.commands.{arguments.command}")
    try:
        return int(module.run(arguments, terminal))
    except PenstockError as error:
        cure = exhausted(error.__cause__) if error.__cause__ is not None else None
        said = str(error) if cure is None else f"{error}: {cure}"
        sys.stderr.write(f"penstock {arguments.command}: {printable(said)}\n")
        return _exit_code(error)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        sys.stderr.write(
            f"penstock {arguments.command}: {error.name} is not installed: {how_to_install(extra)}\n"
        )
        return exit_usage
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_failed


def _exit_code(error: PenstockError) -> int:
    if isinstance(error, ConfigError):
        return exit_usage
    if isinstance(error, FencedError):
        return exit_fenced
    if isinstance(error, NotReadyError):
        return exit_not_ready
    return exit_failed


def whole_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of every command."""
    return _parser(tuple(commands))


def _parser(chosen: Sequence[str | None]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the chosen commands: start-up counts, so that the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="penstock",
        description="Streaming inference on Kafka: every event predicted exactly once, and explained.",
        epilog="penstock COMMAND --help describes a command, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"penstock {penstock.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in commands.items():
        if name not in chosen:
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        module = importlib.import_module(f"penstock.engine.cli.commands.{name}")
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=module.summary,
            epilog=f"example:\n  {module.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
    return parser
