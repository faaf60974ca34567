"""`penstock explain`: one record's prediction and its reasons, or what matters over a whole file."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from penstock.engine.batch.in_memory import Rows, read_rows
from penstock.engine.batch.write import written_whole
from penstock.engine.charts.page import Section, html_page
from penstock.engine.clock import SystemClock
from penstock.engine.console.reasons import FeatureShare, draw, signed_bar
from penstock.engine.console.terminal import Terminal, printable
from penstock.engine.explain.chosen_output import speaks_of_the_second
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.python.model import data_of, output_names
from penstock.engine.python.plots import waterfall, words_of
from penstock.engine.python.results import Explanation
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError

summary = (
    "Predict records and say why: reasons as signed bars, the strongest first. Records are JSON lines, CSV or "
    "Parquet by field name; with --global the mean strength of every feature over all of them; --html writes a page of it."
)
example = "penstock explain models/flights departures.jsonl --html page.html"

shown_max = 20
dependences_max = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the model bundle")
    parser.add_argument(
        "records",
        nargs="?",
        metavar="FILE",
        help="records: JSON lines, CSV or Parquet, a folder, a glob or any address that fsspec opens; - is JSON lines on "
        "standard input",
    )
    parser.add_argument("--row", metavar="FILE", help="the same, by a name")
    parser.add_argument(
        "--format",
        choices=("parquet", "csv", "jsonl"),
        help="of the records, where their name does not say it",
    )
    parser.add_argument(
        "--global", dest="overall", action="store_true", help="mean strength per feature over the file"
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="reasons shown (default 10; 0: all)")
    parser.add_argument(
        "--output", default="predicted", metavar="NAME", help="predicted (default), or a class or output"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a page that stands alone: each record's waterfall in words; with "
        "--global importance, every record, and dependence",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Predict and explain the file's records."""
    if arguments.top < 0:
        raise ConfigError("--top cannot be negative")
    if (arguments.records is None) == (arguments.row is None):
        raise ConfigError("name the records once: penstock explain BUNDLE FILE")
    bundle = Bundle.load(arguments.bundle)
    found_rows = read_rows(arguments.records or arguments.row, bundle, arguments.format)
    matrix = found_rows.matrix
    model = open_model(
        bundle, device="cpu", batch_rows_max=min(max(len(matrix), 1), 4096), clock=SystemClock()
    )
    predictions = model.predict(matrix)
    settings = ExplainSettings(output=arguments.output)
    attributions = make_explainer(bundle, model, settings).explain(matrix, predictions)
    if len(attributions.base) != len(matrix):
        raise ConfigError("--output all is for the stream; name one output here")
    if arguments.html is not None:
        found = _explanation(bundle, matrix, attributions)
        _write_page(
            arguments.html,
            bundle,
            found,
            predictions,
            found_rows,
            overall=arguments.overall,
            top=arguments.top,
        )
        terminal.say(f"written: {arguments.html}")
    if arguments.overall:
        _show_overall(bundle, attributions, terminal, arguments.top, found_rows)
    else:
        _show_each(bundle, found_rows, predictions, attributions, terminal, arguments.top)
    for line in found_rows.told()[:shown_max]:
        terminal.say(line)
    if len(found_rows.rejected) > shown_max:
        terminal.say(f"... and {len(found_rows.rejected) - shown_max} more set aside; --json has them all")
    return 0


def _explanation(bundle: Bundle, matrix: NDArray[np.generic], attributions: Attributions) -> Explanation:
    return Explanation(
        values=attributions.values,
        base_values=attributions.base,
        data=data_of(bundle.signature, matrix),
        feature_names=bundle.signature.columns,
        output_names=output_names(bundle, attributions.output_index, attributions.output_name),
        method=attributions.method,
        space=attributions.space,
        background=attributions.background,
        additivity_error=attributions.additivity_error,
        sampling_error=attributions.sampling_error,
        rest=np.zeros(len(matrix)),
        matrix=matrix,
    )


def _write_page(
    file: Path,
    bundle: Bundle,
    found: Explanation,
    predictions: Predictions,
    rows: Rows,
    *,
    overall: bool,
    top: int,
) -> None:
    """The page of the records, or of all of them together. Raises ConfigError when it cannot be written."""
    shown = top or len(found.feature_names)
    sections = _overall(found, shown) if overall else _each(found, predictions, shown, rows.numbers)
    if rows.rejected:
        title = f"Set aside: {len(rows.rejected):,}"
        sections.append(Section(title=title, sentences=rows.told()[:shown_max], charts=()))
    background = f", relative to the background {found.background[:12]}" if found.background else ""
    page = html_page(
        title=f"{bundle.name} {bundle.version}",
        facts=f"{len(found):,} records, explained by {found.method}{background}; model digest {bundle.digest}",
        sections=sections,
    )
    try:
        with written_whole(file) as work:
            work.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error


def _overall(found: Explanation, shown: int) -> list[Section]:
    strength = np.abs(found.values).mean(axis=0)
    order = np.argsort(-strength, kind="stable")[:dependences_max].tolist()
    names = [found.feature_names[place] for place in order]
    return [
        Section(
            title="What matters",
            sentences=[
                f"Over all records the strongest is {names[0]}: it moves the output by {strength[order[0]]:.3g} in the mean."
            ],
            charts=[found.plot("bar", max_display=shown)],
        ),
        Section(
            title="Every record",
            sentences=[
                "A point is a record: right of the line the feature raises the output, left of it it lowers it."
            ],
            charts=[found.plot("beeswarm", max_display=shown)],
        ),
        *(
            Section(
                title=f"How {name} matters", sentences=(), charts=[found.plot("dependence", feature=name)]
            )
            for name in names
        ),
    ]


def _each(
    found: Explanation, predictions: Predictions, shown: int, numbers: NDArray[np.int64]
) -> list[Section]:
    sections = []
    for row in range(min(len(found), shown_max)):
        order = np.argsort(-np.abs(found.values[row]), kind="stable")[: min(shown, 5)].tolist()
        words = words_of(found, row)
        scale = found.space.replace("_", " ")
        reasons = [
            f"{words[place]} {'raises' if found.values[row, place] >= 0 else 'lowers'} it by {abs(found.values[row, place]):.3g}"
            for place in order
        ]
        label = "" if predictions.labels is None else f": {predictions.classes[int(predictions.labels[row])]}"
        sections.append(
            Section(
                title=f"Record {int(numbers[row])}{label}",
                sentences=[f"The {scale} of {found.output_names[row]}: {'; '.join(reasons)}."],
                charts=[waterfall(found, row, shown)],
            )
        )
    if len(found) > shown_max:
        sections.append(
            Section(
                title=f"{len(found) - shown_max} more records",
                sentences=["They are not drawn: --global sums them up."],
                charts=(),
            )
        )
    return sections


def reasons_of(bundle: Bundle, row: NDArray[np.generic], values: NDArray[np.float64]) -> list[FeatureShare]:
    """One row's attributions with the features' values as people know them."""
    reasons = []
    for name, feature, value, attribution in zip(
        bundle.signature.columns, bundle.signature.column_features, row.tolist(), values.tolist(), strict=True
    ):
        shown: float | str | None = value
        if np.isnan(value):
            shown = None
        elif feature.kind == "category" and 0 <= value < len(feature.categories):
            shown = feature.categories[int(value)]
        reasons.append(FeatureShare(feature=name, value=shown, attribution=attribution))
    return reasons


def _show_each(
    bundle: Bundle,
    rows: Rows,
    predictions: Predictions,
    attributions: Attributions,
    terminal: Terminal,
    top: int,
) -> None:
    matrix = rows.matrix
    results: list[dict[str, Any]] = []
    for row in range(len(matrix)):
        reasons = reasons_of(bundle, matrix[row], attributions.values[row])
        index = int(attributions.output_index[row])
        target = _target(bundle, predictions, attributions.output_name, index)
        score = float(attributions.base[row] + attributions.values[row].sum())
        if row < shown_max:
            terminal.say(
                _headline(
                    int(rows.numbers[row]),
                    predictions,
                    target,
                    score,
                    float(attributions.base[row]),
                    attributions.space,
                    row=row,
                    as_share=bundle.outputs[0].meaning == "probability",
                )
            )
            terminal.say(draw(reasons, top=top))
            terminal.say("")
        results.append(
            {
                "record": int(rows.numbers[row]),
                "outputs": {name: output[row].tolist() for name, output in predictions.outputs.items()},
                "label": None
                if predictions.labels is None
                else predictions.classes[int(predictions.labels[row])],
                "explained": target,
                "space": attributions.space,
                "method": attributions.method,
                "base_value": float(attributions.base[row]),
                "additivity_error": float(attributions.additivity_error[row]),
                "attributions": [
                    {"feature": r.feature, "value": r.value, "attribution": r.attribution} for r in reasons
                ],
            }
        )
    if len(matrix) > shown_max:
        terminal.say(f"... and {len(matrix) - shown_max} more; --json has them all, --global sums them up")
    model = {"name": bundle.name, "version": bundle.version, "digest": bundle.digest}
    terminal.result({"model": model, "records": results, "rejected": rows.as_json()})


def _target(bundle: Bundle, predictions: Predictions, output: str, index: int) -> str:
    """What the explained number speaks of: one number for two classes is the second one's."""
    classes, width = (
        predictions.classes,
        predictions.outputs[output].shape[1] if output in predictions.outputs else 0,
    )
    if width == 1:
        second = speaks_of_the_second(output, bundle.widths, classes, trees=bundle.trees)
        return classes[1] if second else output
    if width in (0, len(classes)) and index < len(classes):
        return classes[index]
    return f"{output}[{index}]" if width > 1 else output


def _headline(
    number: int,
    predictions: Predictions,
    target: str,
    score: float,
    base: float,
    space: str,
    *,
    row: int,
    as_share: bool,
) -> Text:
    """`number`: of the record in the input, `row` of its prediction. `as_share`: the scores of the first output are probabilities, and shown as percentages."""
    text = Text(f"record {number}: ", style="bold")
    if predictions.labels is not None:
        label = predictions.classes[int(predictions.labels[row])]
        text.append(printable(label), style="bold")
        first = next(iter(predictions.outputs.values()))
        if as_share and first.shape[1] == len(predictions.classes):
            text.append(f" ({first[row, int(predictions.labels[row])]:.1%})")
        text.append("   ")
    text.append(
        f"{space.replace('_', ' ')} of {printable(target)} {score:.4g}, where {base:.4g} is usual",
        style="grey70",
    )
    return text


def _show_overall(
    bundle: Bundle, attributions: Attributions, terminal: Terminal, top: int, rows: Rows
) -> None:
    strength = np.abs(attributions.values).mean(axis=0)
    order = np.argsort(-strength, kind="stable")
    names = bundle.signature.columns
    shown = order[:top] if top else order
    terminal.say(
        f"mean strength over {len(attributions.base)} records, in {attributions.space.replace('_', ' ')}:"
    )
    for place in shown.tolist():
        bar = signed_bar(float(strength[place]), full=float(strength[order[0]]), cells=24)
        terminal.say(bar[25:] + Text(f" {strength[place]:8.4f}  {printable(names[place])}"))
    terminal.result(
        {
            "records": len(attributions.base),
            "rejected": rows.as_json(),
            "space": attributions.space,
            "method": attributions.method,
            "features": [
                {"feature": names[place], "mean_strength": float(strength[place])} for place in order.tolist()
            ],
        }
    )
