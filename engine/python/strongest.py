"""The strongest attributions of each row, in the order and with the sums of the stream's encoder."""

import numpy as np
from numpy.typing import NDArray


def strongest_first(values: NDArray[np.float64], top: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of values (E, F) the places of the `top` strongest, strongest first and of equals the first (E, top), and of the
    others, ascending (E, F - top)."""
    strength = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.argsort(-strength, axis=1, kind="stable")
    return order[:, :top], np.sort(order[:, top:], axis=1)


def sum_of(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """(E,) the sums of values[e, places[e]], added up one after the other: in another order the last bits would differ."""
    if not places.shape[1]:
        return np.zeros(len(values))
    left = np.take_along_axis(values, places, axis=1)
    total = np.zeros(len(values))
    for column in range(left.shape[1]):
        total += left[:, column]
    return total
