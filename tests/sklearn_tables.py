"""Tables of the kinds of data that models have, all from one seed, and what is learned from them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

numbers, texts = ["amount", "age"], ["sex", "job"]
words = (
    "refund", "broken", "Great", "love", "HATE", "slow", "fast", "delivery", "price", "cheap", "ÄRGER", "straße",
    "don't", "100", "über", "café", "café", "İstanbul", "日本", "x2", "½",
)  # fmt: skip
between = (" ", " ", ", ", ".", "-", "\n", "_", "\u00a0")
nothing = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of data: what is done to the usual columns, in training and in the records."""

    name: str
    decimals: int = 2
    base: float = 0.0
    """Added to the amounts: large ids."""
    nulls: bool = False
    unseen: bool = False
    """Records hold categories that training did not."""
    flags: bool = False
    """A column of booleans and one of whole-number codes are read too."""


kinds = (
    Kind(name="decimals"),
    Kind(name="large ids", base=5_000_000_000.0, decimals=0),
    Kind(name="nulls", nulls=True),
    Kind(name="unseen categories", unseen=True),
    Kind(name="booleans and codes", flags=True),
    Kind(name="all of it", base=20_000_000.0, nulls=True, unseen=True, flags=True),
)


def table(kind: Kind, rows: int, seed: int, *, training: bool) -> pd.DataFrame:
    """So many rows of that kind; a column of texts in it is read by nothing."""
    random = np.random.default_rng(seed)
    jobs = list("abcdef") if training or not kind.unseen else list("abcdefyz")
    frame = pd.DataFrame(
        {
            "passenger": pd.Series([f"p{place}" for place in range(rows)], dtype=object),
            "amount": np.round(np.exp(random.normal(3, 1, rows)), kind.decimals) + kind.base,
            "age": random.integers(18, 90, rows).astype(np.float64),
            "sex": pd.Series(random.choice(["f", "m"], rows), dtype=object),
            "job": pd.Series(random.choice(jobs, rows), dtype=object),
            "code": random.integers(1, 6, rows).astype(np.float64),
            "vip": random.random(rows) < 0.3,
        }
    )
    if kind.nulls:
        for name in ("age", "job"):
            frame.loc[random.random(rows) < 0.15, name] = nothing
    frame["note"] = _notes(kind, rows, random, training=training)
    return frame


def _notes(kind: Kind, rows: int, random: np.random.Generator, *, training: bool) -> pd.Series:
    """Texts; of records also such as training did not have, and none at all."""
    known = words[:-4] if training or not kind.unseen else words
    found: list[Any] = []
    for _ in range(rows):
        chosen = random.choice(known, random.integers(0, 9)).tolist()
        cased = [(word, word.upper(), word.title())[random.integers(0, 3)] for word in chosen]
        found.append("".join(word + between[random.integers(len(between))] for word in cased))
    if kind.nulls and not training:
        for place in np.flatnonzero(random.random(rows) < 0.1).tolist():
            found[place] = nothing
    return pd.Series(found, dtype=object)


def late(frame: pd.DataFrame) -> np.ndarray:
    """Two classes that hang on all columns."""
    middle = frame["amount"].median()
    return np.asarray(
        (frame["amount"] > middle) ^ (frame["sex"] == "f") ^ (frame["age"].fillna(50) > 60)
    ).astype(int)


def grade(frame: pd.DataFrame) -> np.ndarray:
    """Three classes, called by texts."""
    place = late(frame) + (frame["job"].fillna("a") > "c").astype(int)
    return np.array(["low", "middle", "high"])[np.asarray(place)]


def cost(frame: pd.DataFrame) -> np.ndarray:
    """A positive number."""
    amount = frame["amount"] - frame["amount"].min()
    return np.asarray(np.sqrt(amount + 1) + frame["age"].fillna(50) / 10 + 3 * (frame["sex"] == "f"))


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON holds them: null where nothing is known, a code as a whole number."""
    found = []
    for row in frame.to_dict("records"):
        row["code"] = int(row["code"])
        row["vip"] = bool(row["vip"])
        found.append(
            {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in row.items()
            }
        )
    return found
