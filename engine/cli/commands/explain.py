"""`penstock explain`: one record's prediction and its reasons, or what matters over a whole file."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from penstock.engine.clock import SystemClock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.console.reasons import FeatureShare, draw, signed_bar
from penstock.engine.console.terminal import Terminal, printable
from penstock.engine.explain.factory import make_explainer
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError

summary = (
    "Predict records and say why: reasons as signed bars, the strongest first. Records are JSON objects by field name, one a "
    "line; with --global the mean strength of every feature over all of them."
)
example = """echo '{"carrier": "UA", "departure_delay_min": 42}' | penstock explain models/flights --row -"""

rows_max = 100_000
shown_max = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the model bundle")
    parser.add_argument(
        "--row", type=Path, required=True, metavar="FILE", help="records as JSON lines; - is standard input"
    )
    parser.add_argument(
        "--global", dest="overall", action="store_true", help="mean strength per feature over the file"
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="reasons shown (default 10; 0: all)")
    parser.add_argument(
        "--output", default="predicted", metavar="NAME", help="predicted (default), or a class or output"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Predict and explain the file's records."""
    if arguments.top < 0:
        raise ConfigError("--top cannot be negative")
    bundle = Bundle.load(arguments.bundle)
    matrix = _matrix(arguments.row, bundle)
    model = open_model(
        bundle, device="cpu", batch_rows_max=min(max(len(matrix), 1), 4096), clock=SystemClock()
    )
    predictions = model.predict(matrix)
    settings = ExplainSettings(output=arguments.output)
    attributions = make_explainer(bundle, model, settings).explain(matrix, predictions)
    if len(attributions.base) != len(matrix):
        raise ConfigError("--output all is for the stream; name one output here")
    if arguments.overall:
        _show_overall(bundle, attributions, terminal, arguments.top)
    else:
        _show_each(bundle, matrix, predictions, attributions, terminal, arguments.top)
    return 0


def _matrix(file: Path, bundle: Bundle) -> NDArray[np.generic]:
    """The rows of the file, after the features' policies. Raises ConfigError for the first that is set aside."""
    piped = str(file) == "-"
    name = "standard input" if piped else str(file)
    try:
        data = sys.stdin.buffer.read() if piped else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    lines = [line for line in data.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"{name} holds no record")
    if len(lines) > rows_max:
        raise ConfigError(f"{name} holds {len(lines)} records; up to {rows_max} are explained at once")
    matrix, rows, faults = JsonRows(bundle.signature).read(lines)
    if faults:
        place, fault = faults[0]
        raise ConfigError(f"{name}, record {place + 1}: {fault.detail}")
    matrix, _, rejections = FeaturePolicies(bundle.signature).apply(matrix, rows)
    if rejections:
        raise ConfigError(f"{name}, record {rejections[0].index + 1}: {rejections[0].detail}")
    return matrix


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
    matrix: NDArray[np.generic],
    predictions: Predictions,
    attributions: Attributions,
    terminal: Terminal,
    top: int,
) -> None:
    results: list[dict[str, Any]] = []
    for row in range(len(matrix)):
        reasons = reasons_of(bundle, matrix[row], attributions.values[row])
        index = int(attributions.output_index[row])
        target = _target(predictions, attributions.output_name, index)
        score = float(attributions.base[row] + attributions.values[row].sum())
        if row < shown_max:
            terminal.say(
                _headline(
                    row,
                    predictions,
                    target,
                    score,
                    float(attributions.base[row]),
                    attributions.space,
                    as_share=bundle.outputs[0].meaning == "probability",
                )
            )
            terminal.say(draw(reasons, top=top))
            terminal.say("")
        results.append(
            {
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
    terminal.result({"model": model, "records": results})


def _target(predictions: Predictions, output: str, index: int) -> str:
    """What the explained number speaks of: one number for two classes is the second one's."""
    classes, width = (
        predictions.classes,
        predictions.outputs[output].shape[1] if output in predictions.outputs else 0,
    )
    if width == 1:
        return classes[1] if len(classes) == 2 else output
    return classes[index] if index < len(classes) else output


def _headline(
    row: int, predictions: Predictions, target: str, score: float, base: float, space: str, *, as_share: bool
) -> Text:
    """`as_share`: the scores of the first output are probabilities, and shown as percentages."""
    text = Text(f"record {row + 1}: ", style="bold")
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


def _show_overall(bundle: Bundle, attributions: Attributions, terminal: Terminal, top: int) -> None:
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
            "space": attributions.space,
            "method": attributions.method,
            "features": [
                {"feature": names[place], "mean_strength": float(strength[place])} for place in order.tolist()
            ],
        }
    )
