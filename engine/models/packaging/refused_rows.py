"""Rows that somebody gave and that can be read in two ways."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.engine.features.values import number_names
from penstock.engine.models.probes.probe_rows import columns_of
from penstock.schemas.errors import ConfigError


def refuse_other_names(rows: Any, signature: Signature, what: str) -> None:
    """Raises ConfigError where a table has names and the model was trained without any."""
    columns, names = columns_of(rows), signature.columns
    made_up = ([f"{prefix}{place}" for place in range(len(names))] for prefix in ("f", "Column_"))
    if columns and [*names] in made_up and not set(columns) & set(names):
        raise ConfigError(
            f"the columns of {what} are {', '.join(columns[:3])}{', ...' if len(columns) > 3 else ''}, and the model was trained without "
            f"names, so that its features are called {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: give the names of its "
            "features in the order of training (feature_names, or --feature-names), or rows as an array (.npy)"
        )


def refuse_values_as_codes(matrix: NDArray[np.float64], signature: Signature, what: str) -> None:
    """Raises ConfigError where a column of codes may as well hold the numbers that its categories are called by."""
    if matrix.ndim != 2 or matrix.shape[1] != signature.width:
        return
    for column, feature in enumerate(signature.column_features):
        named = number_names(feature) if feature.kind == "category" else {}
        if any(name != code for name, code in named.items()):
            values = set(matrix[~np.isnan(matrix[:, column]), column].tolist())
            if values and values <= set(named):
                raise ConfigError(
                    f"{what} hold numbers for {feature.name} that are both its categories and codes of others: give a data frame, whose "
                    f"columns are called {', '.join(signature.columns[:3])}{', ...' if signature.width > 3 else ''} and hold "
                    "categories as they are"
                )
