"""Where the laboratory is, which a clone of the repository has and the installed package has not."""

import importlib.util
import sys
from pathlib import Path

import penstock


def find_laboratory() -> bool:
    """True where `penstock_bench` can be imported: in a clone it lies in benchmarks/, beside this package."""
    if importlib.util.find_spec("penstock_bench") is not None:
        return True
    folder = Path(penstock.__file__).parents[1] / "benchmarks"
    if not (folder / "penstock_bench" / "__init__.py").is_file():
        return False
    sys.path.append(str(folder))
    return True
