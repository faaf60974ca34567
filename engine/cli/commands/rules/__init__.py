"""`penstock rules`: recording rules, alerts and dashboards from the settings."""

import argparse
from pathlib import Path

from penstock.engine.console.terminal import Terminal
from penstock.engine.rules.alert import Terms
from penstock.engine.rules.files import files, rules, rules_text
from penstock.engine.rules.selectors import parse_labels
from penstock.engine.settings.model import load_settings
from penstock.schemas.errors import ConfigError

summary = (
    "Rules for Prometheus and dashboards for Grafana that follow from the settings: the objective as recording rules, alerts on how fast "
    "its budget is used up and on what can go wrong, each with its cause, a command and a page of the runbook. Asks no broker."
)
example = "penstock rules penstock.yaml --out monitoring --select release=fraud"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock rules` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write penstock-rules.yaml and the dashboards into this folder (default: print the rules)",
    )
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="a label that this pipeline's series carry, where one Prometheus watches several; repeatable",
    )
    parser.add_argument(
        "--without-scaler",
        action="store_true",
        help="no scaler is scraped: ages come from the workers, and alerts about the scaler are left out",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: what was written, or the rules"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write the files, or print the rules; raises ConfigError."""
    terms = Terms.of(load_settings(arguments.settings), scaler=not arguments.without_scaler)
    select = parse_labels(arguments.select)
    if arguments.out is None:
        if terminal.json:
            terminal.result(rules(terms, select=select))
        else:
            terminal.say_lines(rules_text(terms, select=select).removesuffix("\n"))
        return 0
    written = []
    for name, text in files(terms, select=select).items():
        path = arguments.out / name
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out: cannot write {path}: {error.strerror}") from error
        written.append(str(path))
        if not terminal.json:
            terminal.say(f"wrote {path}")
    terminal.result({"written": written})
    return 0
