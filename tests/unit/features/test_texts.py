"""Texts as features: every text gives the columns that scikit-learn's vectorizers make of it; what is no text is set aside by name."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from penstock.engine.codec.decode import make_decoder
from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.features.texts import (
    TextColumns,
    TextPart,
    characters_max,
    is_safe_pattern,
    part_from_json,
)
from penstock.engine.settings.model import parse_settings
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Records

letters = st.sampled_from(
    [*"abAB12_-.'ßİǅﬁ", " ", "\n", "é", "\u0301", "日", "٣", "\u200b", "\u00a0", "😀", "Σ", "ς"]
)
documents = st.lists(st.one_of(st.text(letters, max_size=24), st.text(max_size=12)), min_size=1, max_size=5)
ways: list[tuple[TextPart, Any]] = []
for analyzer, low, high in (
    ("word", 1, 1),
    ("word", 1, 2),
    ("word", 2, 3),
    ("char", 1, 3),
    ("char", 2, 2),
    ("char_wb", 1, 4),
    ("char_wb", 3, 5),
):
    for number, (accents, lowercase) in enumerate(((None, True), ("ascii", False), ("unicode", True))):
        pattern = (r"(?u)\b\w\w+\b", r"\w+", r"[^\W\d_]+")[number]
        words = [
            *"abcd",
            "ab",
            "aa",
            "a b",
            "ss",
            "i",
            "e",
            "b ",
            " a",
            " a ",
            "ab a",
            "1",
            "12 a",
            "日",
            "a_",
            "fi",
            " ",
            "é",
            "é a",
        ]
        stop = ["aa"] if number == 2 and analyzer == "word" else None
        made = TfidfVectorizer(
            analyzer=analyzer, ngram_range=(low, high), strip_accents=accents, lowercase=lowercase,
            token_pattern=pattern if analyzer == "word" else r"(?u)\b\w\w+\b", vocabulary=words, stop_words=stop, sublinear_tf=number == 1, norm=("l2", "l1", None)[number], binary=number == 2,
        ).fit(["a b ab", "1 12 ss"])  # fmt: skip
        ways.append(
            (
                TextPart(
                    analyzer=analyzer, words=tuple(words), grams=(low, high), accents=accents or "", lowercase=lowercase,  # type: ignore[arg-type]  # words of the loop, texts to mypy
                    pattern=pattern if analyzer == "word" else "", stop_words=tuple(stop or ()), sublinear=number == 1,
                    norm=("l2", "l1", "")[number], binary=number == 2, weights=tuple(made.idf_.tolist()),
                ),
                made,
            )
        )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(texts=documents)
@pytest.mark.filterwarnings("ignore")
def test_any_text_gives_the_numbers_of_the_vectorizer(texts: list[str]) -> None:
    for part, vectorizer in ways:
        found = np.full((len(texts), 2 + len(part.words)), np.nan)
        TextColumns([part]).fill(texts, np.arange(len(texts)), found, 1)
        assert np.array_equal(found[:, 1:-1], vectorizer.transform(texts).toarray()), (part, texts)
        assert np.isnan(found[:, [0, -1]]).all()
        assert part_from_json(json.loads(json.dumps(part.to_json()))) == part


def test_columns_of_chosen_words_are_divided_by_the_length_of_all() -> None:
    whole = TextPart(analyzer="word", words=("a", "b", "c"), pattern=r"\w+", norm="l2")
    part = TextPart(analyzer="word", words=("a", "b", "c"), pattern=r"\w+", norm="l2", kept=(2, 0))
    rows = [np.empty((2, 3)), np.empty((2, 2))]
    for each, matrix in zip((whole, part), rows, strict=True):
        TextColumns([each]).fill(["a b b", "c a"], np.arange(2), matrix, 0)
    assert np.array_equal(rows[1], rows[0][:, [2, 0]])


@pytest.mark.parametrize(
    "pattern",
    [r"(?u)\b\w\w+\b", r"\w+", r"[a-zA-Z]+", r"\b[a-z']{3,}\b", r"\S+", r"[^\s,]+", r"\b\d{4}\b", r"\w\w\w*"],
)
def test_plain_patterns_are_taken(pattern: str) -> None:
    assert is_safe_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(\w+)",
        r"\w+|!",
        r"(?:a+)+",
        r"[a-z]+\b",
        r"\w+\w+",
        r".*x",
        r"(?i)\w+",
        r"\w+(?=!)",
        "[",
        "",
        r"a+b+c",
    ],
)
def test_patterns_that_a_text_could_keep_busy_are_not(pattern: str) -> None:
    assert not is_safe_pattern(pattern)


def _signature(**more: Any) -> Signature:
    part = TextPart(analyzer="word", words=("bad", "good", "ok"), pattern=r"\w+", norm="l2")
    counted = TextPart(analyzer="word", words=("bad", "tea"), pattern=r"\w+")
    features = (
        Feature(name="before", kind="number"),
        Feature(name="note", kind="text", parts=(part, counted), **{"missing": "reject", **more}),
        Feature(name="job", kind="category", categories=("3", "4")),
    )
    return Signature(features=features, inputs=(ModelInput(name="rows", dtype="float32", start=0, width=7),))


texts: list[Any] = [
    "Bad good",
    "",
    None,
    "tea BAD bad",
    "x" * (characters_max + 1),
    "ok😀 ok",
    "g\x00ood good",
]
wanted = {
    0: [1, 2**-0.5, 2**-0.5, 0, 1, 0, 0],
    1: [1, 0, 0, 0, 0, 0, 0],
    3: [1, 1, 0, 0, 2, 1, 0],
    5: [1, 0, 0, 1, 0, 0, 0],
    6: [1, 0, 1, 0, 0, 0, 0],
}


def _records(values: list[bytes]) -> Records:
    count = len(values)
    return Records(topic="t", partitions=np.zeros(count, dtype=np.int32), offsets=np.arange(count), timestamps_ms=np.zeros(count, dtype=np.int64), keys=[None] * count, values=[*values])  # fmt: skip


def _settings(**more: Any) -> Any:
    tree = {"kafka": {"bootstrap_servers": "localhost:9092", "group": "g"}, "input": {"topic": "t", **more}, "output": {"predictions": "p", "dead_letters": "d"}, "model": {"path": "m"}}  # fmt: skip
    return parse_settings(tree, origin="test", folder=Path("/nowhere"))


def _by_json(signature: Signature) -> Any:
    values = [json.dumps({"before": 1, "note": text, "job": 3}).encode() for text in texts]
    return make_decoder(_settings(format="json"), signature, None, None, 1 << 20).decode(_records(values))


def _by_avro(signature: Signature, *, recursive: bool = False) -> Any:
    schema: Any = {"type": "record", "name": "R", "fields": [{"name": "before", "type": "int"}, {"name": "note", "type": ["null", "string"]}, {"name": "job", "type": "long"}]}  # fmt: skip
    if recursive:
        schema["fields"].append({"name": "next", "type": ["null", "R"]})
    values = []
    for text in texts:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"before": 1, "note": text, "job": 3})
        values.append(out.getvalue())
    decoder = make_decoder(_settings(framing="none"), signature, schema, None, 1 << 20)
    decoded = decoder.decode(_records(values))
    assert decoder.reference_records == (len(texts) if recursive else 0)
    return decoded


def _by_rows(signature: Signature, rows: Any) -> Any:
    [(_, decoded)] = RowReader(signature).blocks(rows)
    return decoded


def _frame() -> Any:
    return pandas.DataFrame({"before": 1.0, "note": pandas.Series(texts, dtype=object), "job": 3})


doors = {
    "JSON": _by_json,
    "Avro": _by_avro,
    "Avro by the slow path": lambda signature: _by_avro(signature, recursive=True),
    "pandas": lambda signature: _by_rows(signature, _frame()),
    "pandas categorical": lambda signature: _by_rows(signature, _frame().assign(note=pandas.Categorical(texts))),
    "Arrow": lambda signature: _by_rows(signature, pyarrow.table({"before": [1.0] * len(texts), "note": texts, "job": [3] * len(texts)})),
    "dictionaries": lambda signature: _by_rows(signature, [{"before": 1, "note": text, "job": 3} for text in texts]),
}  # fmt: skip


@pytest.mark.parametrize("door", list(doors))
def test_a_text_is_the_same_by_every_door(door: str) -> None:
    decoded = doors[door](_signature())
    assert decoded.rows.tolist() == [*wanted]
    np.testing.assert_array_equal(decoded.matrix, np.array([*wanted.values()], dtype=np.float32))
    said = {each.index: (each.reason, each.detail) for each in decoded.rejections}
    assert said[2] == (Reason.MISSING_VALUE, "feature note is missing")
    assert said[4][0] is Reason.LIMIT_EXCEEDED
    assert said[4][1].startswith("field note is a text of 131073 char")


@pytest.mark.parametrize("door", list(doors))
def test_a_missing_text_may_stand_for_another(door: str) -> None:
    decoded = doors[door](_signature(instead="good tea"))
    place = decoded.rows.tolist().index(2)
    assert decoded.matrix[place].tolist() == [1, 0, 1, 0, 0, 1, 0]


def test_columns_are_called_by_their_words() -> None:
    assert _signature().columns == (
        "before",
        "note[bad]",
        "note[good]",
        "note[ok]",
        "note[2: bad]",
        "note[tea]",
        "job",
    )
    assert Signature.from_json(json.loads(json.dumps(_signature().to_json()))) == _signature()


def test_what_is_no_text_is_set_aside_by_its_field() -> None:
    [(_, decoded)] = RowReader(_signature()).blocks([{"before": 1, "note": 3, "job": 3}])
    assert [(each.reason, each.detail) for each in decoded.rejections] == [
        (Reason.WRONG_TYPE, "field note is not a text")
    ]


def test_an_avro_schema_without_a_text_is_refused_at_start() -> None:
    schema: Any = {"type": "record", "name": "R", "fields": [{"name": "before", "type": "int"}, {"name": "note", "type": "long"}, {"name": "job", "type": "long"}]}  # fmt: skip
    with pytest.raises(ConfigError, match="field note is not a string"):
        make_decoder(_settings(framing="none"), _signature(), schema, None, 1 << 20)


@pytest.mark.parametrize(
    "change",
    [{"words": []}, {"words": ["a", "a"]}, {"pattern": "(a+)+"}, {"grams": [2, 1]}, {"weights": [1.0]}, {"kept": [7]}, {"norm": "max"}, {"words": "ab"}, {"more": 1}],
    ids=str,
)  # fmt: skip
def test_a_changed_manifest_is_refused(change: dict[str, Any]) -> None:
    tree = {"analyzer": "word", "words": ["a", "b"], "pattern": r"\w+", **change}
    with pytest.raises(ConfigError):
        part_from_json(tree)


def test_wide_texts_are_read_in_small_blocks() -> None:
    part = TextPart(analyzer="word", words=tuple(f"w{place}" for place in range(16_384)), pattern=r"\w+")
    signature = Signature(features=(Feature(name="note", kind="text", parts=(part,)),), inputs=(ModelInput(name="rows", dtype="float32", start=0, width=16_384),))  # fmt: skip
    blocks = [
        *RowReader(signature).blocks(pandas.DataFrame({"note": [f"w{place}" for place in range(1500)]}))
    ]
    assert [count for count, _ in blocks] == [1024, 476]
    assert all((decoded.matrix.sum(axis=1) == 1).all() for _, decoded in blocks)


def test_counting_is_what_the_count_vectorizer_counts() -> None:
    texts = ["a b b", "b", ""]
    made = CountVectorizer(token_pattern=r"\w+").fit(texts)
    part = TextPart(analyzer="word", words=tuple(made.get_feature_names_out()), pattern=r"\w+")
    found = np.empty((3, 2))
    TextColumns([part]).fill(texts, np.arange(3), found, 0)
    assert np.array_equal(found, made.transform(texts).toarray())
