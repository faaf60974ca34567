"""Which explainer a model gets."""

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.schemas.errors import ConfigError, ModelError
from penstock.schemas.log_codes import LogCode

if TYPE_CHECKING:
    from penstock.engine.clock import Clock
    from penstock.engine.explain.tree.tree_shap import TreeShap, TreeValues
    from penstock.engine.gpu.device import Device
    from penstock.engine.models.bundle.bundle import Bundle
    from penstock.engine.ports import Explainer, Model, Predictions
    from penstock.engine.settings.model import ExplainSettings

logger = logging.getLogger(__name__)

_by_gradients = ("expected_gradients", "deeplift_rescale")


def make_explainer(
    bundle: "Bundle",
    model: "Model",
    settings: "ExplainSettings",
    *,
    device: "Device | None" = None,
    clock: "Clock | None" = None,
) -> "Explainer":
    """The explainer that the settings ask for, tried on a row of the golden batch.

    `auto` explains trees exactly, models whose scores add up over the features exactly, others of few features exactly by enumeration, those whose file has a gradient by
    expected gradients where these account for the scores, and the rest by sampled coalitions. A gradient graph runs on
    `device`, the CPU when None; trees do where it is a GPU and faster, by `clock`. Raises ConfigError when the model cannot be explained as asked, or the bundle lacks what that
    needs.
    """
    import numpy as np

    answers = _golden_answers(bundle)
    explainer = _chosen(bundle, model, settings, device, clock, answers)
    with suppress(ModelError):  # perhaps of this row alone
        explainer.explain(bundle.golden.rows[:1], answers.take(np.zeros(1, dtype=np.int64)))
    return explainer


def _chosen(
    bundle: "Bundle",
    model: "Model",
    settings: "ExplainSettings",
    device: "Device | None",
    clock: "Clock | None",
    answers: "Predictions",
) -> "Explainer":
    method = settings.method
    if method == "auto" or method == "tree_path_dependent" or method == "tree_interventional":
        from penstock.engine.explain.tree.tree_shap import TreeExplainer, TreeShap
        from penstock.engine.trees.onnx.read import NotATreeError

        try:
            shap = TreeShap.from_bundle(bundle, method=method)
            values = _on_device(shap, bundle, device, clock)
            return TreeExplainer(values, output=settings.output, meanings=_meanings(bundle))
        except NotATreeError as error:
            if method != "auto":
                raise ConfigError(f"explain.method {method}: {error}") from error
    if method == "lime":
        return _lime(bundle, model, settings)
    if method in ("auto", "additive"):
        additive = _additive(bundle, settings)
        if additive is not None:
            return additive
    few = 2**bundle.signature.width <= settings.samples
    if method in _by_gradients or (method == "auto" and not few and bundle.background is not None):
        found = _gradients(bundle, model, settings, device, answers)
        if found is not None:
            return found
    from penstock.engine.explain.sampled.explainer import SampledExplainer

    return SampledExplainer(model, bundle.signature, bundle.background, settings, meanings=_meanings(bundle))


def _on_device(
    shap: "TreeShap", bundle: "Bundle", device: "Device | None", clock: "Clock | None"
) -> "TreeValues":
    if device is None or device.cuda is None:
        return shap
    from penstock.engine.clock import SystemClock
    from penstock.engine.explain.tree.on_device import faster_shap

    return faster_shap(
        shap, device, rows=bundle.golden.rows, background=bundle.background, clock=clock or SystemClock()
    )


def _additive(bundle: "Bundle", settings: "ExplainSettings") -> "Explainer | None":
    """By the parts that the features say for themselves; None where `auto` finds that the scores do not add up."""
    from penstock.engine.explain.additive.explainer import AdditiveExplainer

    if bundle.background is None and settings.method == "auto":
        return None
    try:
        return AdditiveExplainer(bundle, settings)
    except (ConfigError, ModelError) as error:
        if settings.method != "auto":
            raise ConfigError(f"explain.method additive: {error}") from error
    return None


def _gradients(
    bundle: "Bundle",
    model: "Model",
    settings: "ExplainSettings",
    device: "Device | None",
    answers: "Predictions",
) -> "Explainer | None":
    """By gradients; None where `auto` had better not."""
    from penstock.engine.explain.gradient.explainer import GradientExplainer, sound
    from penstock.engine.gpu.device import Device

    automatic = settings.method == "auto"
    method = "expected_gradients" if automatic else settings.method
    try:
        explainer = GradientExplainer(bundle, model, settings, method=method, device=device or Device())
        if not automatic or sound(explainer, bundle.golden.rows, answers):
            return explainer
        reason = "gradients do not account for its scores"
    except (ConfigError, ModelError) as error:
        if not automatic:
            raise ConfigError(f"explain.method {method}: {error}") from error
        reason = str(error)
    logger.info(
        "the model is explained by sampled coalitions: %s", reason, extra=LogCode.EXPLAINER_CHOSEN.extra
    )
    return None


def _lime(bundle: "Bundle", model: "Model", settings: "ExplainSettings") -> "Explainer":
    """Of trees in closed form, of anything else by a fixed design."""
    from penstock.engine.explain.lime.explainer import LimeExplainer
    from penstock.engine.explain.lime.trees import LimeTreeExplainer
    from penstock.engine.explain.tree.tree_shap import forest_of
    from penstock.engine.trees.onnx.read import NotATreeError

    if bundle.background is not None:
        with suppress(NotATreeError):
            return LimeTreeExplainer(
                forest_of(bundle), bundle.signature, bundle.background, output=settings.output
            )
    return LimeExplainer(model, bundle.signature, bundle.background, settings, meanings=_meanings(bundle))


def _meanings(bundle: "Bundle") -> dict[str, str]:
    return {output.name: output.meaning for output in bundle.outputs}


def _golden_answers(bundle: "Bundle") -> "Predictions":
    from penstock.engine.ports import Predictions

    golden = bundle.golden
    return Predictions(outputs=golden.outputs, labels=golden.labels, classes=bundle.classes)
