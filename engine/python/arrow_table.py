"""What the stream's messages would say, as columns of Arrow: the fields of the output contracts."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.tables.arrow import arrow
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.ports import Attributions
from penstock.engine.python.stages import Scored
from penstock.engine.python.strongest import strongest_first, sum_of

predicted, rejected, skipped = "predicted", "rejected", "skipped"
text_columns: Final = (
    "label",
    "method",
    "background",
    "space",
    "output.name",
    "output.class",
    "attributions.list.element.feature",
    "attributions.list.element.text",
)
"""What a Parquet writer had better keep by a dictionary; the numbers repeat too seldom."""


def predicted_columns(scored: Scored, bundle: Bundle, *, explain: bool, top: int) -> dict[str, Any]:
    """The contracts' columns of the predicted rows alone, in order: pyarrow arrays by name, P values each."""
    pa = arrow("a table of scores")
    columns = _prediction_columns(pa, scored, bundle)
    if explain:
        columns |= _explanation_columns(pa, scored, bundle, top)
    return columns


def result_columns(bundle: Bundle, *, explain: bool) -> list[str]:
    """The names of predicted_columns."""
    nothing = Scored(
        count=0,
        rows=np.empty(0, dtype=np.int64),
        matrix=np.empty((0, bundle.signature.width)),
        predictions=None,
        attributions=None,
        rejections=(),
    )
    return [*predicted_columns(nothing, bundle, explain=explain, top=0)]


def scored_batch(scored: Scored, bundle: Bundle, *, explain: bool, top: int) -> Any:
    """A pyarrow.RecordBatch with every row of the block: its outcome, and null in the columns of the other outcomes."""
    pa = arrow("a table of scores")
    columns = predicted_columns(scored, bundle, explain=explain, top=top)
    outcomes = np.full(scored.count, skipped, dtype=object)
    outcomes[scored.rows] = predicted
    places = np.full(scored.count, -1, dtype=np.int64)
    places[scored.rows] = np.arange(len(scored.rows))
    letters: dict[str, list[str | None]] = {
        name: [None] * scored.count for name in ("stage", "reason", "detail")
    }
    for rejection in scored.rejections:
        outcomes[rejection.index] = rejected
        letters["stage"][rejection.index] = str(rejection.stage)
        letters["reason"][rejection.index] = str(rejection.reason)
        letters["detail"][rejection.index] = rejection.detail
    whole = len(scored.rows) == scored.count
    taken = pa.array(places, mask=places < 0)
    all_columns = {"outcome": pa.array(outcomes.tolist(), pa.string())}
    for name, column in columns.items():
        all_columns[name] = column if whole else column.take(taken)
    all_columns |= {name: pa.array(values, pa.string()) for name, values in letters.items()}
    return pa.RecordBatch.from_arrays([*all_columns.values()], names=[*all_columns])


def joined_table(batches: list[Any]) -> Any:
    """The batches as one table."""
    return arrow("a table of scores").Table.from_batches(batches)


def _prediction_columns(pa: Any, scored: Scored, bundle: Bundle) -> dict[str, Any]:
    count = len(scored.rows)
    found = scored.predictions
    outputs = []
    for output in bundle.outputs:
        numbers = np.empty((0, output.width)) if found is None else found.outputs[output.name]
        outputs.append(_lists(pa, pa.array(np.ascontiguousarray(numbers).reshape(-1)), count, output.width))
    columns = {"outputs": pa.StructArray.from_arrays(outputs, [output.name for output in bundle.outputs])}
    if bundle.classes:
        labels = np.empty(0, dtype=np.int64) if found is None or found.labels is None else found.labels
        index = pa.array(labels.astype(np.int32))
        columns["label"] = pa.DictionaryArray.from_arrays(index, pa.array(bundle.classes, pa.string()))
        columns["label_index"] = index
    return columns


def _explanation_columns(pa: Any, scored: Scored, bundle: Bundle, top: int) -> dict[str, Any]:
    count = len(scored.rows)
    found = scored.attributions
    if found is None:
        width = bundle.signature.width
        nothing = np.empty(0)
        found = Attributions(
            values=np.empty((0, width)), base=nothing, output_index=nothing.astype(np.int64), output_name="",
            additivity_error=nothing, sampling_error=None, method="", space="", background=None,
        )  # fmt: skip
    index = found.output_index
    unnamed = index >= len(bundle.classes)
    classes = pa.array(np.where(unnamed, 0, index).astype(np.int32), mask=unnamed)
    output = pa.StructArray.from_arrays(
        [
            pa.repeat(pa.scalar(found.output_name, pa.string()), count),
            pa.array(index.astype(np.int32)),
            pa.array(bundle.classes, pa.string()).take(classes),
        ],
        ["name", "index", "class"],
    )
    sampling = found.sampling_error
    attributions, rest = _attributions(pa, scored.matrix, found, bundle, top)
    return {
        "method": _same(pa, found.method, count),
        "background": _same(pa, found.background, count),
        "output": output,
        "space": _same(pa, found.space, count),
        "base_value": pa.array(found.base),
        "attributions": attributions,
        "rest": pa.array(rest),
        "additivity_error": pa.array(found.additivity_error),
        "sampling_error": pa.nulls(count, pa.float64()) if sampling is None else pa.array(sampling),
    }


def _attributions(
    pa: Any, matrix: NDArray[np.generic], found: Attributions, bundle: Bundle, top: int
) -> tuple[Any, NDArray[np.float64]]:
    """Lists of {feature, attribution, number, text}: in the model's order, or the `top` strongest; and the others' sums.

    Texts inside lists and objects are plain: of dictionaries there, Arrow cannot read back a file of several row groups.
    """
    count, width = found.values.shape
    names = pa.array(bundle.signature.columns, pa.string())
    if top and top < width:
        places, others = strongest_first(found.values, top)
        rest = sum_of(found.values, others)
        features = places.reshape(-1).astype(np.int32)
        values = np.take_along_axis(found.values, places, axis=1).reshape(-1)
        data = np.take_along_axis(matrix, places, axis=1).reshape(-1)
    else:
        top, rest = width, np.zeros(count)
        features = _tiled(width, count)
        values, data = (
            np.ascontiguousarray(found.values).reshape(-1),
            np.ascontiguousarray(matrix).reshape(-1),
        )
    number, text = _values(pa, data.astype(np.float64), features, bundle)
    items = pa.StructArray.from_arrays(
        [names.take(pa.array(features)), pa.array(values), number, text],
        ["feature", "attribution", "number", "text"],
    )
    return _lists(pa, items, count, top), rest


def _values(
    pa: Any, data: NDArray[np.float64], features: NDArray[np.int32], bundle: Bundle
) -> tuple[Any, Any]:
    """The features' values apart: numbers, and the names of categories; null where there is none."""
    starts, names = _category_table(bundle)
    gone = np.isnan(data)
    if not names:
        return pa.array(data, mask=gone), pa.nulls(len(data), pa.string())
    start = np.array(starts, dtype=np.int64)[features]
    is_text = start >= 0
    place = start + np.where(gone, 0, data).astype(np.int64)
    text = pa.array(names, pa.string()).take(pa.array(place.astype(np.int32), mask=gone | ~is_text))
    return pa.array(data, mask=gone | is_text), text


def _category_table(bundle: Bundle) -> tuple[list[int], list[str]]:
    """Where each column's categories begin in the list of all of them; -1 for a number."""
    starts: list[int] = []
    names: list[str] = []
    for feature in bundle.signature.column_features:
        starts.append(len(names) if feature.categories else -1)
        names.extend(feature.categories)
    return starts, names


@lru_cache(maxsize=4)
def _tiled(width: int, count: int) -> NDArray[np.int32]:
    return np.tile(np.arange(width, dtype=np.int32), count)


def _lists(pa: Any, flat: Any, count: int, width: int) -> Any:
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(width)), flat)


def _same(pa: Any, text: str | None, count: int) -> Any:
    """The same text `count` times."""
    places = pa.nulls(count, pa.int32()) if text is None else pa.array(np.zeros(count, dtype=np.int32))
    return pa.DictionaryArray.from_arrays(places, pa.array([text or ""], pa.string()))
