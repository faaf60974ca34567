"""Shapley values of any model by evaluating it: exact for few features, a fixed paired design of coalitions above that.

The game of a row x: v(S) is the mean answer over the background rows b of the model at x on S and b elsewhere. All coalitions
of all rows of a batch are evaluated together, and the values are one matrix product. The design for many features draws
coalition sizes evenly and each set with its complement, without replacement, and solves the weighted least squares of
Kernel SHAP on it: Musco and Witter, "Provably accurate Shapley value estimation via leverage score sampling" (ICLR 2025).
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.explain.policy import score_column
from engine.models.signature import Signature
from engine.ports import Attributions, Model, Predictions
from engine.settings import ExplainSettings
from schemas.errors import ConfigError, ModelError

background_rows_max = 64
"""Background rows that the values are relative to; more of them cost evaluations that coalitions make better use of."""

evaluated_at_once_max = 65_536
exact_features_max = 16
_seed = 20_130_101  # the design is part of the method: the same for everybody, on every run


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """Coalitions, and the matrices that turn their values into Shapley values.

    `coalitions` (m, F) bool holds the empty set first and the full set last. `solve` (F, m): phi = solve @ v. `halves`, for a
    sampled design, are two of the same shape that each see half of the coalitions; their difference estimates the error.
    """

    coalitions: NDArray[np.bool_]
    solve: NDArray[np.float64]
    halves: tuple[NDArray[np.float64], NDArray[np.float64]] | None


class SampledExplainer:
    """The Explainer port for any model; values are in the model's own output: `probability` with classes, else `value`."""

    def __init__(
        self,
        model: Model,
        signature: Signature,
        background: NDArray[np.generic] | None,
        settings: ExplainSettings,
    ) -> None:
        """Raises ConfigError: there is no background, or exact enumeration was asked for of too many features."""
        if background is None or len(background) == 0:
            raise ConfigError(
                "explaining this model needs background rows: package it again with --background"
            )
        features = signature.width
        exact = 2**features <= settings.samples
        if settings.method == "exact_enumeration":
            if features > exact_features_max:
                raise ConfigError(
                    f"explain.method exact_enumeration: {features} features have too many coalitions; "
                    f"up to {exact_features_max} are enumerated"
                )
            exact = True
        self._exact = exact and settings.method != "sampled"
        self._design = exact_design(features) if self._exact else paired_design(features, settings.samples)
        rows = min(
            len(background), background_rows_max, max(1, settings.samples // len(self._design.coalitions))
        )
        chosen = np.linspace(0, len(background) - 1, rows).astype(np.int64)
        self._background = np.ascontiguousarray(background[chosen], dtype=signature.dtype)
        self._digest = hashlib.sha256(self._background.tobytes()).hexdigest()
        self._model = model
        self._output = settings.output

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every row (R, F); see engine.ports.Explainer."""
        name, index = _explained_output(predictions, self._output)
        per_row = len(self._design.coalitions) * len(self._background)
        step = max(1, evaluated_at_once_max // per_row)
        values = np.concatenate(
            [
                self._values(matrix[at : at + step], name, index[at : at + step])
                for at in range(0, len(matrix), step)
            ]
        )  # (R, m)
        phi = values @ self._design.solve.T
        error = None
        if self._design.halves is not None:
            first, second = (values @ half.T for half in self._design.halves)
            error = np.sqrt(np.mean(((first - second) / 2) ** 2, axis=1))
        score = predictions.outputs[name][np.arange(len(matrix)), index]
        return Attributions(
            values=phi,
            base=values[:, 0].copy(),
            output_index=index,
            output_name=name,
            additivity_error=values[:, 0] + phi.sum(axis=1) - score,
            sampling_error=error,
            method="exact_enumeration" if self._exact else "sampled",
            space="probability" if predictions.classes else "value",
            background=self._digest,
        )

    def _values(self, rows: NDArray[np.generic], name: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """v(S) of every coalition, (R, m): one run of the model over rows x coalitions x background."""
        coalitions = self._design.coalitions
        mixed = np.where(
            coalitions[None, :, None, :], rows[:, None, None, :], self._background[None, None, :, :]
        )
        shape = mixed.shape[:3]
        found = self._model.predict(np.ascontiguousarray(mixed.reshape(-1, rows.shape[1])))
        answers = found.outputs[name].reshape(*shape, -1)
        picked = np.take_along_axis(answers, index[:, None, None, None], axis=3)[..., 0]
        if not np.isfinite(picked).all():
            raise ModelError("the model answers NaN or an infinity for a coalition")
        return np.asarray(picked.mean(axis=2), dtype=np.float64)


def exact_design(features: int) -> Design:
    """All 2^F coalitions; `solve` is the definition of the Shapley value."""
    count = 1 << features
    numbers = np.arange(count)
    coalitions = (numbers[:, None] >> np.arange(features)) & 1 == 1
    size = coalitions.sum(axis=1)
    factor = np.array(
        [1.0 / (features * math.comb(features - 1, k)) if k < features else 0.0 for k in range(features)]
    )
    solve = np.zeros((features, count))
    for feature in range(features):
        inside = coalitions[:, feature]
        solve[feature, inside] = factor[size[inside] - 1]
        solve[feature, ~inside] = -factor[size[~inside]]
    return Design(coalitions=coalitions, solve=solve, halves=None)


def paired_design(features: int, samples: int, seed: int = _seed) -> Design:
    """About `samples` coalitions, at least 2 F + 2: sizes drawn evenly, every set with its complement, none twice."""
    rng = np.random.default_rng(seed)
    pairs_wanted = max(features, (samples - 2) // 2)
    pairs_wanted = min(pairs_wanted, 2 ** (features - 1) - 1) if features < 60 else pairs_wanted
    chosen: dict[bytes, NDArray[np.bool_]] = {}
    tries = 0
    while len(chosen) < pairs_wanted and tries < 50 * pairs_wanted:
        tries += 1
        members = np.zeros(features, dtype=np.bool_)
        members[rng.choice(features, size=int(rng.integers(1, features)), replace=False)] = True
        if members[0]:  # of a set and its complement, the one without the first feature stands for both
            members = ~members
        chosen.setdefault(members.tobytes(), members)
    half = np.array(list(chosen.values()))
    middle = np.concatenate([half, ~half])
    pairs = len(half)
    coalitions = np.concatenate([np.zeros((1, features), bool), middle, np.ones((1, features), bool)])
    every = np.concatenate([np.arange(pairs), np.arange(pairs)])
    complete = features < 60 and pairs == 2 ** (features - 1) - 1
    weights = _weights(middle.sum(axis=1), features, math.inf if complete else tries)
    parts = (every >= 0, every % 2 == 0, every % 2 == 1)
    solves = [_least_squares(coalitions, np.where(part, weights, 0.0)) for part in parts]
    return Design(coalitions=coalitions, solve=solves[0], halves=(solves[1], solves[2]))


def _weights(size: NDArray[np.int64], features: int, tries: float) -> NDArray[np.float64]:
    """The Shapley kernel over the chance of having been drawn: with few sets of a size all of them are in."""
    per_size = np.array([float(math.comb(features, int(each))) for each in size])
    drawn = -np.expm1(
        tries * np.log1p(-2.0 / ((features - 1) * per_size))
    )  # a set or its complement, in any try
    return np.asarray(1.0 / (per_size * size * (features - size)) / drawn)


def _least_squares(coalitions: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (F, m) of the least squares under sum(phi) = v(full) - v(empty), the middle rows weighted so."""
    features = coalitions.shape[1]
    Z = coalitions[1:-1].astype(np.float64)
    size = Z.sum(axis=1)
    # With the constraint eliminated: phi = d/F 1 + Q beta, Q an orthonormal basis of the vectors that sum to 0.
    Q = np.linalg.svd(np.ones((1, features)))[2][1:].T
    A = Z @ Q
    pull = np.linalg.pinv(A.T @ (weight[:, None] * A)) @ (A.T * weight)  # (F - 1, m - 2)
    solve = np.zeros((features, len(coalitions)))
    solve[:, 1:-1] = Q @ pull
    # y = v - v(empty) - |S| / F (v(full) - v(empty)), and the constant part d / F of every feature.
    empty = Q @ (pull @ (-1.0 + size / features)) - 1.0 / features
    full = Q @ (pull @ (-size / features)) + 1.0 / features
    solve[:, 0], solve[:, -1] = empty, full
    return solve


def _explained_output(predictions: Predictions, wanted: str) -> tuple[str, NDArray[np.int64]]:
    """The output's name and, for each row, the place in it that is explained. Raises ConfigError."""
    name, scores = next(iter(predictions.outputs.items()))
    count = len(scores)
    if wanted == "predicted":
        return name, score_column(predictions)
    if wanted in predictions.classes and scores.shape[1] == len(predictions.classes):
        return name, np.full(count, predictions.classes.index(wanted), dtype=np.int64)
    if wanted in predictions.outputs and predictions.outputs[wanted].shape[1] == 1:
        return wanted, np.zeros(count, dtype=np.int64)
    raise ConfigError(
        f"explain.output {wanted}: a sampled explanation is of predicted, of a class, or of an output of one number"
    )
