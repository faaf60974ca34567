"""Rows for the cases of other projects' suites: scikit-learn's own data sets, and made ones from seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn import datasets

Answer = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows to train on with their answers (R,) or (R, T), and rows that no model has seen."""

    training: pd.DataFrame
    answers: Answer
    unseen: pd.DataFrame


def _parted(frame: pd.DataFrame, answers: Answer, *, seed: int = 0) -> Table:
    order = np.random.default_rng(seed).permutation(len(frame))
    count = max(len(frame) * 3 // 5, 1)
    train, rest = order[:count], order[count:]
    return Table(
        training=frame.iloc[train].reset_index(drop=True),
        answers=np.asarray(answers)[train],
        unseen=frame.iloc[rest].reset_index(drop=True),
    )


def _named(rows: NDArray[Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[f"f{place}" for place in range(rows.shape[1])])


def of_sklearn(
    name: str, *, classes: int | None = None, rows: int = 400, named: bool = False, kind: str = "float64"
) -> Table:
    """`iris`, `wine`, `breast_cancer`, `digits` or `diabetes`; the first `classes` of its classes, at most so many rows, drawn; with
    its own names of columns, `named`. Two columns of `digits` in three never change."""
    bunch = getattr(datasets, f"load_{name}")()
    data, answers = np.asarray(bunch.data), np.asarray(bunch.target)
    if classes is not None:
        data, answers = data[answers < classes], answers[answers < classes]
    some = np.random.default_rng(1).permutation(len(data))[:rows]
    frame = _named(data[some].astype(kind))
    if named:
        frame.columns = [str(each).replace(" ", "_") for each in bunch.feature_names]
    return _parted(frame, answers[some])


def _features(count: int, rows: int, kind: str, random: np.random.Generator) -> NDArray[Any]:
    found = random.normal(size=(rows, count))
    if kind == "int":
        return (found * 10).astype(np.int64)
    if kind == "bool":
        return found > 0
    if kind == "positive":
        return np.abs(found) + 0.1
    if kind == "mostly zero":
        return np.where(random.random(found.shape) < 0.1, found, 0.0)
    if kind == "counts":
        return np.asarray(random.poisson(3, (rows, count)))
    if kind == "unit":
        return np.asarray(random.random((rows, count)))
    if kind == "decimals":
        return np.round(np.exp(found + 3), 2)
    if kind == "large ids":
        return 5e9 + (found * 100).round()
    return found.astype(kind)


def _score(rows: NDArray[Any]) -> NDArray[np.float64]:
    numbers = rows.astype(np.float64)
    numbers = (numbers - numbers.mean(axis=0)) / np.maximum(numbers.std(axis=0), 1e-9)
    weights = np.where(np.arange(rows.shape[1]) % 2, -0.7, 1.0)
    found = numbers @ weights
    if rows.shape[1] > 1:
        found += numbers[:, 0] * numbers[:, 1] * 0.5
    return np.asarray(found, dtype=np.float64)


def _places(score: Answer, count: int) -> Answer:
    """Which of `count` classes each is of, by where it lies among all."""
    return np.searchsorted(np.quantile(score, np.linspace(0, 1, count + 1)[1:-1]), score)


def classes(
    count: int = 2, *, features: int = 4, rows: int = 300, kind: str = "float64", labels: Sequence[Any] | None = None,
    targets: int = 1, missing: float = 0.0, seed: int = 0,
) -> Table:  # fmt: skip
    """Made rows of `count` classes, called 0, 1, ... or `labels`. `kind`: a dtype, or int, bool, positive, mostly zero, counts, unit,
    decimals, large ids. `missing`: the share of numbers that are NaN. Several `targets`: the answers are (R, T)."""
    random = np.random.default_rng(seed)
    data = _features(features, rows, kind, random)
    score = _score(data) + random.normal(scale=0.3, size=rows)
    found = []
    for target in range(targets):
        turned = np.roll(score, target * 7)
        place = _places(turned, count)
        found.append(place if labels is None else np.asarray(labels)[place])
    return _parted(
        _holed(_named(data), missing, random), found[0] if targets == 1 else np.stack(found, axis=1)
    )


def numbers(
    *, features: int = 4, rows: int = 300, kind: str = "float64", targets: int = 1, missing: float = 0.0,
    positive: bool = False, whole: bool = False, seed: int = 0,
) -> Table:  # fmt: skip
    """Made rows and answers that are numbers: above 0 (`positive`), `whole`, or several (`targets`). Else as `classes`."""
    random = np.random.default_rng(seed)
    data = _features(features, rows, kind, random)
    score = _score(data) + random.normal(scale=0.1, size=rows)
    answers = (
        score if targets == 1 else np.stack([score * (1 + each) - each for each in range(targets)], axis=1)
    )
    if positive:
        answers = np.exp(answers / 3)
    return _parted(_holed(_named(data), missing, random), np.round(answers * 3) if whole else answers)


def _holed(frame: pd.DataFrame, share: float, random: np.random.Generator) -> pd.DataFrame:
    return frame.mask(random.random(frame.shape) < share) if share else frame


def given(
    rows: Sequence[Sequence[Any]], answers: Sequence[Any], *, unseen: Sequence[Sequence[Any]] | None = None,
    columns: Sequence[str] | None = None, kind: str | None = None, times: int = 1,
) -> Table:  # fmt: skip
    """A few rows written out, repeated `times` for what wants more of them; unseen are those, or the same ones."""
    names = list(columns) if columns is not None else [f"f{place}" for place in range(len(rows[0]))]

    def made(some: Sequence[Sequence[Any]]) -> pd.DataFrame:
        frame = pd.DataFrame([list(row) for row in some], columns=names)
        return frame if kind is None else frame.astype(kind)

    return Table(
        training=made([*rows] * times),
        answers=np.asarray([*answers] * times),
        unseen=made(rows if unseen is None else unseen),
    )


def categories(
    columns: int = 2,
    *,
    levels: int = 3,
    rows: int = 200,
    numbers: int = 0,
    classes: int = 0,
    kind: str = "text",
    unknown: float = 0.0,
    seed: int = 0,
) -> Table:
    """Columns c0, c1, ... of texts (or `kind` int: whole numbers; category, int category: pandas' categories of those), then `numbers`
    columns n0, ...; answers are numbers, or classes. `unknown`: the share of unseen categories that training did not have."""
    random = np.random.default_rng(seed)
    places = random.integers(0, levels, (rows, columns))
    frame = pd.DataFrame({
        f"c{column}": places[:, column] if kind.startswith("int") else np.asarray([f"level {place}" for place in range(levels)], dtype=object)[places[:, column]]
        for column in range(columns)
    })  # fmt: skip
    if kind.endswith("category"):
        frame = frame.astype("category")
    for number in range(numbers):
        frame[f"n{number}"] = random.normal(size=rows)
    score = places.sum(axis=1) + random.normal(scale=0.3, size=rows)
    if classes:
        score = _places(score, classes)
    table = _parted(frame, score)
    for name in table.unseen.columns[: columns if unknown else 0]:
        column = table.unseen[name].astype(object)
        strange = 1000 if kind.startswith("int") else "strange"
        column[random.random(len(column)) < unknown] = strange
        table.unseen[name] = column.astype(pd.CategoricalDtype([*frame[name].cat.categories, strange]))
    return table


_words = (
    "this is the first document", "this document is the second document", "Is this the first document?", "", "and this is the third one",
    "first second third", "the the the", "a quick fox, a lazy dog", "QUICK! Lazy?", "naïve café, crème brûlée", "one-two three_four 5 67",
)  # fmt: skip


def texts(*, classes: int = 2, rows: int = 120, seed: int = 0) -> Table:
    """A column `text` of short sentences, accents, punctuation and an empty one among them."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(_words), (rows, 2))
    frame = pd.DataFrame({"text": [f"{_words[a]} {_words[b]}".strip() for a, b in drawn.tolist()]})
    answers = drawn.sum(axis=1)
    return _parted(frame, _places(answers, classes) if classes else answers.astype(float))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained:
    estimator: Any
    native: bool
    sparse: bool

    def fit(self, rows: pd.DataFrame, answers: Answer, **options: Any) -> Any:
        model = self.estimator.fit(csr_matrix(rows) if self.sparse else rows, answers, **options)
        if not self.native:
            return model
        return model.get_booster() if hasattr(model, "get_booster") else model.booster_


def trained(estimator: Any, *, native: bool = False, sparse: bool = False) -> Any:
    """An estimator that is fitted to a sparse matrix, whose zeros are missing to XGBoost; or the native booster that it makes."""
    return _Trained(estimator=estimator, native=native, sparse=sparse)


made: dict[str, Callable[..., Table]] = {
    "of_sklearn": of_sklearn, "classes": classes, "numbers": numbers, "given": given, "categories": categories, "texts": texts,
    "trained": trained,
}  # fmt: skip
