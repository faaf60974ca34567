"""Rows as libraries hand them out: what they say by name, by a mask or by a type of their own is not passed over."""

import multiprocessing
import threading
from collections import OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import scipy.sparse

from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.python.model import Model, load
from penstock.schemas.errors import ConfigError
from tests.bundles import write_linear

Backwards = namedtuple("Backwards", "land b a")
signature = Signature(
    features=(
        Feature(name="a", kind="number"),
        Feature(name="b", kind="number"),
        Feature(name="land", kind="category", categories=("DE", "FR")),
    ),
    inputs=(ModelInput(name="x", dtype="float64", start=0, width=3),),
)
nan = np.nan


def read(rows: Any) -> Any:
    """The matrix of what was read, with the first reason in place of a row that was not."""
    found: list[Any] = []
    for count, decoded in RowReader(signature).blocks(rows):
        block: list[Any] = [None] * count
        for place, row in zip(decoded.rows, decoded.matrix.tolist(), strict=True):
            block[place] = row
        for rejection in decoded.rejections:
            block[rejection.index] = str(rejection.reason)
        found += block
    return found


named = {
    "named tuples": lambda: [Backwards("FR", 2.0, 1.0)],
    "rows of a data frame": lambda: [row for _, row in pandas.DataFrame({"land": ["FR"], "b": [2.0], "a": [1.0]}).iterrows()],
    "tuples of a data frame": lambda: [*pandas.DataFrame({"land": ["FR"], "b": [2.0], "a": [1.0]}).itertuples()],
    "ordered": lambda: [OrderedDict(land="FR", b=2.0, a=1.0)],
    "a view": lambda: [MappingProxyType({"land": "FR", "b": 2.0, "a": 1.0})],
    "a deque": lambda: deque([{"land": "FR", "b": 2.0, "a": 1.0}]),
    "one of each": lambda: [{"land": "FR", "b": 2.0, "a": 1.0}],
    "lists of numbers and texts": lambda: [[1.0, 2.0, "FR"]],
    "an array of structs": lambda: pyarrow.array([{"land": "FR", "b": 2.0, "a": 1.0}]),
}  # fmt: skip


@pytest.mark.parametrize("form", named)
def test_a_row_that_has_names_is_read_by_them(form: str) -> None:
    assert read(named[form]()) == [[1.0, 2.0, 1.0]]


def test_what_a_mask_hides_is_missing() -> None:
    matrix = np.ma.masked_array(
        [[1.0, 777.0, 0.0], [1.0, 2.0, 1.0]], mask=[[False, True, False], [False, False, True]]
    )
    expected = np.array([[1.0, nan, 0.0], [1.0, 2.0, nan]])
    for form in (matrix, matrix.astype(np.float32), matrix.astype(np.int64), [matrix[0], matrix[1]]):
        assert np.array_equal(np.array(read(form)), expected, equal_nan=True)
    kinds = [("a", "f8"), ("b", "i8"), ("land", "U2")]
    table: Any = np.ma.array(
        [(1.0, 777, "FR"), (1.0, 2, "DE")], mask=[(False, True, False), (False, False, True)], dtype=kinds
    )
    assert np.array_equal(np.array(read(table)), [[1.0, nan, 1.0], [1.0, 2.0, nan]], equal_nan=True)


def test_a_dictionary_that_makes_values_up_makes_no_feature_up() -> None:
    made_up = defaultdict(lambda: 777.0, {"b": 2.0, "land": "FR"})
    expected = np.array([[nan, 2.0, 1.0]])
    assert np.array_equal(np.array(read([made_up])), expected, equal_nan=True)
    assert len(made_up) == 2


def test_missing_categories_of_polars_are_missing() -> None:
    frame = polars.DataFrame({"a": [1.0, 1.0], "b": [2.0, 2.0]})
    for kind in (polars.Categorical, polars.Enum(["FR", "DE"]), polars.String):
        table = frame.with_columns(land=polars.Series(["FR", None], dtype=kind))
        assert np.array_equal(np.array(read(table)), [[1.0, 2.0, 1.0], [1.0, 2.0, nan]], equal_nan=True), kind


def test_a_column_of_vectors_in_an_array_is_a_wrong_type_of_its_rows() -> None:
    table = np.zeros(2, dtype=[("a", "f8", (2,)), ("b", "f8"), ("land", "U2")])
    assert read(table) == ["wrong_type", "wrong_type"]


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("matrix of structs", np.zeros((2, 2), dtype=[("a", "f8"), ("b", "f8"), ("land", "U2")]), r"ravel\(\) it first"),
        ("some have names", [{"a": 1.0}, [1.0, 2.0, "FR"]], "row 1 is a list, and others have names"),
        ("a name twice", [pandas.Series([1.0, 2.0, "FR"], index=["a", "a", "land"])], "row 0 has a name twice"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_told_apart_are_one_sentence(name: str, rows: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(rows)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (scipy.sparse.csr_matrix(np.eye(3)), r"toarray\(\) it first"),
        (
            {"a": [1.0], "b": [2.0], "land": ["FR"]},
            r"of columns by name pandas.DataFrame\(...\) makes a table",
        ),
        ({"a": 1.0, "b": 2.0, "land": "FR"}, "one record alone is a list of one dictionary"),
        (({"a": 1.0} for _ in range(2)), r"list\(...\) it first"),
        (polars.LazyFrame({"a": [1.0]}), r"collect\(\) it first"),
    ],
)
def test_what_is_nearly_rows_says_what_makes_it_some(rows: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(rows)


def test_a_process_forked_while_others_predict_can_predict(tmp_path: Path) -> None:
    write_linear(tmp_path / "linear")
    model = load(tmp_path / "linear", device="cpu")
    begun, stop = threading.Event(), threading.Event()

    def hold() -> None:
        with model._turn:
            begun.set()
            stop.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait(60)
    try:
        child = multiprocessing.get_context("fork").Process(target=_predict, args=(model,))
        child.start()
        child.join(20)
        code = child.exitcode
        child.kill()
        assert code == 0
    finally:
        stop.set()
        thread.join()


def _predict(model: Model) -> None:
    assert len(model.predict(np.zeros((2, 3))).outputs["scores"]) == 2
