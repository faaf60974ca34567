"""Streaming inference on Kafka: every record predicted exactly once, and explained.

In Python: `package` makes a bundle of a trained model, `load` holds one, and its predict, explain and score are the stream's
own. What is here is imported when it is first asked for; its types stand in __init__.pyi.
"""

from typing import Any

__version__ = "0.1.0"  # the one place; the distribution's metadata are made from it

__all__ = [
    "ConfigError",
    "Explanation",
    "Model",
    "PackageReport",
    "PenstockError",
    "Predictions",
    "RowsError",
    "TreeShap",
    "__version__",
    "load",
    "package",
]

_homes = {
    "ConfigError": "penstock.schemas.errors",
    "Explanation": "penstock.engine.python.results",
    "Model": "penstock.engine.python.model",
    "PackageReport": "penstock.engine.models.packaging.package",
    "PenstockError": "penstock.schemas.errors",
    "Predictions": "penstock.engine.python.results",
    "RowsError": "penstock.engine.python.rows_error",
    "TreeShap": "penstock.engine.explain.tree.tree_shap",
    "load": "penstock.engine.python.model",
    "package": "penstock.engine.models.packaging.package",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(_homes[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
