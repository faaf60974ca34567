"""Where the laboratory is, which a clone of the repository has and the installed package has not."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import penstock


def find_laboratory() -> bool:
    """True where `penstock_bench` can be imported: in a clone it lies in benchmarks/, beside this package."""
    if importlib.util.find_spec("penstock_bench") is not None:
        return True
    folder = Path(penstock.__file__).parents[1] / "benchmarks"
    if not (folder / "penstock_bench" / "__init__.py").is_file():
        return False
    sys.path.append(str(folder))
    return True


def add_kinds(
    parser: argparse.ArgumentParser,
    kinds: Mapping[str, str],
    modules: Mapping[str, str],
    *,
    here: bool,
    json: str,
) -> None:
    """A subcommand for each kind, by its title, with the options of its module; without them where the laboratory is not
    `here`. `json` says what --json prints."""
    subparsers = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for kind, title in kinds.items():
        if not here:
            # Another prefix: options, which nobody knows here, are taken as words.
            subparser = subparsers.add_parser(kind, help=title, prefix_chars="+", add_help=False)
            subparser.add_argument("options", nargs="*")
            continue
        module: Any = importlib.import_module(modules[kind])
        subparser = subparsers.add_parser(kind, help=title, description=module.summary)
        module.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help=json)
