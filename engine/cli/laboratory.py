"""Where the laboratory is, which a clone of the repository has and the installed package has not."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
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


class KindParser(argparse.ArgumentParser):
    """The parser of one kind, which gets its options when they are asked for: a bench loads libraries that take seconds."""

    fill: Callable[["KindParser"], None] | None = None
    """Adds the options; None when that was done."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does."""
        with_options(self)
        return super().parse_known_args(args, namespace)


def with_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The same parser, with all its options: for who walks through parsers without having words parsed."""
    if isinstance(parser, KindParser) and parser.fill is not None:
        fill, parser.fill = parser.fill, None
        fill(parser)
    return parser


def _fill(parser: KindParser, *, module: str, json: str) -> None:
    kind: Any = importlib.import_module(module)
    parser.description = kind.summary
    kind.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=json)


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
    subparsers = parser.add_subparsers(dest="kind", metavar="WHAT", required=True, parser_class=KindParser)
    for kind, title in kinds.items():
        if not here:
            # Another prefix: options, which nobody knows here, are taken as words.
            subparser = subparsers.add_parser(kind, help=title, prefix_chars="+", add_help=False)
            subparser.add_argument("options", nargs="*")
            continue
        subparsers.add_parser(kind, help=title).fill = partial(_fill, module=modules[kind], json=json)
