"""Random forests, rows that visit their corners, and Shapley values by definition, in exact rational arithmetic."""

from fractions import Fraction
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest, PostTransform

categories = 40


class _Growing:
    def __init__(
        self, rng: np.random.Generator, features: int, outputs: int, *, sets: int, positive: bool
    ) -> None:
        self.rng, self.features, self.outputs, self.positive, self.members_max = (
            rng,
            features,
            outputs,
            positive,
            sets,
        )
        self.nodes: list[list[float]] = []  # feature, threshold, set, yes, no, missing, leaf, cover
        self.sets: list[NDArray[np.float32]] = []
        self.values: list[NDArray[np.float64]] = []

    def grow(self, depth: int, cover: float, *, bushy: bool) -> int:
        place = len(self.nodes)
        node: list[float] = [-1, 0, -1, -1, -1, 0, -1, cover]
        self.nodes.append(node)
        if depth == 0 or (not bushy and self.rng.random() < 0.2):
            node[6] = len(self.values)
            value = self.rng.normal(size=self.outputs)
            self.values.append(np.abs(value) if self.positive else value)
            return place
        feature = int(self.rng.integers(self.features))
        node[0], node[5] = feature, int(self.rng.integers(2))
        if self.members_max and feature % 3 == 0:
            node[2] = len(self.sets)
            count = int(self.rng.integers(0, self.members_max + 1))
            self.sets.append(np.unique(self.rng.integers(0, categories, count)).astype(np.float32))
        else:
            node[1] = (
                float(self.rng.integers(0, 20)) if self.rng.random() < 0.5 else float(self.rng.normal() * 10)
            )
        share = self.rng.random()
        node[3] = self.grow(depth - 1, cover * share, bushy=bushy and self.rng.random() < 0.7)
        node[4] = self.grow(depth - 1, cover * (1 - share), bushy=bushy and self.rng.random() < 0.7)
        return place


def random_forest(
    seed: int,
    *,
    trees: int = 3,
    depth: int = 4,
    features: int = 6,
    outputs: int = 1,
    sets: int = 7,
    covers: bool = True,
    positive: bool = False,
    labels: tuple[str, ...] = (),
    post: PostTransform = PostTransform.NONE,
    mirror: float = 0.0,
) -> Forest:
    """A forest of uneven trees; every third feature is a category, tested against up to `sets` members."""
    growing = _Growing(np.random.default_rng(seed), features, outputs, sets=sets, positive=positive)
    roots = [growing.grow(depth, 100.0, bushy=True) for _ in range(trees)]
    columns = list(zip(*growing.nodes, strict=True))
    base = growing.rng.normal(size=outputs) if mirror == 0 else np.zeros(outputs)
    return Forest(
        features=features,
        outputs=outputs,
        roots=np.array(roots, dtype=np.int32),
        feature=np.array(columns[0], dtype=np.int32),
        threshold=np.array(columns[1], dtype=np.float32),
        set_index=np.array(columns[2], dtype=np.int32),
        yes=np.array(columns[3], dtype=np.int32),
        no=np.array(columns[4], dtype=np.int32),
        missing_yes=np.array(columns[5], dtype=np.uint8),
        leaf=np.array(columns[6], dtype=np.int32),
        cover=np.array(columns[7]) if covers else None,
        leaf_values=np.array(growing.values).astype(np.float32).astype(np.float64).reshape(-1, outputs),
        base_values=base.astype(np.float32).astype(np.float64),
        set_offsets=np.cumsum([0, *(len(members) for members in growing.sets)]).astype(np.int32),
        set_values=np.concatenate([np.empty(0, dtype=np.float32), *growing.sets]),
        post_transform=post,
        labels=labels,
        output_name="scores",
        mirror=mirror,
    )


def random_rows(seed: int, rows: int, features: int = 6, *, infinite: bool = True) -> NDArray[np.float32]:
    """Numbers, category codes (some in no table), missing values, infinities."""
    rng = np.random.default_rng(seed)
    shape = (rows, features)
    codes = rng.integers(0, categories + 5, shape)
    X = np.where(rng.random(shape) < 0.5, codes, rng.normal(size=shape) * 10).astype(np.float32)
    X[rng.random(shape) < 0.1] = np.nan
    if infinite:
        X[rng.random(shape) < 0.02] = np.inf
        X[rng.random(shape) < 0.02] = -np.inf
    return X


def run_onnx(model: onnx.ModelProto, X: NDArray[np.generic]) -> list[NDArray[Any]]:
    """The model's outputs in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: X})
    return results


def class_scores(forest: Forest, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the model answers, (rows, classes): every raw score after the post_transform."""
    raw = forest.raw_scores(X)
    if forest.labels and forest.outputs == 1:
        raw = np.concatenate((forest.mirror - raw, raw), axis=1)
    if forest.post_transform is PostTransform.EXP:
        return np.exp(raw)
    if forest.post_transform is PostTransform.LOGISTIC:
        return np.asarray(1 / (1 + np.exp(-raw)))
    if forest.post_transform is PostTransform.SOFTMAX:
        return np.asarray(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True))
    return raw


def exact_shap(
    forest: Forest, x: NDArray[np.float32], background: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapley values (F, K) of one row and the value of the empty coalition (K,), by their definition.

    Without a background the game is the path-dependent one: at a test of an absent feature both children are followed,
    weighted by cover (by a half each where nothing passed).
    """
    worlds = [None] if background is None else list(background)
    value: dict[frozenset[int], list[Fraction]] = {}
    for size in range(forest.features + 1):
        for members in combinations(range(forest.features), size):
            scores = [_coalition(forest, frozenset(members), x, world) for world in worlds]
            value[frozenset(members)] = [
                sum(column, Fraction(0)) / len(worlds) for column in zip(*scores, strict=True)
            ]
    phi = np.zeros((forest.features, forest.outputs))
    for feature in range(forest.features):
        total = [Fraction(0)] * forest.outputs
        for coalition, without in value.items():
            if feature in coalition:
                continue
            weight = Fraction(
                factorial(len(coalition)) * factorial(forest.features - len(coalition) - 1),
                factorial(forest.features),
            )
            gained = value[coalition | {feature}]
            total = [t + weight * (g - w) for t, g, w in zip(total, gained, without, strict=True)]
        phi[feature] = [float(t) for t in total]
    return phi, np.array([float(v) for v in value[frozenset()]])


def _coalition(
    forest: Forest, members: frozenset[int], x: NDArray[np.float32], world: NDArray[np.float32] | None
) -> list[Fraction]:
    scores = [Fraction(float(base)) for base in forest.base_values]
    waiting = [(int(root), Fraction(1)) for root in forest.roots]
    while waiting:
        node, weight = waiting.pop()
        if forest.leaf[node] >= 0:
            values = forest.leaf_values[forest.leaf[node]]
            scores = [score + weight * Fraction(float(v)) for score, v in zip(scores, values, strict=True)]
            continue
        feature, yes, no = int(forest.feature[node]), int(forest.yes[node]), int(forest.no[node])
        row = x if feature in members else world
        if row is not None:
            goes_yes = bool(forest.passes(np.array([node]), row[feature : feature + 1])[0])
            waiting.append((yes if goes_yes else no, weight))
            continue
        assert forest.cover is not None
        passed = Fraction(float(forest.cover[node]))
        for child in (yes, no):
            share = Fraction(float(forest.cover[child])) / passed if passed else Fraction(1, 2)
            waiting.append((child, weight * share))
    return scores
