"""A wrong version of the engine: a function of it whose source was changed, for as long as it is wanted."""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from penstock.schemas.errors import InvariantError
from penstock_bench.faults.fates import Trouble
from penstock_bench.faults.journal import Mode, Start


@dataclass(frozen=True, kw_only=True, slots=True)
class Bug:
    """In the source of `where` (Class.method, or a function's name) `old`, which stands there once, becomes `new`."""

    name: str
    where: str
    old: str
    new: str
    only: tuple[Trouble, ...] = ()
    """Kinds of trouble under which it shows soonest."""
    mode: Mode | None = None
    start: Start | None = None


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Meanwhile the engine is wrong. Raises InvariantError where the bug changes nothing any more."""
    owner, function = _find(bug.where)
    changed = _changed(function, bug)
    name = function.__name__
    if owner is not None:
        before = vars(owner)[name]
        setattr(owner, name, property(changed) if isinstance(before, property) else changed)
        try:
            yield
        finally:
            setattr(owner, name, before)
        return
    users = [module for module in _modules() if getattr(module, name, None) is function]
    try:
        for module in users:
            setattr(module, name, changed)
        yield
    finally:
        for module in users:
            setattr(module, name, function)


def _modules() -> list[Any]:
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("penstock.") and module]


def _find(where: str) -> tuple[type | None, FunctionType]:
    """The class, if it is one's method, and the function; wherever it stands now."""
    first, _, method = where.partition(".")
    for module in _modules():
        found = vars(module).get(first)
        if found is None or getattr(found, "__module__", None) != module.__name__:
            continue
        if not method and isinstance(found, FunctionType):
            return None, found
        inside = vars(found).get(method)
        inside = inside.fget if isinstance(inside, property) else inside
        if isinstance(inside, FunctionType):
            return found, inside
    raise InvariantError(f"there is no {where} in the engine")


def _changed(function: FunctionType, bug: Bug) -> FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(bug.old) != 1:
        raise InvariantError(f"{bug.name}: {bug.where} has {source.count(bug.old)} times {bug.old!r}")
    lines = source.replace(bug.old, bug.new)
    lines = lines[lines.index("def ") :]  # no decorators
    namespace: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + lines, f"<{bug.name}>", "exec")
    exec(code, function.__globals__, namespace)
    made: FunctionType = namespace[function.__name__]
    made.__kwdefaults__, made.__defaults__ = function.__kwdefaults__, function.__defaults__
    return made
