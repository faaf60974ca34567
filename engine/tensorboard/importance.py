"""How much each feature moved the scores of the rows that a bundle keeps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.explain.budget import explain_within
from penstock.engine.explain.chosen_output import usual_choice
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

rows_max = 1000
budget_s = 30.0
_batch_rows = 1024


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Importance:
    """Attributions of rows, and how they came about."""

    values: NDArray[np.float64]
    """(E, F), finite, in the model's order of columns."""
    said: str
    """What was explained, by which method, and what was left out: sentences."""

    @property
    def of_columns(self) -> NDArray[np.float64]:
        """(F,) mean absolute attribution."""
        return np.asarray(np.abs(self.values).mean(axis=0))


def importance(bundle: Bundle, clock: Clock) -> Importance:
    """Explain up to 1,000 background rows, spread evenly, or without a background the golden rows, for at most about 30 s.

    No row and a sentence where the model cannot be explained.
    """
    nothing = np.empty((0, bundle.signature.width))
    rows, what = bundle.background, "background"
    if rows is None:
        rows, what = bundle.golden.rows, "golden"
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), rows_max)).astype(np.int64))
    chosen = rows[places]
    try:
        model = open_model(bundle, device="cpu", batch_rows_max=_batch_rows, clock=clock)
        wanted = usual_choice(bundle.widths, bundle.classes, trees=bundle.trees)
        explainer = make_explainer(bundle, model, ExplainSettings(output=wanted))
        predictions = model.predict(chosen)
    except (ConfigError, ModelError) as error:
        return Importance(values=nothing, said=f"Nothing is explained: {error}.")
    every = np.arange(len(chosen))
    found = explain_within(explainer, chosen, predictions, every, budget_s=budget_s, clock=clock)
    values = np.concatenate([nothing, *(part.values for _, part in found.parts)])
    finite = np.isfinite(values).all(axis=1)
    each = max(1, len(values) // max(1, sum(len(places) for places, _ in found.parts)))  # explanations a row
    said = [f"Explained: {int(finite.sum()) // each:,} of {len(rows):,} {what} rows"]
    if found.parts:
        first = found.parts[0][1]
        said[0] += f", by {first.method.replace('_', ' ')}, in units of {first.space.replace('_', ' ')}"
        labels = bundle.labels is not None
        said.append(
            "Each row's explanation is of the class predicted for it"
            if labels
            else f"Output: {first.output_name}" + (f", all {each} targets" if each > 1 else "")
        )
    for number, why in (
        (len(rows) - len(chosen), f"left out, so that no more than {rows_max:,} are explained"),
        (len(found.skipped), f"left out after {budget_s:g} s"),
        (len(found.failed), "could not be explained"),
        (int((~finite).sum()) // each, "have attributions that are not finite"),
    ):
        if number:
            said.append(f"{number:,} rows {why}")
    return Importance(values=values[finite], said="".join(f"{each}. " for each in said).strip())
