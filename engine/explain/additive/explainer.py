"""Exact Shapley values of models whose scores add up over the features: linear ones, behind steps of one feature each.

Where f(x) = c + g1(x1) + ... + gF(xF), a feature's value is gj(xj) less the mean of gj over the background: f at a fixed row
with xj put in, less f at that row, tells gj. That f adds up is tried when the model is loaded, and checked for each record.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.additive.margin import Margin, margins_of
from penstock.engine.explain.chosen_output import chosen_columns, explained_output
from penstock.engine.explain.sampled.explainer import representatives
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.manifest import ModelOutput
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

background_rows_max = 4096
model_bytes_max = 1 << 26
"""What is longer is a network, not worth a second session to see that it does not add up."""
background_evaluations_max = 1 << 16
"""Numbers put into the fixed row when the model is loaded: different ones of the background rows."""
batch_rows_max = 4096
cells_at_once_max = 1 << 21
pairs_max = 256
"""Pairs of rows that are mixed to see whether the scores add up."""
rounding_max = 1.0 / (1 << 16)
"""Of the largest score, what scores of float32 may be off by on a sum of four."""
missing_share_max = 1e-3
"""Of the usual difference between two rows: more than that is no rounding."""


class NotAdditiveError(ConfigError):
    """The model's scores do not add up over its features."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scores:
    """The model's margins."""

    session: OnnxModel
    margin: Margin
    rows_at_once: int

    def of(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """What adds up, (N, K)."""
        return self.margin.added_up(self.margins(rows))

    def margins(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        parts = [
            self.session.predict(rows[start : start + self.rows_at_once]).outputs[self.margin.tensor]
            for start in range(0, max(1, len(rows)), self.rows_at_once)
        ]
        return np.concatenate(parts)


class AdditiveExplainer:
    """The Explainer port for models of one part a feature; relative to the background rows, in the space before a last sigmoid,
    softmax or exponential (`log_odds`, `log`), else in the output's own. It runs on the CPU: what it evaluates is small.

    Not to be shared by threads.
    """

    def __init__(self, bundle: Bundle, settings: ExplainSettings) -> None:
        """Raises NotAdditiveError where the scores do not add up, ConfigError without background rows, ModelError where the
        model does not run."""
        if bundle.background is None:
            raise ConfigError(
                "explaining this model needs background rows: package it again with --background"
            )
        if bundle.table is not None:
            raise NotAdditiveError("the model is a table of trees")
        if len(bundle.model) > model_bytes_max:
            raise NotAdditiveError(f"its file is longer than {model_bytes_max:,} bytes")
        widths = {output.name: output.width for output in bundle.outputs}
        self._name, _ = chosen_columns(widths, bundle.classes, settings.output)
        self._output, self._width = settings.output, widths[self._name]
        self._features = bundle.signature.width
        background = representatives(bundle.background, min(background_rows_max, len(bundle.background)))
        self._start = representatives(background, 1)[0]
        self._scores, self._slack = self._found(bundle, background)
        margin = self._scores.margin
        meanings = {output.name: output.meaning for output in bundle.outputs}
        spaces = {"identity": str(meanings[self._name]), "exp": "log", "expm1": "log"}
        self._space = spaces.get(margin.link, "log_odds")
        self._at_start = self._scores.of(self._start[None])[0]  # (K,)
        self._is_mirrored = self._width == 2 and len(self._at_start) == 1
        background = self._affordable(background)
        self._digest = hashlib.sha256(np.ascontiguousarray(background).tobytes()).hexdigest()
        self.background_rows = len(background)
        """How many rows the values are relative to."""
        self._means = self._mean_parts(background)  # (F, K)
        self._base = self._at_start + self._means.sum(axis=0)

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every row (R, F); see penstock.engine.ports.Explainer. Raises ModelError where a row's score is not
        the sum of its parts."""
        chosen = explained_output(predictions, self._output)
        index = chosen.index
        column = np.zeros_like(index) if len(self._at_start) == 1 else index
        sign = np.where(index == 0, -1.0, 1.0) if self._is_mirrored else np.ones(len(index))
        score = self._scores.of(matrix)[chosen.row, column] * sign
        phi = self._parts(matrix[chosen.row], column) * sign[:, None]
        base = self._base[column] * sign
        error = base + phi.sum(axis=1) - score
        if (
            not np.isfinite(phi).all()
            or not (np.abs(error) <= self._slack + rounding_max * np.abs(score)).all()
        ):
            raise ModelError("the model's score is not the sum of what its features say for themselves")
        return Attributions(
            values=phi,
            base=base,
            output_index=index,
            output_name=chosen.name,
            additivity_error=error,
            sampling_error=None,
            method="additive",
            space=self._space,
            background=self._digest,
        )

    def _found(self, bundle: Bundle, background: NDArray[np.generic]) -> tuple[_Scores, float]:
        """Where the scores add up, and how much less than exactly a record's may. Raises NotAdditiveError."""
        golden = bundle.golden
        wanted = golden.outputs[self._name]
        for margin in margins_of(bundle.model, self._name):
            scores = self._opened(bundle, margin)
            said = None if scores is None else margin.answers(scores.margins(golden.rows), self._width)
            if scores is None or said is None or said.shape != wanted.shape:
                continue
            if not np.allclose(said, wanted, rtol=1e-4, atol=1e-5):
                continue  # the link is another one than it looked
            off, allowed = _missing(scores, np.concatenate((golden.rows, background)))
            if off <= allowed:
                return scores, allowed
        raise NotAdditiveError("its scores do not add up over its features")

    def _opened(self, bundle: Bundle, margin: Margin) -> _Scores | None:
        """A session on the margin, whose width the file need not say: that of the output, or 1 for two classes."""
        for width in dict.fromkeys((self._width, 1)):
            session = OnnxModel(
                model=margin.model,
                signature=bundle.signature,
                outputs=[ModelOutput(name=margin.tensor, width=width)],
                labels=None,
                device=Device(),
                threads=1,
                batch_rows_max=batch_rows_max,
            )
            scores = _Scores(
                session=session,
                margin=margin,
                rows_at_once=max(1, min(batch_rows_max, cells_at_once_max // self._features)),
            )
            with suppress(ModelError):
                scores.margins(self._start[None])
                return scores
        return None

    def _affordable(self, background: NDArray[np.generic]) -> NDArray[np.generic]:
        """As many of the rows, evenly spaced, as hold few enough different numbers."""
        while len(background) > 1:
            column, _, _ = self._different(background)
            if len(column) <= background_evaluations_max:
                break
            background = representatives(background, len(background) // 2)
        return background

    def _different(
        self, rows: NDArray[np.generic]
    ) -> tuple[NDArray[np.int64], NDArray[np.generic], tuple[NDArray[np.int64], ...]]:
        """The different numbers that stand in rows (R, F) where the fixed row has others: columns (U,) and numbers (U,); and
        for each of those places its row, its column and which of the U it holds."""
        word = np.dtype(f"u{rows.dtype.itemsize}")
        other = rows != self._start
        if rows.dtype.kind == "f":
            other &= ~(np.isnan(rows) & np.isnan(self._start))
        row, column = np.nonzero(other)
        numbers = rows[row, column]
        known, rank = np.unique(numbers.view(word), return_inverse=True)
        _, first, which = np.unique(column * len(known) + rank, return_index=True, return_inverse=True)
        return column[first], numbers[first], (row, column, which)

    def _told(self, column: NDArray[np.int64], numbers: NDArray[np.generic]) -> NDArray[np.float64]:
        """What each number says in its column, less what the fixed row's says, (U, K)."""
        found = np.empty((len(column), len(self._at_start)))
        step = self._scores.rows_at_once
        for start in range(0, len(column), step):
            at = slice(start, start + step)
            rows = np.tile(self._start, (len(column[at]), 1))
            rows[np.arange(len(rows)), column[at]] = numbers[at]
            found[at] = self._scores.of(rows) - self._at_start
        return found

    def _mean_parts(self, background: NDArray[np.generic]) -> NDArray[np.float64]:
        """The mean over the rows of what each feature says, less what the fixed row's says, (F, K)."""
        column, numbers, (_, _, which) = self._different(background)
        told = self._told(column, numbers) * np.bincount(which, minlength=len(column))[:, None]
        means = np.zeros((self._features, len(self._at_start)))
        np.add.at(means, column, told)
        return means / len(background)

    def _parts(self, rows: NDArray[np.generic], scores: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each feature of rows (R, F) says for the row's score (R,), less its mean, (R, F)."""
        phi = -self._means.T[scores]
        column, numbers, (row, place, which) = self._different(rows)
        phi[row, place] += self._told(column, numbers)[which, scores[row]]
        return phi


def _missing(scores: _Scores, rows: NDArray[np.generic]) -> tuple[float, float]:
    """How far f(x) + f(b) is from f(x with some of b) + f(b with some of x) over pairs of rows, and what rounding may make of it."""
    random = np.random.default_rng(0)
    count = int(min(pairs_max, max(16, cells_at_once_max // (4 * rows.shape[1]))))
    x, b = rows[random.integers(0, len(rows), count)], rows[random.integers(0, len(rows), count)]
    changed = random.random((count, rows.shape[1])) < random.random((count, 1))
    of_x, of_b, *mixed = (
        scores.of(each) for each in (x, b, np.where(changed, b, x), np.where(changed, x, b))
    )
    if not np.isfinite([of_x, of_b, *mixed]).all():
        return np.inf, 0.0
    off = float(np.abs(of_x + of_b - mixed[0] - mixed[1]).max())
    usual = float(np.abs(of_x - of_b).mean())
    largest = float(max(np.abs(each).max() for each in (of_x, of_b, *mixed)))
    return off, min(rounding_max * largest, missing_share_max * usual)
