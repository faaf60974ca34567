"""`penstock audit`: the record of what acted over HTTP."""

import argparse

from penstock.engine.cli.commands.audit import verify
from penstock.engine.console.terminal import Terminal

summary = (
    "Reads the audit topic from its beginning and follows every chain: records that were changed, removed, added, moved or exchanged "
    "are named by their places, and the command exits with 1."
)
example = "penstock audit verify penstock.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock audit` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify.add_arguments(actions.add_parser("verify", help="is the audit topic as it was written?"))


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Verify; 0 when nothing was altered."""
    return verify.run(arguments, terminal)
