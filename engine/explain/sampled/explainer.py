"""Shapley values of any model by evaluating it: exact for few features, a fixed paired design of coalitions above that.

The game of a row x: v(S) is the mean answer over the background rows b of the model at x on S and b elsewhere. Many rows'
coalitions are evaluated in one run of the model, and the values are one matrix product.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.chosen_output import Chosen, explained_output
from penstock.engine.explain.sampled.coalitions import exact_design, paired_design
from penstock.engine.features.signature import Signature
from penstock.engine.ports import Attributions, Model, Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

background_rows_max = 64
"""Background rows that the values are relative to; more of them cost evaluations that coalitions make better use of."""

evaluated_at_once_max = 65_536
cells_at_once_max = 1 << 22
"""Numbers in the buffer of rows to evaluate, unless a single record needs more."""

sampled_rows_max = 8
"""Of those, where coalitions are sampled: the mean over so many is near to the mean over all."""
coalitions_least = 8
"""For each feature: with fewer the sampling error outgrows what more rows gain."""
exact_features_max = 16


class SampledExplainer:
    """The Explainer port for any model; values are in the model's own output, whose meaning is the space.

    Not to be shared by threads: the rows to evaluate are put together in one buffer, again and again.
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
        """Where `settings.samples` suffice for all coalitions, all are evaluated, and the method is exact_enumeration.
        `meanings`: what each output is (penstock.engine.models.bundle.manifest.Meaning), by name.

        Raises ConfigError: there is no background, or exact enumeration was asked for of too many features.
        """
        if background is None or len(background) == 0:
            raise ConfigError(
                "explaining this model needs background rows: package it again with --background"
            )
        features = signature.width
        self._exact = 2**features <= settings.samples
        if settings.method == "exact_enumeration":
            if features > exact_features_max:
                raise ConfigError(
                    f"explain.method exact_enumeration: {features} features have too many coalitions; "
                    f"up to {exact_features_max} are enumerated"
                )
            self._exact = True
        rows = 1 if self._exact else _rows_of_sampled(features, settings.samples, len(background))
        self._design = (
            exact_design(features) if self._exact else paired_design(features, settings.samples // rows)
        )
        coalitions = len(self._design.coalitions)
        self._background = representatives(
            np.asarray(background, dtype=signature.dtype),
            min(background_rows_max, max(1, settings.samples // coalitions)) if self._exact else rows,
        )
        self._digest = hashlib.sha256(self._background.tobytes()).hexdigest()
        self._model = model
        self._output = settings.output
        self._meanings = meanings or {}
        at_once = min(evaluated_at_once_max, cells_at_once_max // features)
        self._rows_at_once = max(1, at_once // (coalitions * len(self._background)))
        shape = (self._rows_at_once, len(self._background), coalitions, features)
        self._mixed = np.empty(shape, dtype=signature.dtype)
        self._word = np.dtype(f"u{signature.dtype.itemsize}")
        ones = np.array(-1, dtype=f"i{signature.dtype.itemsize}").view(self._word)
        self._masks = np.where(self._design.coalitions, ones, self._word.type(0))

    @property
    def background_rows(self) -> int:
        """How many rows the values are relative to."""
        return len(self._background)

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every row (R, F); see penstock.engine.ports.Explainer."""
        chosen = explained_output(predictions, self._output)
        count, features = len(chosen.row), matrix.shape[1]
        phi, base = np.empty((count, features)), np.empty(count)
        error = None if self._design.halves is None else np.empty(count)
        for start in range(0, len(matrix), self._rows_at_once):
            end = start + self._rows_at_once
            at = slice(start * chosen.each, end * chosen.each)
            values = self._values(matrix[start:end], chosen, chosen.index[at])  # (E, m)
            phi[at], base[at] = values @ self._design.solve.T, values[:, 0]
            if error is not None and self._design.halves is not None:
                first, second = (values @ half.T for half in self._design.halves)
                error[at] = np.sqrt(np.mean(((first - second) / 2) ** 2, axis=1))
        return Attributions(
            values=phi,
            base=base,
            output_index=chosen.index,
            output_name=chosen.name,
            additivity_error=base + phi.sum(axis=1) - chosen.scores(predictions),
            sampling_error=error,
            method="exact_enumeration" if self._exact else "sampled",
            space=self._meanings.get(chosen.name, "value"),
            background=self._digest,
        )

    def _values(
        self, rows: NDArray[np.generic], chosen: Chosen, index: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """v(S) of every coalition and explanation of the rows, (E, m): one run of the model over rows x background x coalitions."""
        rows = np.ascontiguousarray(rows, dtype=self._background.dtype)
        mixed = self._mixed[: len(rows)]
        if self._exact:
            self._enumerate(rows, mixed)
        else:
            self._mix(rows, mixed)
        found = self._model.predict(mixed.reshape(-1, rows.shape[1]))
        answers = found.outputs[chosen.name].reshape(*mixed.shape[:3], -1)
        if answers.shape[3] == 1:
            picked = answers[..., 0]
        elif chosen.each > 1:  # of every number of the output
            picked = np.moveaxis(answers, 3, 1).reshape(-1, *mixed.shape[1:3])
        else:
            picked = np.take_along_axis(answers, index[:, None, None, None], axis=3)[..., 0]
        values = picked[:, 0] if picked.shape[1] == 1 else picked.mean(axis=1)
        if not np.isfinite(values).all():
            raise ModelError("the model answers NaN or an infinity for a coalition")
        return np.asarray(values, dtype=np.float64)

    def _enumerate(self, rows: NDArray[np.generic], mixed: NDArray[np.generic]) -> None:
        """All coalitions, by doubling: those with a feature are those before it, with that feature from the row."""
        mixed[:, :, 0] = self._background
        for feature in range(rows.shape[1]):
            half = 1 << feature
            mixed[:, :, half : 2 * half] = mixed[:, :, :half]
            mixed[:, :, half : 2 * half, feature] = rows[:, None, None, feature]

    def _mix(self, rows: NDArray[np.generic], mixed: NDArray[np.generic]) -> None:
        """The design's coalitions: b ^ (mask & (x ^ b)) on the bits of the numbers chooses exactly, NaN included."""
        x, b, out = rows.view(self._word), self._background.view(self._word), mixed.view(self._word)
        np.bitwise_and(self._masks, (x[:, None] ^ b)[:, :, None], out=out)
        np.bitwise_xor(out, b[:, None], out=out)


def _rows_of_sampled(features: int, samples: int, known: int) -> int:
    """Relative to one row, values are off by far more than a few coalitions less cost: several rows, as long as there are
    coalitions_least of them for each feature."""
    return min(known, sampled_rows_max, max(1, samples // (coalitions_least * features)))


def representatives(background: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """At most `count` of the rows (n, F), in C order: evenly spaced ones, and of all if one, the most typical.

    The most typical row is nearest to the medians, every feature in units of its mean distance from them.
    """
    if count == 1 and len(background) > 1:
        known = background.astype(np.float64)
        known[~np.isfinite(known)] = np.nan
        known = known[:, ~np.isnan(known).all(axis=0)]
        distance = np.abs(known - np.nanmedian(known, axis=0))
        unit = np.nanmean(distance, axis=0)
        unit[unit == 0] = 1.0
        far = np.where(np.isnan(distance), 1.0, distance / unit).sum(axis=1)  # unknown is as far as the usual
        return np.ascontiguousarray(background[[int(np.argmin(far))]])
    chosen = np.linspace(0, len(background) - 1, min(count, len(background))).astype(np.int64)
    return np.ascontiguousarray(background[chosen])
