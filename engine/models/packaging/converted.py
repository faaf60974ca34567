"""A model on its way into a bundle, and what a person says of it beyond its file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.overrides import Overrides
from penstock.engine.features.signature import Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.trees.forest import Forest
from penstock.schemas.distribution import how_to_install

Score = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
"""Outputs by name, each (R, K), of the original on matrix rows (R, F); a category is its code, missing is NaN.

Outputs that the original has no method for are left out, and reported as not compared.
"""
input_name: Final = "features"
refused_mark: Final = "is_refused"
"""How names begin of tensors that say which rows an estimator inside a graph refuses to answer, (N, 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageOptions:
    """What a person says of the model beyond its file."""

    feature_names: tuple[str, ...] | None = None
    overrides: Overrides = ()
    classes: tuple[str, ...] | None = None
    missing: float | None = None
    """A number that stands for a missing value in every number feature that names none of its own."""
    trusted: tuple[str, ...] = ()
    """Types that may be built from a .skops file besides those that are trusted anyway, by their full names."""
    tables: tuple[Any, ...] = ()
    """Data frames that were given as rows or background: their columns' types tell what the model was trained on."""
    columns: tuple[tuple[str, ...], ...] = ()
    """Of each table among those, also of the files, how its columns are called."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OwnAnswers:
    """Records that a model file holds, with what the model that it was made from answers to them."""

    rows: NDArray[np.float64]
    """(R, F) as they are read, before any policy: missing is NaN, `unseen_code` a category that the table does not hold."""
    outputs: Mapping[str, NDArray[np.float64]]
    """(R, K) by the name of the output."""
    labels: NDArray[np.int64] | None
    """(R,) class numbers, where the file says classes."""
    precision: float
    """How far an answer may be off by what the file says, relative to it."""
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Converted:
    """A model on its way into a bundle."""

    source: str
    """The library that made it, with its version."""
    model: bytes
    forest: Forest | None
    """The graph as trees over the matrix columns, where it is nothing but trees."""
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None
    score: Score
    """On rows as records hold them, in double precision."""
    score_table: Callable[[Any], Mapping[str, NDArray[np.float64]]] | None = None
    """The same of a data frame as somebody gave it, its types kept; None: it takes none."""
    compared_with: str = "predict"
    """The method of the original that `score` asks."""
    compared_by: Mapping[str, str] = field(default_factory=dict)
    """By output, what `score` asks instead for it."""
    undecided: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None
    """Which rows (R, F) the original answers in one of several ways, by the order of its training; None: none."""
    decided_by_rounding: str = ""
    """Why the original's answers may depend on the last digit of what it adds up, wherever that is known of it."""
    is_its_own_original: bool = False
    """`score` runs the very graph that is packaged: nothing is compared with the model it was made from."""
    score_labels: Callable[[NDArray[np.float64]], NDArray[np.int64]] | None = None
    """Class numbers (R,) as the original says them; None: the highest of the scores, as in the bundle."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for the provenance."""
    own_answers: OwnAnswers | None = None
    table: Forest | None = None
    """The trees, where `model` is a table of them and no ONNX graph."""


def foreign_text(error: Exception) -> str:
    """What an error of a library says, also where the bytes that the library says are no UTF-8 and Python raises that instead."""
    return error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)


def missing_library(name: str, *, extra: str = "package") -> str:
    """How to get what packaging a model needs."""
    return f"packaging this model needs {name}: {how_to_install(extra)}"
