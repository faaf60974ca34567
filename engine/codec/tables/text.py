"""Columns of text, as CSV has them: what a cell says is decided by the feature it is for."""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock.engine.codec.tables.arrow import arrow, column_of
from penstock.engine.codec.tables.columns import Column, Distinct, FeatureColumns, Numbers
from penstock.engine.features.signature import Feature

missing_words: Final = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""What stands for a missing number. In a category's column these are texts, apart from an empty cell without quotes."""

_whole: Final = re.compile(r"[+-]?[0-9]+")
_number: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_word: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_booleans: Final = {"true": True, "false": False}


def text_columns(batch: Any, plan: Sequence[FeatureColumns]) -> dict[str, Column]:
    """The plan's columns of a pyarrow.RecordBatch whose columns are all strings; null is an empty cell."""
    return {
        name: _categories(column_of(batch.column(name)), place.feature)
        if place.feature.kind in ("category", "text")
        else _numbers(batch.column(name))
        for place in plan
        for name in place.names
    }


def _numbers(array: Any) -> Column:
    """Cells as numbers. What a cell says is decided by the cell alone: Arrow's cast, which takes a column or leaves it, and some
    words that we do not know, is believed of finite numbers only."""
    pa = arrow("a CSV file")
    import pyarrow.compute as pc

    numbers = _all_finite(array)
    if numbers is None:
        words = pc.is_in(array, value_set=pa.array(missing_words))
        array = pc.if_else(words, pa.scalar(None, pa.string()), array)
        numbers = _all_finite(array)
    if numbers is None:
        return _one_by_one(array)
    missing = numbers.is_null().to_numpy(zero_copy_only=False) if numbers.null_count else None
    return Numbers(values=numbers.fill_null(0.0).to_numpy(zero_copy_only=False), missing=missing)


def _all_finite(array: Any) -> Any:
    """The texts as doubles where Arrow takes each for a finite number, else None."""
    pa = arrow("a CSV file")
    import pyarrow.compute as pc

    try:
        numbers = pc.cast(array, pa.float64())
    except pa.ArrowInvalid:
        return None
    return numbers if pc.all(pc.is_finite(numbers), min_count=0).as_py() else None


def _one_by_one(array: Any) -> Column:
    texts = column_of(array)
    assert isinstance(texts, Distinct)
    return Distinct(values=[_as_number(text) for text in texts.values], codes=texts.codes)


def _as_number(text: Any) -> Any:
    """The number or boolean in a cell; any other text, and what is none, is returned as it is, and rejected later."""
    if not isinstance(text, str):
        return text
    plain = text.strip()
    if _number.fullmatch(plain) or _word.fullmatch(plain):
        return float(plain)
    return _booleans.get(plain.lower(), text)


def _categories(column: Column, feature: Feature) -> Column:
    """Texts by their names; where the table has numbers or booleans for names, what a cell writes otherwise stands for them."""
    if not isinstance(column, Distinct):
        return column
    names = set(feature.categories)
    numbers = any(_number.fullmatch(name) for name in names)
    booleans = any(name.lower() in ("true", "false") for name in names)

    def meant(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        plain = text.strip()
        if text in names:
            return text
        if numbers and _whole.fullmatch(plain):
            return int(plain)
        if numbers and _number.fullmatch(plain):
            number = float(plain)
            return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
        return plain.lower() == "true" if booleans and plain.lower() in ("true", "false") else text

    return Distinct(values=[meant(text) for text in column.values], codes=np.asarray(column.codes))
