"""What `penstock package --tensorboard` writes: graph, importance and parity of a bundle just made."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from penstock.engine.clock import Clock
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.models.packaging.package import PackageReport
from penstock.engine.tensorboard.event_file import (
    EventFile,
    as_markdown,
    check_free,
    parts_of,
    shown_name,
    table,
)
from penstock.engine.tensorboard.importance import importance
from penstock.engine.tensorboard.onnx_graph import graph_def
from penstock.schemas.errors import ConfigError

features_shown_max = 100
"""Features with a histogram and a row in the table, the most important ones; the scalars are of all."""


def check_folder(folder: Path, *, bundle: Path) -> None:
    """Raises ConfigError where event files cannot go to `folder`, before anything is packaged into `bundle`."""
    check_free(folder)
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(
            f"--tensorboard {folder} lies in the bundle, which holds nothing but the model: give another"
        )


def write_event_file(report: PackageReport, facts: Mapping[str, str], folder: Path, *, clock: Clock) -> Path:
    """Write what was packaged into a new event file in `folder`, and return its path.

    `facts`: the report as a person reads it. Raises ConfigError where it cannot be written.
    """
    bundle = report.bundle
    file = EventFile(wall_s=clock.wall_ms() / 1000)
    if bundle.table is None:
        file.graph(graph_def(parse_model(bundle.model)))
    else:
        file.text("graph", "The trees are kept as a table, so that there is no ONNX graph to show.")
    _add_parity(file, report, facts)
    _add_importance(file, report, clock)
    try:
        return file.write(folder)
    except ConfigError as error:
        raise ConfigError(f"{error}; the bundle {report.path} is written") from error


def _add_parity(file: EventFile, report: PackageReport, facts: Mapping[str, str]) -> None:
    parity = report.parity
    if parity.compared:  # a difference of what was not compared is unknown, not 0
        file.scalar("parity/largest difference", parity.difference_max)
    for output, difference in parity.differences.items():
        file.scalar(f"parity/largest difference of {shown_name(output)}", difference)
    file.scalar("parity/difference allowed", parity.tolerance)
    file.scalar("parity/rows given", parity.rows_given)
    file.scalar("parity/rows made up", parity.rows_made_up)
    notes = "".join(f"\n- {as_markdown(note)}" for note in report.notes)
    file.text("parity/report", parts_of(facts) + (f"\n\nNotes:\n{notes}" if notes else ""))


def _add_importance(file: EventFile, report: PackageReport, clock: Clock) -> None:
    found = importance(report.bundle, clock)
    names = [shown_name(each) for each in report.bundle.signature.columns]
    said = as_markdown(found.said)
    if not len(found.values):
        file.text("importance/table", said)
        return
    means = found.of_columns
    order = np.argsort(-means, kind="stable")
    for place in order.tolist():
        file.scalar(f"importance/{names[place]}", float(means[place]))
    shown = order[:features_shown_max].tolist()
    for place in shown:
        file.histogram(f"attributions/{names[place]}", found.values[:, place])
    rows = [
        (
            names[place],
            f"{means[place]:.4g}",
            f"{found.values[:, place].min():.4g}",
            f"{found.values[:, place].max():.4g}",
        )
        for place in shown
    ]
    more = f" The {len(shown)} most important of {len(names):,} features." if len(names) > len(shown) else ""
    heads = ("feature", "mean absolute attribution", "least", "largest")
    file.text("importance/table", f"{said}{more}\n\n{table(heads, rows)}")
