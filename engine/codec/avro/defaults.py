"""Where the features of a model stand in a reader's schema, and what they hold where the writer does not know the field."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from penstock.engine.codec.avro.types import AvroType, UnsupportedSchemaError, absent
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature

depth_max: Final = 32


@dataclass(frozen=True, slots=True)
class Target:
    """A place in the reader's schema: its dotted path, and the features, each with its first column, by path."""

    path: str
    features: Mapping[str, tuple[Feature, int]]
    item_of: tuple[Feature, int] | None = None

    @property
    def feature(self) -> Feature | None:
        """The feature that is read from here."""
        found = self.item_of or self.features.get(self.path)
        return found[0] if found is not None else None

    @property
    def column(self) -> int:
        """Its first column; -1 without a feature, and for the items of a vector, which have no column of their own."""
        found = self.features.get(self.path)
        return found[1] if found is not None else -1

    def member(self, name: str) -> "Target":
        """A field of the record here."""
        return Target(f"{self.path}.{name}" if self.path else name, self.features)

    def item(self) -> "Target":
        """The items of the vector here: each is read as a number."""
        assert self.feature is not None
        number = Feature(name=self.feature.name, field=self.feature.field, kind="number")
        return Target("", {}, (number, -1))

    def nothing(self) -> "Target":
        """A place below which nothing is read."""
        return Target("", {})


def code_of(feature: Feature) -> Callable[[str], float]:
    """From the name of a category to its code, or to unseen_code."""
    codes = {name: float(code) for code, name in enumerate(feature.categories)}
    return lambda name: codes.get(name, unseen_code)


def default_columns(
    wanted: AvroType, default: Any, target: Target, depth: int = 0
) -> list[tuple[int, float]]:
    """What the columns below a field hold that the writer does not know; NaN, which they hold anyway, is left out.

    Raises UnsupportedSchemaError for a default that is not one of its type's.
    """
    if default is absent or depth > depth_max:
        raise UnsupportedSchemaError("a field that is not written has no default that can be read")
    if default is None:
        return []
    if target.feature is not None:
        return _feature_columns(wanted, default, target.feature, target.column)
    if not target.features:
        return []
    for branch in wanted.inner if wanted.kind == "union" else [wanted]:
        if branch.kind == "record" and isinstance(default, Mapping):
            found = []
            for each in branch.fields:
                inner = default.get(each.name, each.default)
                if _is_above_a_feature(target.member(each.name)):
                    found += default_columns(each.type, inner, target.member(each.name), depth + 1)
            return found
    return []


def _is_above_a_feature(target: Target) -> bool:
    return any(path == target.path or path.startswith(f"{target.path}.") for path in target.features)


def _feature_columns(
    wanted: AvroType, default: Any, feature: Feature, column: int
) -> list[tuple[int, float]]:
    if feature.kind == "category":
        if not isinstance(default, str):
            raise UnsupportedSchemaError("the default of a category is no text")
        return [(column, code_of(feature)(default))]
    if feature.kind == "number":
        return [(column, _number(wanted, default))]
    if not isinstance(default, list) or len(default) != feature.width:
        raise UnsupportedSchemaError("the default of a vector is no array of its length")
    array = next((branch for branch in _branches(wanted) if branch.kind == "array"), None)
    if array is None:
        raise UnsupportedSchemaError("the default of a vector has another type")
    numbers = [math.nan if item is None else _number(array.inner[0], item) for item in default]
    return [(column + place, number) for place, number in enumerate(numbers) if not math.isnan(number)]


def _number(wanted: AvroType, default: Any) -> float:
    if isinstance(default, int | float):
        try:
            return float(default)
        except OverflowError as error:
            raise UnsupportedSchemaError("the default of a number is past any") from error
    decimal = next((branch.decimal for branch in _branches(wanted) if branch.decimal is not None), None)
    if isinstance(default, str) and decimal is not None:  # a character for each byte
        try:
            unscaled = int.from_bytes(default.encode("latin-1"), "big", signed=True)
        except UnicodeEncodeError as error:
            raise UnsupportedSchemaError("the default of a decimal is no bytes") from error
        return float(Decimal(f"{unscaled}E-{decimal[1]}"))
    raise UnsupportedSchemaError("the default of a number is not a number")


def _branches(wanted: AvroType) -> list[AvroType]:
    return wanted.inner if wanted.kind == "union" else [wanted]
