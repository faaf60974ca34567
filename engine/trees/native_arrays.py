"""A forest as the native kernels take it, made once for all kernels on the same arrays."""

from typing import Any, Final
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from penstock.engine.native._trees import Arrays
from penstock.engine.trees.forest import Forest

_names: Final = (
    "roots", "feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf", "leaf_values", "base_values",
    "set_offsets", "set_values",
)  # fmt: skip


class NativeForest:
    """What a kernel is made of. Kernels of one NativeForest share what they make ready, so keep it beside them; the forest's
    arrays must stay as they are while it lives."""

    __slots__ = ("__weakref__", "_held", "arrays")

    def __init__(self, forest: Forest) -> None:
        self._held: tuple[NDArray[Any], ...] = tuple(getattr(forest, name) for name in _names)
        self.arrays = Arrays(forest.features, forest.outputs, *self._held)


_known: Final[WeakValueDictionary[tuple[int, ...], NativeForest]] = WeakValueDictionary()
"""By the identity of the arrays, which an entry keeps alive."""


def native_forest(forest: Forest) -> NativeForest:
    """The one that some kernel of these very arrays holds, else a new one."""
    key = (forest.features, forest.outputs, *(id(getattr(forest, name)) for name in _names))
    found = _known.get(key)
    if found is None:
        found = _known[key] = NativeForest(forest)
    return found
