"""Shapley values of a model in Python by their definition: all coalitions of a data frame's columns."""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def enumerated(
    answer: Callable[[pd.DataFrame], NDArray[np.float64]],
    rows: pd.DataFrame,
    background: pd.DataFrame,
    names: Sequence[str],
) -> NDArray[np.float64]:
    """Values (R, F) relative to all background rows. `answer`: the model's number for each row of a data frame."""
    count = len(names)
    found = np.zeros((len(rows), count))
    for place in range(len(rows)):
        worth = {}
        for size in range(count + 1):
            for chosen in combinations(range(count), size):
                mixed = background.copy()
                for feature in chosen:
                    column = pd.Series([rows.iloc[place][names[feature]]] * len(mixed), index=mixed.index)
                    mixed[names[feature]] = column.astype(background[names[feature]].dtype)
                worth[chosen] = float(answer(mixed).mean())
        for feature in range(count):
            for chosen, value in worth.items():
                if feature in chosen:
                    continue
                weight = factorial(len(chosen)) * factorial(count - len(chosen) - 1) / factorial(count)
                found[place, feature] += weight * (worth[tuple(sorted((*chosen, feature)))] - value)
    return found
