"""Trees that add up, and what a model makes of their sums."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.bundle.manifest import Meaning
from penstock.engine.models.packaging.sklearn.operators.nodes import Nodes
from penstock.engine.trees.forest import PostTransform
from penstock.engine.trees.readers.assemble import Tree


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tail:
    """What a model answers to the sums of its trees, where a link function of ONNX's tree operators cannot say it.

    The sums, weighted, are published beside it: they are what tree SHAP explains exactly.
    """

    name: str
    """Of the model's own output."""
    width: int
    meaning: Meaning
    sums: str
    """Name of the weighted sums."""
    sums_meaning: Meaning
    weights: NDArray[np.float64]
    """(K, k): the sums published are the trees' K sums times these."""
    whole: float | None
    """Of two classes, k = 1: what both classes' sums add up to. None: each sum is published as it is."""
    add: Callable[[Nodes, str], str]
    """Adds the nodes from the trees' sums (R, K), double, to the model's own output (R, width); its name."""
    ask: Callable[[Any], NDArray[np.float64]]
    """The weighted sums (R, k) by methods of the original, of the original's rows."""
    asks: str
    """Those methods, as a report names them."""
    note: str
    """What is explained, as a report says it."""
    decided_by_rounding: str = ""
    """As Converted.decided_by_rounding."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TreeSum:
    """Trees that add up, before they are joined."""

    trees: Sequence[Tree]
    base: NDArray[np.float64]  # (K,)
    post: PostTransform = PostTransform.NONE
    classes: int = 0
    """Of a classifier."""
    exponential: bool = False
    tail: Tail | None = None

    @property
    def is_linear(self) -> bool:
        """Whether an average of such answers is such an answer."""
        return (
            self.post is PostTransform.NONE
            and not self.exponential
            and self.tail is None
            and (not self.classes or len(self.base) == self.classes)
        )
