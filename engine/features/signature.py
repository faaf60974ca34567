"""What a model is fed: features of the record, columns of the matrix, inputs of the ONNX graph."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from penstock.engine.features.fields import field_of, field_path
from penstock.engine.features.texts import TextPart, column_names, part_from_json, words_max
from penstock.schemas.errors import ConfigError

Kind = Literal["number", "category", "vector", "text"]
InputType = Literal["float32", "float64", "int64", "int32", "string", "bool"]

width_max = 1 << 20
categories_max = 1 << 24
"""Codes up to this are exact in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One thing that the model looks at. Construction raises ConfigError for a contradiction."""

    name: str
    """What explanations and messages call it."""
    field: str = ""
    """Where it stands in the input record; the name when left out.

    A dot leads into a nested object (`weather.temp`), unless the record itself has a member of exactly this name, which
    comes first; `\\.` is a dot that belongs to a name (`petal\\.length`), `\\\\` a backslash.
    """
    kind: Kind
    width: int = 1
    """Columns it takes in the matrix: the length of a vector, whose columns are called name[0], name[1], ...; of a text, whose
    columns are called name[word], those that its parts say."""
    categories: tuple[str, ...] = ()
    """The table of a category: the code is the position."""
    missing: Literal["nan", "reject"] | float = "nan"
    """Null, absent or NaN: passed as NaN, the record set aside, or this number (of a category: this code)."""
    infinite: Literal["pass", "reject"] = "reject"
    unseen: Literal["nan", "reject"] | int = "nan"
    """A category that is not in the table: missing, the record set aside, or this code."""
    sentinel: float | None = None
    """A number that stands for a missing value (XGBoost's `missing=-999`), compared in float32; none of a category."""
    within: tuple[tuple[float, float], ...] = ()
    """Of a number: the ranges that the model takes, ends included, ascending and apart; a record with any other number is set
    aside. Empty: all numbers."""
    parts: tuple[TextPart, ...] = ()
    """Of a text: what is counted in it, one part's columns after the other's."""
    instead: str | None = None
    """Of a text: what a missing one is read as; None: `missing` decides."""

    def __post_init__(self) -> None:
        if self.parts:
            object.__setattr__(self, "width", sum(len(part.column_words) for part in self.parts))
        if not self.field:
            object.__setattr__(self, "field", field_of(self.name))
        if not self.name or any(not part for part in self.path):
            raise ConfigError(f"feature {self.name or '(without a name)'} reads no field: {self.field!r}")
        if self.kind not in get_args(Kind):
            raise ConfigError(
                f"feature {self.name} is of kind {self.kind}; known are number, category, vector, text"
            )
        if not 1 <= self.width <= width_max or (self.kind not in ("vector", "text") and self.width != 1):
            raise ConfigError(f"feature {self.name} of kind {self.kind} cannot be {self.width} columns wide")
        if self.infinite not in ("pass", "reject"):
            raise ConfigError(f"feature {self.name}: infinite is pass or reject, not {self.infinite}")
        if self.sentinel is not None and (self.kind == "category" or not math.isfinite(self.sentinel)):
            raise ConfigError(
                f"feature {self.name}: sentinel is a finite number, and none of a category, not {self.sentinel}"
            )
        self._check_within()
        self._check_category()
        self._check_text()

    def _check_within(self) -> None:
        ends = [end for each in self.within for end in each]
        if ends and self.kind not in ("number", "vector"):
            raise ConfigError(f"feature {self.name} is of kind {self.kind}, which has no ranges (within)")
        apart = all(
            self.within[place][1] < self.within[place + 1][0] for place in range(len(self.within) - 1)
        )
        if not apart or not all(low <= high for low, high in self.within):
            raise ConfigError(
                f"feature {self.name}: within is a list of [low, high], ascending, none of them touching another"
            )

    def _check_text(self) -> None:
        is_text = self.kind == "text"
        if is_text != bool(self.parts) or (self.instead is not None and not is_text):
            raise ConfigError(
                f"feature {self.name} is a text without a vocabulary"
                if is_text
                else f"feature {self.name} has a vocabulary but is of kind {self.kind}"
            )
        if is_text and self.width > words_max:
            raise ConfigError(
                f"feature {self.name} makes {self.width} columns of a text, and {words_max} are the most that a bundle takes: "
                "train with max_features, a larger min_df, or SelectKBest behind the vectorizer"
            )
        if is_text and (not isinstance(self.missing, str) or self.sentinel is not None):
            raise ConfigError(
                f"feature {self.name} is a text: missing is reject or nan, and a text stands for it"
            )

    def _check_category(self) -> None:
        is_category = self.kind == "category"
        if is_category != bool(self.categories):
            raise ConfigError(
                f"feature {self.name} is a category without a table"
                if is_category
                else f"feature {self.name} has a category table but is of kind {self.kind}"
            )
        if len(self.categories) > categories_max or len(set(self.categories)) != len(self.categories):
            raise ConfigError(f"feature {self.name} has a category twice, or too many")
        if isinstance(self.missing, str):
            if self.missing not in ("nan", "reject"):
                raise ConfigError(
                    f"feature {self.name}: missing is nan, reject or a number, not {self.missing}"
                )
        elif not math.isfinite(self.missing) or (is_category and not self._is_code(self.missing)):
            raise ConfigError(f"feature {self.name} cannot put {self.missing} for a missing value")
        if isinstance(self.unseen, str):
            if self.unseen not in ("nan", "reject"):
                raise ConfigError(f"feature {self.name}: unseen is nan, reject or a code, not {self.unseen}")
        elif not self._is_code(self.unseen):
            raise ConfigError(f"feature {self.name} cannot put code {self.unseen} for an unseen category")

    def _is_code(self, value: float) -> bool:
        return float(value).is_integer() and 0 <= value < len(self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its matrix columns."""
        if self.kind == "vector":
            return tuple(f"{self.name}[{index}]" for index in range(self.width))
        if self.kind == "text":
            return column_names(self.name, self.parts)
        return (self.name,)

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to its value, from the record inwards."""
        return field_path(self.field)

    @property
    def exact_name(self) -> str | None:
        """The one name under which a record may hold it instead of at the end of its path; None where both are the same, or
        an escape says which is meant."""
        return self.field if len(self.path) > 1 and "\\" not in self.field else None

    @property
    def may_be_nan(self) -> bool:
        """Whether a NaN can stand in one of its columns."""
        return self.missing == "nan" or (self.kind == "category" and self.unseen == "nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """One input of the graph, fed from the columns [start, start + width) of the matrix.

    A `string` input covers categories only: their codes are turned into the strings of their tables, and NaN into "".
    """

    name: str
    dtype: InputType
    start: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """The features in matrix order, and the inputs that the matrix is cut into.

    Every column belongs to exactly one input, in order. Construction raises ConfigError otherwise.
    """

    features: tuple[Feature, ...]
    inputs: tuple[ModelInput, ...]
    cuts: tuple[tuple[float, ...], ...] = ()
    """For each column the thresholds, ascending, that the original compares in double precision while the graph compares
    float32 (penstock.engine.features.narrowing keeps every value on its side of each); empty where there is no such column."""

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        columns = self.columns
        if not names or len(set(names)) != len(names) or len(set(columns)) != len(columns):
            raise ConfigError("a model needs features, each with a name of its own")
        if len(columns) > width_max:
            raise ConfigError(f"{len(columns)} matrix columns are more than {width_max}")
        place = 0
        for model_input in self.inputs:
            if model_input.dtype not in get_args(InputType):
                raise ConfigError(
                    f"input {model_input.name} is of type {model_input.dtype}, which is not fed"
                )
            if model_input.start != place or model_input.width < 1:
                raise ConfigError(f"input {model_input.name} does not start at column {place}")
            place += model_input.width
        if place != len(columns):
            raise ConfigError(f"the inputs take {place} columns, the features have {len(columns)}")
        self._check_feeds()
        self._check_cuts()

    def _check_cuts(self) -> None:
        if not self.cuts:
            return
        if len(self.cuts) != self.width or self.dtype != np.float32:
            raise ConfigError("cuts are one list for each column, of a model whose inputs are float32")
        for feature, cuts in zip(self.column_features, self.cuts, strict=True):
            if feature.kind == "category" and cuts:
                raise ConfigError(f"feature {feature.name} is a category and has cuts")
            if (np.diff(cuts) <= 0).any() or np.isnan(cuts).any():
                raise ConfigError(f"the cuts of feature {feature.name} are not ascending")

    def _check_feeds(self) -> None:
        owners = self.column_features
        for model_input in self.inputs:
            for feature in owners[model_input.start : model_input.start + model_input.width]:
                if model_input.dtype == "string" and feature.kind != "category":
                    raise ConfigError(
                        f"input {model_input.name} takes strings: feature {feature.name} must be a category"
                    )
                if model_input.dtype in ("int64", "int32", "bool") and (
                    feature.may_be_nan or feature.infinite == "pass"
                ):
                    raise ConfigError(
                        f"input {model_input.name} is {model_input.dtype}, which has no NaN or infinity: "
                        f"feature {feature.name} needs missing (and unseen) to be reject or a number"
                    )

    @property
    def column_features(self) -> tuple[Feature, ...]:
        """The feature of each matrix column."""
        return tuple(feature for feature in self.features for _ in range(feature.width))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the matrix columns, F of them."""
        return tuple(column for feature in self.features for column in feature.columns)

    @property
    def width(self) -> int:
        """F."""
        return sum(feature.width for feature in self.features)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """float32 when that loses nothing that an input could tell, else float64."""
        narrow = all(model_input.dtype in ("float32", "string", "bool") for model_input in self.inputs)
        return np.dtype(np.float32 if narrow else np.float64)

    @property
    def record_dtype(self) -> np.dtype[np.generic]:
        """What records are read into: float64 where doubles are told apart (an input, cuts, ranges), else float32."""
        ranged = any(feature.within for feature in self.features)
        return np.dtype(np.float64) if self.cuts or ranged else self.dtype

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "features": [_feature_json(feature) for feature in self.features],
            "inputs": [asdict(model_input) for model_input in self.inputs],
            "cuts": [list(column) for column in self.cuts],
        }

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> "Signature":
        """Undo to_json. Raises ConfigError."""
        return Signature(
            features=tuple(feature_from_json(item) for item in _items(tree, "features")),
            inputs=tuple(_input_from_json(item) for item in _items(tree, "inputs")),
            cuts=tuple(_cuts_from_json(item) for item in _items(tree, "cuts")),
        )


def _feature_json(feature: Feature) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": feature.name,
        "field": feature.field,
        "kind": feature.kind,
        "missing": feature.missing,
        "infinite": feature.infinite,
    }
    if feature.sentinel is not None:
        tree["sentinel"] = feature.sentinel
    if feature.within:
        tree["within"] = [[end if math.isfinite(end) else None for end in each] for each in feature.within]
    if feature.kind == "vector":
        tree["width"] = feature.width
    if feature.kind == "category":
        tree["categories"] = list(feature.categories)
        tree["unseen"] = feature.unseen
    if feature.kind == "text":
        tree["parts"] = [part.to_json() for part in feature.parts]
        if feature.instead is not None:
            tree["instead"] = feature.instead
    return tree


def feature_from_json(tree: Any) -> Feature:
    """One feature as a manifest or a features file describes it. Raises ConfigError."""
    allowed = {
        "name",
        "field",
        "kind",
        "width",
        "categories",
        "missing",
        "infinite",
        "unseen",
        "sentinel",
        "within",
        "parts",
        "instead",
    }
    if not isinstance(tree, Mapping) or not {"name", "kind"} <= set(tree) <= allowed:
        raise ConfigError(
            f"a feature is an object of name, kind and perhaps {', '.join(sorted(allowed - {'name', 'kind'}))}"
        )
    texts = (tree["name"], tree.get("field", ""), tree["kind"], tree.get("infinite", "reject"))
    categories = tree.get("categories", [])
    missing, unseen = tree.get("missing", "nan"), tree.get("unseen", "nan")
    typed = (
        all(isinstance(text, str) for text in texts)
        and type(tree.get("width", 1)) is int
        and isinstance(categories, list)
        and all(isinstance(category, str) for category in categories)
        and type(missing) in (str, int, float)
        and type(unseen) in (str, int)
        and type(tree.get("sentinel")) in (int, float, type(None))
        and isinstance(tree.get("parts", []), list)
        and type(tree.get("instead")) in (str, type(None))
    )
    if not typed:
        raise ConfigError(f"feature {tree['name']} has a member of the wrong type")
    parts = tuple(part_from_json(part) for part in tree.get("parts", []))
    within = _within_from_json(tree["name"], tree.get("within", []))
    return Feature(**{**tree, "categories": tuple(categories), "parts": parts, "within": within})


def _within_from_json(name: str, ranges: Any) -> tuple[tuple[float, float], ...]:
    found = []
    for each in ranges if isinstance(ranges, list) else [None]:
        pair = each if isinstance(each, list) and len(each) == 2 else [""]
        if any(type(end) not in (int, float, type(None)) or end != end for end in pair):
            raise ConfigError(f"feature {name}: within is a list of [low, high], null for no end")
        low, high = pair
        found.append((-math.inf if low is None else float(low), math.inf if high is None else float(high)))
    return tuple(found)


def _input_from_json(tree: Any) -> ModelInput:
    types = {"name": str, "dtype": str, "start": int, "width": int}
    if (
        not isinstance(tree, Mapping)
        or set(tree) != set(types)
        or any(type(tree[name]) is not kind for name, kind in types.items())
    ):
        raise ConfigError("a model input is an object of name, dtype, start and width")
    return ModelInput(**tree)


def _cuts_from_json(column: Any) -> tuple[float, ...]:
    if not isinstance(column, list) or any(type(cut) not in (int, float) for cut in column):
        raise ConfigError("the cuts of a column are not a list of numbers")
    return tuple(float(cut) for cut in column)


def _items(tree: Mapping[str, Any], name: str) -> list[Any]:
    items = tree.get(name)
    if not isinstance(items, list):
        raise ConfigError(f"the manifest has no list of {name}")
    return items
