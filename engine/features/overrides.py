"""The features of a model: what its file says of them, and what a person adds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from penstock.engine.features.signature import Feature, feature_from_json
from penstock.schemas.errors import ConfigError

Overrides = Sequence[Mapping[str, Any]]
"""Features as a features file describes them: objects of name and what is to be said of that feature."""


def read_features_file(path: Path) -> list[dict[str, Any]]:
    """The JSON list in a features file. Raises ConfigError."""
    try:
        items = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ConfigError(f"{path} does not hold a list of features")
    return items


def table_features(
    names: Sequence[str],
    *,
    tables: Mapping[int, tuple[str, ...]],
    categorical: Sequence[int],
    overrides: Overrides,
) -> tuple[Feature, ...]:
    """The features of a model whose rows are plain columns.

    `overrides` either add to features by name, or, when some name in them is not the model's, describe all of them anew,
    in the order of the columns. Raises ConfigError: a category without a table, a feature that is not there.
    """
    described: list[dict[str, Any]] = [
        {"name": name, "kind": "category" if index in tables or index in categorical else "number"}
        | ({"categories": list(tables[index])} if index in tables else {})
        for index, name in enumerate(names)
    ]
    features = described_features(described, overrides)
    width = sum(feature.width for feature in features)
    if width != len(names):
        raise ConfigError(f"the features make {width} columns, the model takes {len(names)}")
    owners = [feature for feature in features for _ in range(feature.width)]
    for column in categorical:
        if owners[column].kind != "category":
            raise ConfigError(
                f"the model takes categories in column {column}: feature {owners[column].name} must be one"
            )
    return features


def described_features(described: Sequence[Mapping[str, Any]], overrides: Overrides) -> tuple[Feature, ...]:
    """The features that a model describes, with what `overrides` add; see table_features."""
    named = [item.get("name") for item in overrides]
    if len(set(named)) != len(named) or None in named:
        raise ConfigError("a features file needs a name for each feature, and each name once")
    known = {item["name"] for item in described}
    if not known.issuperset(named):
        if len(overrides) == len(described):  # new names, in order; the rest as the model says it
            overrides = [{**old, **new} for old, new in zip(described, overrides, strict=True)]
        return tuple(_feature({"kind": "number", **item}) for item in overrides)
    more = {item["name"]: item for item in overrides}
    return tuple(_feature({**item, **more.get(item["name"], {})}) for item in described)


def _feature(item: Mapping[str, Any]) -> Feature:
    if item.get("kind") == "category" and not item.get("categories"):
        raise ConfigError(
            f"feature {item['name']} is a category, and the model file does not keep its table: "
            "give its categories, in the order of their codes, in a features file (--features)"
        )
    return feature_from_json(dict(item))
