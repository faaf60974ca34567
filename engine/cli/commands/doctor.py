"""`penstock doctor`: what is wrong now, the evidence, the cure."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from penstock.engine.clock import SystemClock
from penstock.engine.console.terminal import Terminal, printable
from penstock.engine.doctor.causes import causes
from penstock.engine.doctor.evidence import Evidence
from penstock.engine.doctor.wrong import Wrong
from penstock.engine.settings.model import load_settings

summary = (
    "What is wrong with a pipeline now, most likely first, each with its evidence and its cure. Reads settings, model, brokers, "
    "registry, lag, group, dead letters, the newest records and what the workers say of themselves; changes nothing. Exit code 0: "
    "nothing wrong; 1: something is; 2: it could not be asked."
)
example = "penstock doctor penstock.yaml"

columns: Final = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock doctor` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--workers",
        action="append",
        metavar="URL",
        help="where workers are asked for their /status, repeatable (default: http.host and http.port of the settings)",
    )
    parser.add_argument(
        "--over",
        type=float,
        default=3.0,
        metavar="S",
        help="look at the lag twice, so many seconds apart (default 3)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Look, and tell; 0 when nothing is wrong, 1 when something is."""
    from penstock.engine.doctor.look import look, own_url
    from penstock.engine.watch.look import engine_address

    settings = load_settings(arguments.settings)
    own = own_url(settings)
    urls = [engine_address(url) for url in arguments.workers or ([own] if own else [])]
    evidence = look(settings, clock=SystemClock(), urls=urls, over_s=min(max(arguments.over, 0.0), 3600.0))
    wrongs = causes(evidence)
    terminal.result(as_json(wrongs, evidence))
    if not terminal.json:
        for line in as_lines(wrongs, evidence):
            terminal.say(line)
    return 1 if wrongs else 0


def as_json(wrongs: Sequence[Wrong], evidence: Evidence) -> dict[str, Any]:
    """What was found, for a program."""
    return {
        "ok": not wrongs,
        "wrong": [asdict(wrong) for wrong in wrongs],
        "seen": [{"what": what, "found": found} for what, found in evidence.seen],
        "not_seen": [{"what": what, "why": why} for what, why in evidence.unseen],
    }


def as_lines(wrongs: Sequence[Wrong], evidence: Evidence) -> list[Text]:
    """The page, no line longer than 80 characters."""
    lines: list[Text] = []
    if not wrongs:
        lines += _wrapped("Nothing is wrong, as far as could be seen.", style="green")
    for place, wrong in enumerate(wrongs, start=1):
        lines += _wrapped(f"{place}. {wrong.what}", style="bold red" if place == 1 else "bold", indent=3)
        for each in wrong.evidence:
            lines += _wrapped(f"   seen  {each}", indent=9)
        lines += _wrapped(f"   cure  {wrong.cure}", style="green", indent=9)
        lines.append(Text())
    looked = ", ".join(dict.fromkeys(what for what, _ in evidence.seen))
    lines += _wrapped(f"In order: {looked or 'nothing'}.", style="dim")
    for what, why in evidence.unseen:
        lines += _wrapped(f"Not seen: {what}: {why}", style="yellow", indent=10)
    return lines


def _wrapped(text: str, *, style: str = "", indent: int = 0) -> list[Text]:
    told = textwrap.wrap(
        printable(text), width=columns, subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return [Text(line, style=style) for line in told or [""]]
