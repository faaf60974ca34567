"""What a text is to a model: how often each word of a vocabulary stands in it, weighted as in training.

The same counts, weights and lengths as scikit-learn's CountVectorizer and TfidfVectorizer make of the same text, to the bit:
texts are cut by the same functions of Python, numbers are added up in the same order.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

Analyzer = Literal["word", "char", "char_wb"]
Accents = Literal["", "ascii", "unicode"]
Norm = Literal["", "l1", "l2"]

characters_max: Final = 1 << 17
"""A longer text is refused: its record is set aside."""
words_max: Final = 1 << 14
"""Columns of one text. Every row of a batch holds all of them."""
grams_max: Final = 32
_flushed: Final = 1 << 20
"""Words found before their numbers are made, whatever the number of texts."""

_item = r"(?:\\[wdsWDS]|\[\^?(?:[^\[\]\\]|\\.)+\]|[^\\\[\](){}.*+?^$|])"
_safe_pattern: Final = re.compile(
    rf"(?:\(\?u\))?(?P<begins>\\b)?(?:{_item}(?:\{{\d{{1,2}}\}})?)*{_item}(?:[+*]|\{{\d{{1,2}},?\d{{0,2}}\}})?(?P<ends>\\b)?"
)
"""Patterns that take time in proportion to the text, whatever it is: one run of characters, at the end."""
_white_spaces: Final = re.compile(r"\s\s+")


def is_safe_pattern(pattern: str) -> bool:
    """Whether words may be found by this regular expression: none that a text could keep busy for long."""
    found = _safe_pattern.fullmatch(pattern)
    if found is None or (found["ends"] and not found["begins"]):
        return False
    try:
        return re.compile(pattern).groups == 0
    except re.error:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """One way to look at a text. Construction raises ConfigError for a contradiction."""

    analyzer: Analyzer
    words: tuple[str, ...]
    """The vocabulary, in order."""
    pattern: str = ""
    """Of words: the regular expression that finds them."""
    lowercase: bool = True
    accents: Accents = ""
    """How accents are taken off."""
    stop_words: tuple[str, ...] = ()
    """Words that are passed over before words are joined."""
    grams: tuple[int, int] = (1, 1)
    """How many words, or characters, stand together: from, to."""
    binary: bool = False
    """Whether a word is there counts, not how often."""
    sublinear: bool = False
    """1 + log(count) stands for the count."""
    weights: tuple[float, ...] = ()
    """What each word's number is multiplied by; empty: nothing."""
    norm: Norm = ""
    """The length that a text's numbers are divided by."""
    kept: tuple[int, ...] = ()
    """Words that columns are made of, by number; empty: all. The others count for the length only."""

    def __post_init__(self) -> None:
        known = set(self.words)
        lists = (self.words, self.stop_words)
        if not self.words or len(known) != len(self.words):
            raise ConfigError("a text has a vocabulary of different words, and at least one")
        if not all(isinstance(word, str) for each in lists for word in each):
            raise ConfigError("a vocabulary holds texts")
        for name, value, kind in (
            ("analyzer", self.analyzer, Analyzer),
            ("accents", self.accents, Accents),
            ("norm", self.norm, Norm),
        ):
            if value not in get_args(kind):
                raise ConfigError(f"a text's {name} cannot be {value!r}")
        if self.analyzer == "word" and not is_safe_pattern(self.pattern):
            raise ConfigError(f"the pattern {self.pattern!r} of a text's words may take a text any time")
        low, high = self.grams
        if not 1 <= low <= high <= grams_max:
            raise ConfigError(f"{low} to {high} words or characters cannot stand together")
        if self.weights and (len(self.weights) != len(self.words) or not np.isfinite(self.weights).all()):
            raise ConfigError("a vocabulary's weights are one number for each word")
        if self.kept and not (
            all(0 <= number < len(self.words) for number in self.kept)
            and len(set(self.kept)) == len(self.kept)
        ):
            raise ConfigError("a text's columns are made of words of its vocabulary, each once")

    @property
    def column_words(self) -> tuple[str, ...]:
        """The word of each column."""
        return tuple(self.words[number] for number in self.kept) if self.kept else self.words

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest: what is not the default."""
        return {
            each.name: list(value) if isinstance(value, tuple) else value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }


def part_from_json(tree: Any) -> TextPart:
    """Undo TextPart.to_json. Raises ConfigError."""
    known = {each.name: each for each in fields(TextPart)}
    lists = {"words": str, "stop_words": str, "grams": int, "weights": float, "kept": int}
    if not isinstance(tree, Mapping) or not {"analyzer", "words"} <= set(tree) <= set(known):
        raise ConfigError("a part of a text is an object of analyzer, words and how they are counted")
    given: dict[str, Any] = {}
    for name, value in tree.items():
        if name in lists:
            kind = lists[name]
            allowed = (float, int) if kind is float else (kind,)
            if not isinstance(value, list) or any(type(each) not in allowed for each in value):
                raise ConfigError(f"{name} of a text is of the wrong type")
            given[name] = tuple(kind(each) for each in value)
        elif type(value) is not (bool if name in ("lowercase", "binary", "sublinear") else str):
            raise ConfigError(f"{name} of a text is of the wrong type")
        else:
            given[name] = value
    if len(given.get("grams", (1, 1))) != 2:
        raise ConfigError("grams of a text are two numbers")
    return TextPart(**given)


def column_names(name: str, parts: Sequence[TextPart]) -> tuple[str, ...]:
    """What the columns of a text are called: name[word], and name[2: word] of a word that an earlier part has too."""
    names: list[str] = []
    known: set[str] = set()
    for number, part in enumerate(parts, 1):
        for word in part.column_words:
            called = f"{name}[{word}]"
            if called in known:
                called = f"{name}[{number}: {word}]"
            known.add(called)
            names.append(called)
    return tuple(names)


class TextColumns:
    """Makes the columns of a text feature."""

    def __init__(self, parts: Sequence[TextPart]) -> None:
        self._parts = [_Part(part) for part in parts]
        self.width = sum(part.width for part in self._parts)

    def fill(
        self, texts: Sequence[str], rows: NDArray[np.integer[Any]], matrix: NDArray[Any], column: int
    ) -> None:
        """Write text i into row rows[i] of the matrix, from `column` on."""
        if not len(rows):
            return
        matrix[rows, column : column + self.width] = 0.0
        for part in self._parts:
            part.fill(texts, rows, matrix, column)
            column += part.width


@dataclass(slots=True, eq=False)
class _Found:
    """Words of some texts: the number of each, and how many each text has."""

    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class _Part:
    def __init__(self, part: TextPart) -> None:
        self._part = part
        self._analyze = analyzer_of(part)
        self._numbers = {word: number for number, word in enumerate(part.words)}
        self._size = len(part.words)
        self._weights = np.array(part.weights, dtype=np.float64)
        self.width = len(part.kept) or self._size
        self._columns = np.full(self._size, -1, dtype=np.int64)
        chosen = np.array(part.kept or range(self._size), dtype=np.int64)
        self._columns[chosen] = np.arange(self.width)

    def fill(
        self, texts: Sequence[str], rows: NDArray[np.integer[Any]], matrix: NDArray[Any], column: int
    ) -> None:
        found, begin = _Found(), 0
        find, analyze = self._numbers.get, self._analyze
        for place, text in enumerate(texts):
            before = len(found.numbers)
            found.numbers += [number for number in map(find, analyze(text)) if number is not None]
            found.counts.append(len(found.numbers) - before)
            if len(found.numbers) >= _flushed:
                self._write(found, rows[begin : place + 1], matrix, column)
                found, begin = _Found(), place + 1
        self._write(found, rows[begin:], matrix, column)

    def _write(
        self, found: _Found, rows: NDArray[np.integer[Any]], matrix: NDArray[Any], column: int
    ) -> None:
        texts = np.repeat(np.arange(len(found.counts)), found.counts)
        keys, counts = np.unique(
            texts * self._size + np.array(found.numbers, dtype=np.int64), return_counts=True
        )
        texts, numbers = keys // self._size, keys % self._size
        values = np.ones(len(keys)) if self._part.binary else counts.astype(np.float64)
        if self._part.sublinear:
            values = np.log(values) + 1.0
        if len(self._weights):
            values *= self._weights[numbers]
        if self._part.norm:
            squares = values * values if self._part.norm == "l2" else np.abs(values)
            length = np.bincount(texts, weights=squares, minlength=len(found.counts))  # one after the other
            length = np.sqrt(length) if self._part.norm == "l2" else length
            length[length == 0.0] = 1.0
            values /= length[texts]
        columns = self._columns[numbers]
        kept = columns >= 0
        matrix[rows[texts[kept]], column + columns[kept]] = values[kept]


def analyzer_of(part: TextPart) -> Callable[[str], list[str]]:
    """From a text to the words, or characters, that are counted in it."""
    prepare = _preparer(part)
    low, high = part.grams
    if part.analyzer == "char":
        return lambda text: _characters(prepare(text), low, high)
    if part.analyzer == "char_wb":
        return lambda text: _characters_of_words(prepare(text), low, high)
    find_all = re.compile(part.pattern).findall
    passed_over = frozenset(part.stop_words)
    if high == 1 and not passed_over:
        return lambda text: find_all(prepare(text))

    def words(text: str) -> list[str]:
        found: list[str] = find_all(prepare(text))
        if passed_over:
            found = [word for word in found if word not in passed_over]
        return found if high == 1 else _joined(found, low, high)

    return words


def _joined(words: list[str], low: int, high: int) -> list[str]:
    found = list(words) if low == 1 else []
    for size in range(max(low, 2), min(high, len(words)) + 1):
        found += [" ".join(words[place : place + size]) for place in range(len(words) - size + 1)]
    return found


def _characters(text: str, low: int, high: int) -> list[str]:
    text = _white_spaces.sub(" ", text)
    found: list[str] = []
    for size in range(low, min(high, len(text)) + 1):
        found += [text[place : place + size] for place in range(len(text) - size + 1)]
    return found


def _characters_of_words(text: str, low: int, high: int) -> list[str]:
    found: list[str] = []
    for word in _white_spaces.sub(" ", text).split():
        padded = f" {word} "
        for size in range(low, high + 1):
            found.append(padded[:size])
            found += [padded[place : place + size] for place in range(1, len(padded) - size + 1)]
            if size >= len(padded):  # a short word counts once
                break
    return found


def _preparer(part: TextPart) -> Callable[[str], str]:
    accents = {"": None, "ascii": _without_accents_ascii, "unicode": _without_accents}[part.accents]
    if accents is None:
        return str.lower if part.lowercase else lambda text: text
    return (lambda text: accents(text.lower())) if part.lowercase else accents


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))


def _without_accents_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ASCII", "ignore").decode("ASCII")
