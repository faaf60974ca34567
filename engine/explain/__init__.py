"""Why the model said it: which explainer a model gets."""

from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from engine.explain.tree_shap import TreeShap
    from engine.models.bundle import Bundle
    from engine.ports import Explainer, Model
    from engine.settings import ExplainSettings

__all__ = ["TreeShap", "make_explainer"]


def make_explainer(bundle: "Bundle", model: "Model", settings: "ExplainSettings") -> "Explainer":
    """The explainer that the settings ask for; `auto` explains trees exactly and everything else by evaluation.

    Raises ConfigError when the model cannot be explained as asked, or the bundle lacks what that needs.
    """
    method = settings.method
    if method == "auto" or method == "tree_path_dependent" or method == "tree_interventional":
        from engine.explain.onnx_trees import NotATreeError
        from engine.explain.tree_shap import TreeExplainer, TreeShap

        try:
            return TreeExplainer(TreeShap.from_bundle(bundle, method=method), output=settings.output)
        except NotATreeError as error:
            if method != "auto":
                raise ConfigError(f"explain.method {method}: {error}") from error
    from engine.explain.sampled import SampledExplainer

    return SampledExplainer(model, bundle.signature, bundle.background, settings)


def __getattr__(name: str) -> Any:
    if name != "TreeShap":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    # Late: the settings import this package for the policy's grammar.
    from engine.explain.tree_shap import TreeShap

    return TreeShap
