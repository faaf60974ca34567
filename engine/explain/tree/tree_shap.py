"""Exact SHAP values of tree ensembles: for people with a matrix, and for the stream."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.engine.explain.tree.outputs import TreeOutputs
from penstock.engine.models.runtime.session_spec import forest_behind
from penstock.engine.native._trees import ShapKernel
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.trees.covers import shares
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.native_arrays import native_forest
from penstock.engine.trees.onnx.read import read_forest
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.models.bundle.bundle import Bundle

Precision = Literal["float32", "float64"]
Method = Literal["auto", "tree_path_dependent", "tree_interventional"]
background_rows_max = 1 << 16
table_bytes_max = 256 << 20
"""Memory for the tables of one model; trees beyond it are explained by quadrature, more slowly."""


class TreeValues(Protocol):
    """What TreeExplainer asks of TreeShap, and of what computes the same elsewhere. One thread at a time."""

    @property
    def forest(self) -> Forest:
        """The trees that are explained."""

    @property
    def method(self) -> str:
        """What the values are, as a message says it."""

    @property
    def background_digest(self) -> str | None:
        """Of the rows that the values are relative to, if any."""

    @property
    def base(self) -> NDArray[np.float64]:
        """What the values start from, (outputs,)."""

    def contributions(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, features, outputs), and the raw scores (n, outputs) that they must add up to."""


class TreeShap:
    """SHAP values of a tree ensemble, relative to its training data (path-dependent: needs covers) or to given rows
    (interventional).

    base + values.sum(axis=1) is the raw score: the margin, before any sigmoid or softmax.
    """

    def __init__(
        self,
        forest: Forest,
        *,
        background: ArrayLike | None = None,
        method: Method = "auto",
        threads: int = 1,
    ) -> None:
        """`auto` is path-dependent where the forest has covers and no background is given, interventional with one.

        Raises ConfigError when what the method needs is not there: nothing is ever assumed in its place.
        """
        if method == "auto":
            method = "tree_path_dependent" if background is None else "tree_interventional"
        self.forest = forest
        self.method = method
        self.background_digest: str | None = None
        self._threads = threads
        if method == "tree_path_dependent":
            if forest.cover is None:
                raise ConfigError(
                    "the model's file does not say how much training data passed each node: "
                    "give background rows, or package the original model, which keeps them"
                )
            self._kernel = _Kernel(forest, None, threads)
        else:
            if background is None:
                raise ConfigError("interventional explanations need background rows")
            rows = as_rows(background, forest.features)
            if not 1 <= len(rows) <= background_rows_max:
                raise ConfigError(f"{len(rows)} background rows; 1 to {background_rows_max} make sense")
            self.background_digest = hashlib.sha256(rows.tobytes()).hexdigest()
            self._kernel = _Kernel(forest, rows, threads)

    @staticmethod
    def from_bundle(path: "Path | str | Bundle", *, method: Method = "auto", threads: int = 1) -> "TreeShap":
        """As the stream explains: by the covers in the bundle's model, else by its background rows.

        Raises NotATreeError when the model is no tree ensemble, ConfigError when it has neither covers nor background.
        """
        from penstock.engine.models.bundle.bundle import (
            Bundle,  # late: reading a bare ONNX file needs none of it
        )

        bundle = path if isinstance(path, Bundle) else Bundle.load(path)
        forest = forest_of(bundle)
        if method == "auto":
            method = "tree_path_dependent" if forest.cover is not None else "tree_interventional"
            if forest.cover is None and bundle.background is None:
                raise ConfigError(
                    f"model {bundle.name} has neither covers nor background rows to explain by: "
                    "package it again with --background"
                )
        return TreeShap(forest, background=bundle.background, method=method, threads=threads)

    @staticmethod
    def from_onnx(
        model: Path | str | bytes,
        *,
        background: ArrayLike | None = None,
        output: str | None = None,
        threads: int = 1,
    ) -> "TreeShap":
        """From an ONNX file or its bytes: relative to `background`, or by the covers that the file carries.

        Raises NotATreeError when the model is no tree ensemble, ConfigError when it cannot be read or explained.
        """
        data = model if isinstance(model, bytes) else _file_bytes(Path(model))
        return TreeShap(read_forest(data, output), background=background, threads=threads)

    @property
    def base(self) -> NDArray[np.float64]:
        """What the values start from, (outputs,): the expected raw score."""
        return self._kernel.expected

    @property
    def table_bytes(self) -> int:
        """Memory that the tables take, at most `table_bytes_max`."""
        return self._kernel.native.table_bytes

    @property
    def tabled_trees(self) -> int:
        """How many trees have tables; the others are explained by quadrature."""
        return self._kernel.native.tabled_trees

    def shap_values(
        self, X: ArrayLike, *, precision: Precision = "float32"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, features), or (n, features, outputs) where the forest has several, and the base (outputs,).

        X is (n, features), taken as float32; NaN is missing. The outputs are raw scores; a two-class margin is one
        output, that of the second class. `float64` is the slow, exact form. Raises ConfigError for rows of another width.
        """
        values, _ = self.contributions(as_rows(X, self.forest.features), precision=precision)
        return (values[:, :, 0] if self.forest.outputs == 1 else values), self.base.copy()

    def contributions(
        self, rows: NDArray[np.float32], *, precision: Precision = "float32"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, features, outputs), and the raw scores (n, outputs) that they must add up to, found by walking the
        trees. `rows` is float32 (n, features) in C order."""
        return self._kernel.shap_values(rows, precision, self._threads)


class TreeExplainer:
    """Explains a batch for the stream: the predicted class, one output, or all of them."""

    def __init__(
        self, shap: TreeValues, *, output: str = "predicted", meanings: Mapping[str, str] | None = None
    ) -> None:
        """`output`: see TreeOutputs. `meanings`: what each output is, by name: the space, where its numbers are the trees' own
        sums. Raises ConfigError when there is no such output."""
        self._shap = shap
        self._outputs = TreeOutputs(shap.forest, output)
        own = shap.forest.post_transform is PostTransform.NONE
        self._space = (meanings or {}).get(shap.forest.output_name, "") if own else ""
        self._space = self._space or shap.forest.space

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """One explanation a row; with `all`, every output of the first row, then of the second, and so on."""
        forest = self._shap.forest
        rows = as_rows(matrix, forest.features)
        values, raw = self._shap.contributions(rows)
        index, picked, base, score = self._outputs.picked(values, self._shap.base[None], raw, predictions)
        return Attributions(
            values=picked,
            base=base,
            output_index=index,
            output_name=forest.output_name,
            additivity_error=base + picked.sum(axis=1) - score,
            sampling_error=None,
            method=self._shap.method,
            space=self._space,
            background=self._shap.background_digest,
        )


def as_rows(X: ArrayLike, features: int) -> NDArray[np.float32]:
    """A matrix as float32 (n, features) in C order. Raises ConfigError when it has another shape or is not numeric."""
    array = np.asarray(X)
    if array.ndim != 2 or array.shape[1] != features or array.dtype.kind not in "fiub":
        raise ConfigError(
            f"rows must be a matrix of {features} numeric columns, not {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as it is for the model
        return np.ascontiguousarray(array, dtype=np.float32)


def forest_of(bundle: "Bundle") -> Forest:
    """A bundle's trees. Raises NotATreeError when its model is something else."""
    return _with_classes(forest_behind(bundle), bundle.classes)


def _with_classes(forest: Forest, classes: tuple[str, ...]) -> Forest:
    """The forest with the class names that the bundle uses, where they are other names for the same columns."""
    if set(classes) != set(forest.labels) and len(classes) > 1 and len(classes) == forest.classes:
        return replace(forest, labels=classes)
    return forest


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


class _Kernel:
    """The compiled form: tables built once, when the model is loaded."""

    def __init__(self, forest: Forest, background: NDArray[np.float32] | None, threads: int) -> None:
        none = np.empty((0, forest.features), dtype=np.float32)
        share = shares(forest) if background is None else np.empty(0)
        self._forest = native_forest(forest)
        self.native = ShapKernel(
            self._forest.arrays, share, none if background is None else background, table_bytes_max, threads
        )
        self.expected = self.native.expected

    def shap_values(
        self, rows: NDArray[np.float32], precision: Precision, threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values (n, F, K) and raw scores (n, K)."""
        return self.native.shap_values(rows, precision == "float64", threads)
