"""Texts inside a scikit-learn model: its vectorizers become a feature that counts words, the model is given their columns."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
    _VectorizerMixin,
)
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from penstock.engine.features.texts import TextPart, column_names, is_safe_pattern
from penstock.engine.models.packaging.sklearn.columns import Input, branches, inputs_of
from penstock.engine.models.packaging.sklearn.inputs import in_order
from penstock.engine.models.packaging.sklearn.members import members, with_members
from penstock.engine.models.packaging.sklearn.step_stand_ins import GivenWords
from penstock.engine.models.packaging.sklearn.texts.proof import prove_part
from penstock.schemas.errors import ConfigError

text_name = "text"
"""What the feature of a model that takes nothing but texts is called, unless it is named."""


@dataclass(kw_only=True, slots=True)
class TextColumn:
    """A column of texts, and what the model counts in it."""

    name: str
    parts: list[TextPart] = field(default_factory=list)
    instead: str | None = None
    """What a missing text is replaced by."""
    is_replaced: bool | None = None
    """Whether an imputer stands before the vectorizers; None: not known yet."""

    def places(self, parts: Sequence[TextPart]) -> list[int]:
        """Where the columns of these parts stand among its own."""
        widths = [len(part.column_words) for part in self.parts]
        starts = np.concatenate(([0], np.cumsum(widths))).tolist()
        found: list[int] = []
        for part in parts:
            at = self.parts.index(part)
            found += range(starts[at], starts[at + 1])
        return found

    @property
    def width(self) -> int:
        """Columns of all its parts."""
        return sum(len(part.column_words) for part in self.parts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """A model whose texts are columns of words."""

    model: Any
    """A copy that is given them."""
    inputs: list[Input]
    """What it is given: a column for each word in place of each text."""
    items: list[tuple[str, list[int], TextColumn | None]]
    """Each of the original's columns: name, places among `inputs`, and the texts that it holds."""
    alone: bool
    """Whether the original takes a list of texts, and no table."""

    def asked(self, ask: Callable[[Any], Any], table: Any, *, named: bool) -> Any:
        """What the original answers to a table as somebody gave it; `named`: it was fitted on a data frame."""
        names = [name for name, _, _ in self.items]
        return ask(table[names[0]] if self.alone else in_order(table, names if named else None))


def described(name: str, text: TextColumn) -> dict[str, Any]:
    """The feature of a column of texts, as Feature is described in a manifest."""
    item: dict[str, Any] = {"name": name, "kind": "text", "missing": "reject"}
    item["parts"] = [part.to_json() for part in text.parts]
    return item if text.instead is None else item | {"instead": text.instead}


def reads_texts(model: Any) -> bool:
    """Whether a vectorizer stands somewhere inside."""
    if isinstance(model, _VectorizerMixin):
        return True
    if isinstance(model, Pipeline):
        return any(reads_texts(step) for _, step in model.steps)
    if isinstance(model, ColumnTransformer):
        return any(reads_texts(step) for _, step, _ in model.transformers_)
    if isinstance(model, FeatureUnion):
        return any(reads_texts(step) for _, step in model.transformer_list)
    return any(reads_texts(each) for each in members(model))


def opened(model: Any, name: str) -> Opened:
    """The model with its texts as columns; `name`: of the texts, where it takes nothing else. Raises ConfigError."""
    alone = _takes_texts_alone(model)
    given = [Input(name=name)] if alone else inputs_of(model)
    texts: dict[int, TextColumn] = {}
    _Rewriter(given, texts, None).rewritten(model)
    inputs: list[Input] = []
    items: list[tuple[str, list[int], TextColumn | None]] = []
    for place, each in enumerate(given):
        begin = len(inputs)
        column = texts.get(place)
        if column is None:
            inputs.append(each)
        else:
            called = column_names(each.name, column.parts)
            inputs += [Input(name=word, numbers=[0.0], is_word=True, takes_missing=False) for word in called]
        items.append((each.name, [*range(begin, len(inputs))], column))
    layout = [places for _, places, _ in items]
    names = [each.name for each in inputs]
    if len(set(names)) != len(names):
        raise ConfigError("a column is called as a word of a text: rename it")
    copied = _Rewriter(given, texts, _Layout(places=layout, names=names)).rewritten(model)
    return Opened(model=copied, inputs=inputs, items=items, alone=alone)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    places: list[list[int]]
    """For each of the original's columns, the columns that the copy is given."""
    names: list[str]


def _takes_texts_alone(model: Any) -> bool:
    if isinstance(model, Pipeline):
        first = model.steps[0][1]
        return isinstance(first, _VectorizerMixin) or _takes_texts_alone(first)
    if isinstance(model, FeatureUnion):
        return any(
            isinstance(step, _VectorizerMixin) or _takes_texts_alone(step)
            for _, step in model.transformer_list
        )
    return any(_takes_texts_alone(each) for each in members(model))


class _Rewriter:
    """Walks a model down to the steps that are given its columns. Without a layout it notes the texts' parts only."""

    def __init__(self, given: list[Input], texts: dict[int, TextColumn], layout: _Layout | None) -> None:
        self._given, self._texts, self._layout = given, texts, layout

    def rewritten(self, model: Any) -> Any:
        """A copy of the model. Raises ConfigError."""
        if isinstance(model, Pipeline):
            name, first = model.steps[0]
            if isinstance(first, (ColumnTransformer, Pipeline)):
                return Pipeline([(name, self.rewritten(first)), *model.steps[1:]])
            if reads_texts(first):
                return self._text(0, model)
            raise _out_of_place()
        if isinstance(model, ColumnTransformer):
            return self._by_columns(model)
        if isinstance(model, (FeatureUnion, _VectorizerMixin)):
            return self._text(0, model)
        if not members(model):
            raise _out_of_place()
        return with_members(model, [self.rewritten(each) for each in members(model)])

    def _by_columns(self, step: ColumnTransformer) -> Any:
        others: set[int] = set()
        of_texts: set[int] = set()
        made: dict[str, Any] = {}
        chosen: dict[str, list[int]] = {}
        for name, inner, places in branches(step):
            if reads_texts(inner):
                if len(places) != 1:
                    raise ConfigError(f"step {name} reads the texts of several columns: give each its own")
                of_texts.add(places[0])
                made[name], chosen[name] = self._branch(places[0], inner)
            else:
                others |= set(places)
                chosen[name] = [at for place in places for at in self._spread(place)]
        if both := of_texts & others:
            raise ConfigError(
                f"column {self._given[min(both)].name} is read as a text and by another step too: give that step a copy of it"
            )
        if self._layout is None:
            return step
        copied = copy.copy(step)
        named = hasattr(step, "feature_names_in_")
        names = self._layout.names
        indices, transformers = {}, []
        for name, inner, _ in step.transformers_:
            if name in chosen:
                places = chosen[name]
                indices[name] = places
                transformers.append(
                    (name, made.get(name, inner), [names[at] for at in places] if named else places)
                )
            else:
                indices[name] = []
                transformers.append((name, "drop", []))
        copied.transformers_ = transformers
        copied._transformer_to_input_indices = indices
        copied.n_features_in_ = len(names)
        if named:
            copied.feature_names_in_ = np.array(names, dtype=object)
        return copied

    def _spread(self, place: int) -> list[int]:
        return [] if self._layout is None else self._layout.places[place]

    def _text(self, place: int, step: Any) -> Any:
        """Of a model that takes nothing but texts."""
        made, chosen = self._branch(place, step)
        if self._layout is not None:
            _, words = _steps_of(made, "words")[0]
            words.columns = np.array(chosen, dtype=np.int64)
        return made

    def _branch(self, place: int, step: Any) -> tuple[Any, list[int]]:
        """What stands in place of a step that reads a text, and the columns that it is given."""
        column = self._texts.setdefault(place, TextColumn(name=self._given[place].name))
        steps = _steps_of(step, "text")
        instead, steps = _imputed(steps, column.name)
        if column.is_replaced is not None and (column.is_replaced, column.instead) != (
            instead is not None,
            instead,
        ):
            raise ConfigError(f"missing texts of {column.name} become different things in different steps")
        column.is_replaced, column.instead = instead is not None, instead
        parts, rest = _parts(steps, column.name)
        for part in parts:
            if part not in column.parts:
                column.parts.append(part)
        words: tuple[str, Any] = ("words", GivenWords())
        made = Pipeline([words, *rest]) if rest else words[1]
        if self._layout is None:
            return made, []
        begin = self._layout.places[place][0]
        return made, [begin + at for at in column.places(parts)]


def _out_of_place() -> ConfigError:
    return ConfigError(
        "a vectorizer of texts stands where no column of texts reaches it as it is: put it first in its branch of a "
        "ColumnTransformer, or first in the pipeline"
    )


def _steps_of(step: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(step, Pipeline):
        return [(name, step)]
    found: list[tuple[str, Any]] = []
    for each, inner in step.steps:
        if inner is None or (isinstance(inner, str) and inner == "passthrough"):
            continue
        found += (
            [(f"{each} {at}", deeper) for at, (_, deeper) in enumerate(_steps_of(inner, each))]
            if isinstance(inner, Pipeline)
            else [(each, inner)]
        )
    return found


def _imputed(steps: list[tuple[str, Any]], name: str) -> tuple[str | None, list[tuple[str, Any]]]:
    """What a missing text is replaced by, and the steps behind that."""
    if not isinstance(steps[0][1], SimpleImputer):
        return None, steps
    imputer = steps[0][1]
    behind = steps[1][1] if len(steps) > 1 else None
    is_flat = isinstance(behind, FunctionTransformer) and behind.func is np.ravel and not behind.kw_args
    statistic = imputer.statistics_[0] if len(imputer.statistics_) == 1 else None
    if not is_flat or not isinstance(statistic, str) or imputer.add_indicator:
        raise ConfigError(
            f"the imputer before the words of {name} is not one of a text alone, followed by FunctionTransformer(numpy.ravel)"
        )
    marker = imputer.missing_values
    if marker is not None and marker == marker and type(marker).__name__ != "NAType":
        raise ConfigError(f"the imputer before the words of {name} takes {marker!r} for a missing text")
    return str(statistic), steps[2:]


def _parts(steps: list[tuple[str, Any]], name: str) -> tuple[list[TextPart], list[tuple[str, Any]]]:
    """What the first steps count, and the steps behind."""
    first = steps[0][1]
    if isinstance(first, FeatureUnion):
        if first.transformer_weights:
            raise ConfigError(
                f"the FeatureUnion over the words of {name} weights its members: weight the columns behind it"
            )
        parts: list[TextPart] = []
        for each, inner in first.transformer_list:
            if isinstance(inner, str) and inner == "drop":
                continue
            found, rest = _parts(_steps_of(inner, each), name)
            if rest:
                raise ConfigError(
                    f"step {each} goes on behind its words, beside others over the same texts: give it a branch of its own in a "
                    "ColumnTransformer"
                )
            parts += found
        return parts, steps[1:]
    if not isinstance(first, _VectorizerMixin):
        raise ConfigError(
            f"{type(first).__name__} stands before the words of {name}, and changes texts in a way that no bundle can keep: change them "
            "before the stream"
        )
    tfidf, selector, used = None, None, 1
    if len(steps) > used and isinstance(steps[used][1], TfidfTransformer) and type(first) is CountVectorizer:
        tfidf, used = steps[used][1], used + 1
    if len(steps) > used and isinstance(steps[used][1], SelectorMixin):
        selector, used = steps[used][1], used + 1
    part = _part(first, tfidf, selector)
    prove_part(part, [step for _, step in steps[:used]], name)
    return [part], steps[used:]


def _part(step: Any, tfidf: Any, selector: Any) -> TextPart:
    """A fitted vectorizer, with what weights and chooses its words. Raises ConfigError."""
    kind = type(step).__name__
    if isinstance(step, HashingVectorizer):
        raise ConfigError(
            f"{kind} keeps no vocabulary, so that no explanation could name a word: use TfidfVectorizer(max_features=...)"
        )
    if type(step) not in (CountVectorizer, TfidfVectorizer):
        raise ConfigError(
            f"{kind} is no vectorizer of scikit-learn's own: use TfidfVectorizer or CountVectorizer"
        )
    for option in ("preprocessor", "tokenizer"):
        if getattr(step, option) is not None:
            raise ConfigError(
                f"{kind} has a {option} of its own, a Python function, which no bundle can hold: change the texts before the stream"
            )
    if callable(step.analyzer) or callable(step.strip_accents):
        raise ConfigError(
            f"{kind} cuts texts by a Python function, which no bundle can hold: use analyzer='word' or 'char'"
        )
    if step.input != "content":
        raise ConfigError(
            f"{kind} reads files (input={step.input!r}), where records hold texts: use input='content'"
        )
    if step.analyzer == "word" and not is_safe_pattern(step.token_pattern):
        raise ConfigError(
            f"{kind} finds words by token_pattern={step.token_pattern!r}, which is not one run of characters between word "
            r"boundaries: use a pattern such as r'\b\w\w+\b' or r'[a-z]+'"
        )
    if isinstance(step, TfidfVectorizer):
        tfidf = step._tfidf
    if np.dtype(step.dtype) == np.float32 and tfidf is not None:
        raise ConfigError(f"{kind} weights words in float32: train it with dtype=numpy.float64")
    words = _in_order(step.vocabulary_)
    if not all(isinstance(word, str) and _is_text(word) for word in words):
        raise ConfigError(f"the vocabulary of {kind} holds what is no text")
    weights = getattr(tfidf, "idf_", None) if tfidf is not None else None
    return TextPart(
        analyzer=step.analyzer,
        words=words,
        pattern=step.token_pattern if step.analyzer == "word" else "",
        lowercase=bool(step.lowercase),
        accents=step.strip_accents or "",
        stop_words=tuple(sorted(step.get_stop_words() or ())) if step.analyzer == "word" else (),
        grams=(int(step.ngram_range[0]), int(step.ngram_range[1])),
        binary=bool(step.binary),
        sublinear=tfidf is not None and bool(tfidf.sublinear_tf),
        weights=() if weights is None else tuple(np.asarray(weights, dtype=np.float64).tolist()),
        norm=(tfidf.norm or "") if tfidf is not None else "",
        kept=() if selector is None else tuple(np.flatnonzero(selector.get_support()).tolist()),
    )


def _in_order(vocabulary: dict[Any, Any]) -> tuple[Any, ...]:
    words = [None] * len(vocabulary)
    for word, place in vocabulary.items():
        words[int(place)] = word
    return tuple(words)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
