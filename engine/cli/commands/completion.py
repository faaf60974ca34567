"""`penstock completion`: the command line completed by the shell."""

import argparse
import sys

from penstock.engine.cli.completion import script, shells
from penstock.engine.console.terminal import Terminal

summary = "Print the completion of `penstock` for a shell, to be sourced in its start-up file."
example = 'eval "$(penstock completion bash)"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=shells)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Print the script."""
    from penstock.engine.cli.main import whole_parser  # late: it imports the commands, this one too

    sys.stdout.write(script(arguments.shell, whole_parser()))
    return 0
