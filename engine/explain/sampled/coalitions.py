"""Coalition designs: which sets of features a model is evaluated on, and the matrix that makes Shapley values of the answers.

The design for many features draws coalition sizes evenly and each set with its complement, without replacement, and solves
the weighted least squares of Kernel SHAP on it: Musco and Witter, "Provably accurate Shapley value estimation via leverage
score sampling" (ICLR 2025).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_seed = 20_130_101  # the design is part of the method: the same for everybody, on every run


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """Coalitions, and the matrices that turn their values into Shapley values.

    `coalitions` (m, F) bool holds the empty set first and the full set last. `solve` (F, m): phi = solve @ v. `halves`, for a
    sampled design, are two of the same shape that each see half of the coalitions; their difference estimates the error.
    """

    coalitions: NDArray[np.bool_]
    solve: NDArray[np.float64]
    halves: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def exact_design(features: int) -> Design:
    """All 2^F coalitions, coalition number n the features whose bits are set in n; `solve` is the definition."""
    count = 1 << features
    numbers = np.arange(count)
    coalitions = (numbers[:, None] >> np.arange(features)) & 1 == 1
    size = coalitions.sum(axis=1)
    factor = np.array(
        [1.0 / (features * math.comb(features - 1, k)) if k < features else 0.0 for k in range(features)]
    )
    solve = np.zeros((features, count))
    for feature in range(features):
        inside = coalitions[:, feature]
        solve[feature, inside] = factor[size[inside] - 1]
        solve[feature, ~inside] = -factor[size[~inside]]
    return Design(coalitions=coalitions, solve=solve, halves=None)


def paired_design(features: int, samples: int, seed: int = _seed) -> Design:
    """About `samples` coalitions of F >= 2 features, at least 2 F + 2: sizes drawn evenly, every set with its complement, none twice."""
    rng = np.random.default_rng(seed)
    pairs_wanted = max(features, (samples - 2) // 2)
    pairs_wanted = min(pairs_wanted, 2 ** (features - 1) - 1) if features < 60 else pairs_wanted
    chosen: dict[bytes, NDArray[np.bool_]] = {}
    tries = 0
    while len(chosen) < pairs_wanted and tries < 50 * pairs_wanted:
        tries += 1
        members = np.zeros(features, dtype=np.bool_)
        members[rng.choice(features, size=int(rng.integers(1, features)), replace=False)] = True
        if members[0]:  # of a set and its complement, the one without the first feature stands for both
            members = ~members
        chosen.setdefault(members.tobytes(), members)
    half = np.array(list(chosen.values()))
    middle = np.concatenate([half, ~half])
    pairs = len(half)
    coalitions = np.concatenate([np.zeros((1, features), bool), middle, np.ones((1, features), bool)])
    every = np.concatenate([np.arange(pairs), np.arange(pairs)])
    complete = features < 60 and pairs == 2 ** (features - 1) - 1
    weights = _weights(middle.sum(axis=1), features, math.inf if complete else tries)
    parts = (every >= 0, every % 2 == 0, every % 2 == 1)
    solves = [_least_squares(coalitions, np.where(part, weights, 0.0)) for part in parts]
    return Design(coalitions=coalitions, solve=solves[0], halves=(solves[1], solves[2]))


def _weights(size: NDArray[np.int64], features: int, tries: float) -> NDArray[np.float64]:
    """The Shapley kernel over the chance of having been drawn: with few sets of a size all of them are in."""
    per_size = np.array([float(math.comb(features, int(each))) for each in size])
    if math.isinf(tries):
        return np.asarray(1.0 / (per_size * size * (features - size)))
    # A set or its complement, in any try.
    drawn = -np.expm1(tries * np.log1p(-2.0 / ((features - 1) * per_size)))
    return np.asarray(1.0 / (per_size * size * (features - size)) / drawn)


def _least_squares(coalitions: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (F, m) of the least squares under sum(phi) = v(full) - v(empty), the middle rows weighted so."""
    features = coalitions.shape[1]
    Z = coalitions[1:-1].astype(np.float64)
    size = Z.sum(axis=1)
    # With the constraint eliminated: phi = d/F 1 + Q beta, Q an orthonormal basis of the vectors that sum to 0.
    Q = np.linalg.svd(np.ones((1, features)))[2][1:].T
    A = Z @ Q
    pull = np.linalg.pinv(A.T @ (weight[:, None] * A)) @ (A.T * weight)  # (F - 1, m - 2)
    solve = np.zeros((features, len(coalitions)))
    solve[:, 1:-1] = Q @ pull
    # y = v - v(empty) - |S| / F (v(full) - v(empty)), and the constant part d / F of every feature.
    empty = Q @ (pull @ (-1.0 + size / features)) - 1.0 / features
    full = Q @ (pull @ (-size / features)) + 1.0 / features
    solve[:, 0], solve[:, -1] = empty, full
    return solve
