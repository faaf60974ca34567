"""A column of texts for a random pipeline: its words, the vectorizer over them, and where that stands."""

import math
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, Normalizer, StandardScaler

from tests.random_draws import Draw

words = (
    "good", "Bad", "refund", "über", "Straße", "STRASSE", "don't", "x-ray", "100", "3.5", "a", "I", "caf\u00e9", "cafe\u0301", "\u0130stanbul",
    "\u65e5\u672c", "snake_case", "\ufb01ne", "\u0967\u0968\u0969", "\U0001f600", "ok",
)  # fmt: skip
unseen = ("new", "\u1e9e", "\u200b", "\x00", "BAD!", "")
between = (" ", " ", " ", "  ", ",", ".", "\n", "\t", "_", "\u00a0", "\u2028")


def with_texts(
    draw: Draw, training: pd.DataFrame, records: pd.DataFrame, model: Any
) -> tuple[pd.DataFrame, pd.DataFrame, Any]:
    """The frames with one column more, and the unfitted model with a branch that reads it."""
    name = draw.one(["text", "the note", "text[0]"])
    training, records = training.copy(), records.copy()
    training[name] = _texts(draw, len(training), words)
    records[name] = _texts(draw, len(records), words + unseen)
    fills = draw.chance(0.4)
    if draw.chance(0.5):
        gone = np.flatnonzero(draw.random.random(len(records)) < 0.1)
        records.loc[records.index[gone], name] = math.nan
    step = _step(draw)
    if fills:
        step = make_pipeline(
            SimpleImputer(strategy=draw.one(["constant", "most_frequent"]), fill_value="ok"),
            FunctionTransformer(np.ravel),
            step,
        )
    columns = (model.estimator if hasattr(model, "param_grid") else model).named_steps["columns"]
    assert isinstance(columns, ColumnTransformer)
    columns.transformers.append(("words", step, [name] if fills else name))
    if draw.chance(0.6):
        columns.sparse_threshold = 0.0
    return training, records, model


def _texts(draw: Draw, rows: int, known: tuple[str, ...]) -> pd.Series:
    found = []
    for _ in range(rows):
        chosen = [
            known[int(place)] for place in draw.random.integers(0, len(known), draw.random.integers(0, 8))
        ]
        cased = [(word, word, word.upper(), word.title())[int(draw.random.integers(0, 4))] for word in chosen]
        found.append("".join(word + between[int(draw.random.integers(len(between)))] for word in cased))
    return pd.Series(found, dtype=object)


def _step(draw: Draw) -> Any:
    if draw.chance(0.15):
        return FeatureUnion([("a", _vectorizer(draw)), ("b", _vectorizer(draw))])
    step = _vectorizer(draw)
    if isinstance(step, CountVectorizer) and type(step) is CountVectorizer and draw.chance(0.3):
        step = make_pipeline(
            step, TfidfTransformer(sublinear_tf=draw.chance(0.5), norm=draw.one(["l1", "l2", None]))
        )
    behind = draw.one(
        [
            None,
            None,
            None,
            None,
            TruncatedSVD(2, random_state=0),
            VarianceThreshold(),
            MaxAbsScaler(),
            Normalizer(),
            StandardScaler(with_mean=False),
        ]
    )
    return step if behind is None else make_pipeline(step, behind)


def _vectorizer(draw: Draw) -> Any:
    analyzer = draw.one(["word", "word", "word", "char", "char_wb"])
    options: dict[str, Any] = {
        "analyzer": analyzer,
        "lowercase": draw.chance(0.8),
        "strip_accents": draw.one([None, None, "ascii", "unicode"]),
        "ngram_range": draw.one([(1, 1), (1, 1), (1, 2), (2, 2)]),
        "binary": draw.chance(0.2),
        "min_df": draw.one([1, 2, 3]),
        "max_features": draw.one([None, 10, 40]),
    }
    if analyzer == "word":
        options["token_pattern"] = draw.one(
            [r"(?u)\b\w\w+\b", r"(?u)\b\w\w+\b", r"\w+", r"[^\s,]+", r"[a-zA-Z]+"]
        )
        options["stop_words"] = draw.one([None, None, "english", ["ok", "a"]])
    if draw.chance(0.35):
        return CountVectorizer(**options)
    return TfidfVectorizer(
        **options,
        sublinear_tf=draw.chance(0.3),
        use_idf=draw.chance(0.8),
        norm=draw.one(["l1", "l2", "l2", None]),
        smooth_idf=draw.chance(0.8),
    )
