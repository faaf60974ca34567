"""LIME of any model by one fixed design: perturbed records that are the same for every record, and evaluated once.

LIME for tables draws its perturbed records without looking at the record; only which of their features stay in the record's
bins differs (see lime_bins), and with it the weights. So the model runs when it is loaded, and an explanation is one weighted
least squares.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.chosen_output import explained_output
from penstock.engine.explain.lime.bins import find_bins
from penstock.engine.explain.sampled.explainer import representatives
from penstock.engine.features.signature import Signature
from penstock.engine.ports import Attributions, Model, Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

perturbed_rows = 8192
background_rows_max = 1024
features_max = 256
"""The least squares of a record cost as much as the square of this."""
_seed = 20_160_809  # the design is part of the method: the same for everybody, on every run


class LimeExplainer:
    """The Explainer port; values are coefficients of the local surrogate, in the model's own output: what staying in the
    record's own bin adds, on average over the perturbed records. `base` is the surrogate where every feature has left,
    `additivity_error` is the surrogate at the record less the model's score, `sampling_error` compares two half designs.

    A feature that stays in all or in none of the perturbed records cannot be told about and gets 0.
    """

    def __init__(
        self,
        model: Model,
        signature: Signature,
        background: NDArray[np.generic] | None,
        settings: ExplainSettings,
        *,
        meanings: Mapping[str, str] | None = None,
    ) -> None:
        """Evaluates the model on the design. `meanings`: what each output is (penstock.engine.models.bundle.manifest.Meaning), by name.

        Raises ConfigError: no background, too many features, or no finite answers.
        """
        if background is None:
            raise ConfigError("explain.method lime needs background rows: package it again with --background")
        if signature.width > features_max:
            raise ConfigError(
                f"explain.method lime: {signature.width} features; up to {features_max} are explained so"
            )
        rows = representatives(np.asarray(background, dtype=signature.dtype), background_rows_max)
        self._digest = hashlib.sha256(rows.tobytes()).hexdigest()
        self._bins = find_bins(rows, signature)
        perturbed = _shuffled(rows)
        self._places = self._bins.of(perturbed)
        try:
            answers = model.predict(perturbed)
        except ModelError as error:
            raise ConfigError(
                f"explain.method lime: the model cannot run perturbed records: {error}"
            ) from error
        self._answers = answers.outputs
        self._whole = {name: np.isfinite(scores).all() for name, scores in answers.outputs.items()}
        self._output = settings.output
        self._meanings = meanings or {}

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every row (R, F); see penstock.engine.ports.Explainer."""
        chosen = explained_output(predictions, self._output)
        if not self._whole[chosen.name]:
            raise ConfigError(
                "explain.method lime: the model answers NaN or an infinity for a perturbed record"
            )
        scores, places = self._answers[chosen.name], self._bins.of(matrix)
        count = len(chosen.row)
        phi, base, error = np.empty((count, matrix.shape[1])), np.empty(count), np.empty(count)
        for row, place in enumerate(places[chosen.row]):
            stays = (self._places == place).astype(np.float64)
            weight = self._bins.leaving ** (matrix.shape[1] - stays.sum(axis=1))
            target = scores[:, chosen.index[row]]
            base[row], phi[row] = _least_squares(stays, weight, target)
            halves = [_least_squares(stays[part::2], weight[part::2], target[part::2])[1] for part in (0, 1)]
            error[row] = np.sqrt(np.mean(((halves[0] - halves[1]) / 2) ** 2))
        return Attributions(
            values=phi,
            base=base,
            output_index=chosen.index,
            output_name=chosen.name,
            additivity_error=base + phi.sum(axis=1) - chosen.scores(predictions),
            sampling_error=error,
            method="lime",
            space=self._meanings.get(chosen.name, "value"),
            background=self._digest,
        )


def _shuffled(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """`perturbed_rows` rows, every column an evenly repeated column of `rows` in an order of its own."""
    rng = np.random.default_rng(_seed)
    columns = [rng.permutation(np.resize(rng.permutation(column), perturbed_rows)) for column in rows.T]
    return np.ascontiguousarray(np.stack(columns, axis=1))


def _least_squares(
    stays: NDArray[np.float64], weight: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and coefficients (F,) of the weighted least squares; 0 for a column that does not vary."""
    total = weight.sum()
    share, mean = weight @ stays / total, weight @ target / total
    weighed = weight[:, None] * stays
    moments = stays.T @ weighed / total - np.outer(share, share)
    varies = (share > 0) & (share < 1)
    coefficients = np.zeros(stays.shape[1])
    if varies.any():
        pulled = (weighed.T @ target / total - share * mean)[varies]
        coefficients[varies] = np.linalg.lstsq(moments[np.ix_(varies, varies)], pulled, rcond=None)[0]
    return float(mean - coefficients @ share), coefficients
