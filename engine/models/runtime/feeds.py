"""From the matrix to the inputs of a graph: slices, casts, and codes back to the strings they stand for."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import ModelInput, Signature
from penstock.schemas.errors import ModelError

Feed = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def feed_of(signature: Signature, model_input: ModelInput, row_shape: Sequence[int]) -> Feed:
    """A function from a matrix (R, F) to this input's array (R, *row_shape). It raises ModelError.

    The product of `row_shape` is the input's width; an empty one is a graph that takes one number a row.
    """
    start, stop = model_input.start, model_input.start + model_input.width
    if model_input.dtype == "string":
        tables = [
            np.array([*feature.categories, ""], dtype=object)
            for feature in signature.column_features[start:stop]
        ]
        convert: Feed = lambda part: _strings(part, tables)  # noqa: E731
    elif model_input.dtype == "bool":
        convert = lambda part: part != 0  # noqa: E731
    elif model_input.dtype in ("int64", "int32"):
        bits = 64 if model_input.dtype == "int64" else 32
        convert = lambda part: _integers(part, bits)  # noqa: E731
    else:
        floating = np.dtype(model_input.dtype)
        convert = lambda part: np.ascontiguousarray(part, dtype=floating)  # noqa: E731
    shape = tuple(row_shape)
    return lambda matrix: convert(matrix[:, start:stop]).reshape(len(matrix), *shape)


def _strings(codes: NDArray[np.generic], tables: Sequence[NDArray[np.object_]]) -> NDArray[np.object_]:
    texts = np.empty(codes.shape, dtype=object)
    for column, table in enumerate(tables):
        numbers = np.asarray(codes[:, column], dtype=np.float64)
        missing = np.isnan(numbers)
        if not (missing | ((numbers >= 0) & (numbers < len(table) - 1))).all():
            raise ModelError("a category code is outside its table")
        texts[:, column] = table[np.where(missing, len(table) - 1, numbers).astype(np.int64)]
    return texts


def _integers(part: NDArray[np.generic], bits: int) -> NDArray[np.generic]:
    numbers = np.asarray(part, dtype=np.float64)
    end = 2.0 ** (bits - 1)
    if not ((numbers == np.floor(numbers)) & (numbers >= -end) & (numbers < end)).all():
        raise ModelError(f"a value is not a whole number of {bits} bits")
    return numbers.astype(np.int64 if bits == 64 else np.int32)
