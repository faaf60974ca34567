"""Explanations of neural networks from their gradients: expected gradients and DeepLIFT's rescale rule.

Both share out f(x) - f(b) between the features and take the mean over the background rows b, so that what they start from is
the mean score of the background. They are not Shapley values of the model but of its course along the way from b to x.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.chosen_output import chosen_columns, explained_output
from penstock.engine.explain.gradient.graph import derive
from penstock.engine.explain.sampled.explainer import representatives
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.manifest import ModelOutput
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.ports import Attributions, Model, Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

background_rows_max = 64
nodes_min, nodes_max = 4, 32
evaluated_at_once_max = 16_384
cells_at_once_max = 1 << 21
sound_rows_max = 32
missing_share_max = 0.05
"""`auto` takes gradients only where they miss less than this of the differences that they explain, on the mean."""


def sound(explainer: "GradientExplainer", matrix: NDArray[np.generic], predictions: Predictions) -> bool:
    """Whether the values of the first of these rows account for the scores: what is missing is little of what is shared out."""
    tried = np.arange(min(len(matrix), sound_rows_max))
    found = explainer.explain(matrix[tried], predictions.take(tried))
    missing, whole = np.abs(found.additivity_error), np.abs(found.values.sum(axis=1))
    return float(missing.mean()) <= missing_share_max * float(whole.mean())


class GradientExplainer:
    """The Explainer port for models whose gradient can be derived from their file; values are in the model's own output.

    `expected_gradients` integrates the gradient over the straight way from each background row to the record, by
    Gauss-Legendre at nodes that never change; `sampling_error` compares with a coarser rule on every second of them.
    `deeplift_rescale` needs one evaluation per background row and no integral. For both, `additivity_error` is how far
    the values are from accounting for the whole difference. Not to be shared by threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: Model,
        settings: ExplainSettings,
        *,
        method: str,
        device: Device,
        batch_rows_max: int = 4096,
    ) -> None:
        """Raises NotDifferentiableError, naming the operator, where the file has no gradient, and ConfigError when there
        are no background rows or they cannot be predicted."""
        if bundle.background is None:
            raise ConfigError(
                "explaining by gradients needs background rows: package it again with --background"
            )
        whole = bundle.background[np.isfinite(bundle.background.astype(np.float64)).all(axis=1)]
        if len(whole) == 0:
            raise ConfigError("explaining by gradients needs background rows without missing values")
        signature, self._method = bundle.signature, method
        rescale = method == "deeplift_rescale"
        rows = min(
            background_rows_max, len(whole), settings.samples if rescale else settings.samples // nodes_min
        )
        self._background = representatives(whole, rows)
        self._digest = hashlib.sha256(self._background.tobytes()).hexdigest()
        outputs = {output.name: output.width for output in bundle.outputs}
        self._name, _ = chosen_columns(outputs, bundle.classes, settings.output)
        self._scores = outputs[self._name]
        self._output = settings.output
        self._features = signature.width
        graph = derive(bundle.model, self._name, self._scores, rescale=rescale)
        self._session = OnnxModel(
            model=graph.model,
            signature=_widened(signature, graph.baselines, graph.seed, self._scores),
            outputs=[ModelOutput(name=graph.gradient, width=self._features)],
            labels=None,
            device=device,
            threads=1,
            batch_rows_max=batch_rows_max,
        )
        self._gradient = graph.gradient
        nodes = 0 if rescale else min(nodes_max, settings.samples // len(self._background)) // 2 * 2
        self._rule = _quadrature(nodes) if nodes else None
        self._space = next(output.meaning for output in bundle.outputs if output.name == self._name)
        self._base = model.predict(self._background).outputs[self._name].mean(axis=0)
        if not np.isfinite(self._base).all():
            raise ConfigError("the model answers NaN or an infinity for a background row")

    @property
    def background_rows(self) -> int:
        """How many rows the values are relative to."""
        return len(self._background)

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every row (R, F); see penstock.engine.ports.Explainer."""
        chosen = explained_output(predictions, self._output)
        index, count = chosen.index, len(chosen.row)
        phi = np.empty((count, self._features))
        error = None if self._rule is None else np.empty(count)
        per_row = len(self._background) * (1 if self._rule is None else len(self._rule[0]))
        at_once = min(evaluated_at_once_max, cells_at_once_max // self._features)
        step = max(1, at_once // per_row)
        for start in range(0, count, step):
            at = slice(start, start + step)
            phi[at], found = self._shared_out(matrix[chosen.row[at]], index[at])
            if error is not None:
                error[at] = found
        base = self._base[index]
        return Attributions(
            values=phi,
            base=base,
            output_index=index,
            output_name=chosen.name,
            additivity_error=base + phi.sum(axis=1) - chosen.scores(predictions),
            sampling_error=error,
            method=self._method,
            space=self._space,
            background=self._digest,
        )

    def _shared_out(
        self, rows: NDArray[np.generic], index: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Values of some rows (r, F), and the error of each (r,) where there is an integral."""
        b, F = self._background, self._features
        x = rows.astype(np.float64)[:, None]
        way = x - b.astype(np.float64)  # (r, B, F)
        seed = np.eye(self._scores)[index][:, None, None, :]
        nodes = np.zeros(1) if self._rule is None else self._rule[0]
        start = F if self._rule else 2 * F
        fed = np.empty((len(rows), len(b), len(nodes), start + self._scores), dtype=b.dtype)
        fed[..., start:] = seed
        if self._rule is None:
            fed[..., :F], fed[..., F:start] = rows[:, None, None], b[:, None]
        else:
            fed[..., :F] = x[:, :, None] - (1 - nodes[:, None]) * way[:, :, None]
        found = self._session.predict(fed.reshape(-1, fed.shape[3])).outputs[self._gradient]
        gradients = found.reshape(*fed.shape[:3], F)
        if not np.isfinite(gradients).all():
            raise ModelError("a gradient of the model is NaN or infinite")
        if self._rule is None:
            return np.einsum("rbf,rbf->rf", way, gradients[:, :, 0]) / len(b), None
        fine, coarse = (
            np.einsum("rbf,rbf->rf", way, np.einsum("rbqf,q->rbf", gradients, weights)) / len(b)
            for weights in self._rule[1:]
        )
        return fine, np.sqrt(np.mean((fine - coarse) ** 2, axis=1))


def _quadrature(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre on [0, 1]: nodes and weights, and the weights of the rule on every second node, (count,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    kept = np.arange(0, count, 2)
    moments = np.zeros(len(kept))
    moments[0] = 2.0  # of the Legendre polynomials, only the first has an integral
    coarse = np.zeros(count)
    coarse[kept] = np.linalg.solve(np.polynomial.legendre.legvander(nodes[kept], len(kept) - 1).T, moments)
    return (nodes + 1) / 2, weights / 2, coarse / 2


def _widened(signature: Signature, baselines: tuple[str, ...], seed: str, scores: int) -> Signature:
    """What the gradient graph is fed: the model's inputs, the same once more for baselines, and the seed."""
    inputs, start = list(signature.inputs), signature.width
    for name, like in zip(baselines, signature.inputs if baselines else (), strict=True):
        inputs.append(ModelInput(name=name, dtype=like.dtype, start=start, width=like.width))
        start += like.width
    inputs.append(ModelInput(name=seed, dtype="float32", start=start, width=scores))
    numbers = tuple(Feature(name=f"column {column}", kind="number") for column in range(start + scores))
    return Signature(features=numbers, inputs=tuple(inputs))
