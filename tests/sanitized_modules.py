"""A pytest plugin of `make sanitize`: the native modules of PENSTOCK_NATIVE_MODULES in place of the installed ones."""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

_package = "penstock.engine.native"


def _load(file: Path) -> None:
    name = f"{_package}.{file.name.split('.')[0]}"
    assert name not in sys.modules, "something has loaded the installed one already"
    loader = importlib.machinery.ExtensionFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module
    setattr(importlib.import_module(_package), name.rpartition(".")[2], module)


_files = sorted(Path(os.environ["PENSTOCK_NATIVE_MODULES"]).glob("_*.so"))
assert len(_files) == 2, _files
for _file in _files:
    _load(_file)
