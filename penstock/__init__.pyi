# The types of what __init__.py imports when it is first asked for.
from penstock.engine.explain.tree.tree_shap import TreeShap as TreeShap
from penstock.engine.models.packaging.package import PackageReport as PackageReport
from penstock.engine.models.packaging.package import package as package
from penstock.engine.python.model import Model as Model
from penstock.engine.python.model import load as load
from penstock.engine.python.results import Explanation as Explanation
from penstock.engine.python.results import Predictions as Predictions
from penstock.engine.python.rows_error import RowsError as RowsError
from penstock.schemas.errors import ConfigError as ConfigError
from penstock.schemas.errors import PenstockError as PenstockError

__version__: str

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
