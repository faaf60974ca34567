"""Large tree ensembles as a table of packed arrays: a tenth of the memory and of the time of the ONNX operators' lists.

In canonical order (level by level, yes before no) a tree is known by which of its nodes are leaves, so that the file holds
no children. Leaf values are doubles where float32 would round them.

Layout: the magic, the length of a JSON header in 8 bytes (little endian), the header, then the arrays one after the other,
each at a multiple of 8 bytes, in the order and with the types that the header names.
"""

import json
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest, PostTransform, ordered
from penstock.schemas.errors import ConfigError

table_nodes_min: Final = 1 << 20
"""From so many nodes on a packaged ensemble is kept as a table. ONNX Runtime alone would take about a gigabyte for it."""
table_bytes_max: Final = 1 << 31
_magic: Final = b"PENSTOCK TREES 1\n"
_align: Final = 8
_header_bytes_max: Final = 1 << 20
_arrays: Final[dict[str, tuple[str, ...]]] = {
    "roots": ("<i4",),
    "feature": ("<i4",),
    "threshold": ("<f4",),
    "missing_yes": ("|u1",),
    "in_set": ("|u1",),
    "leaf_values": ("<f4", "<f8"),
    "base_values": ("<f8",),
    "cover": ("<f4", "<f8"),
    "set_offsets": ("<i4",),
    "set_values": ("<f4",),
}
"""Every array with its types. threshold, missing_yes and in_set are of the inner nodes only, in_set and cover may be empty."""
_facts: Final = frozenset(
    {"features", "outputs", "post_transform", "labels", "output_name", "mirror", "exponential", "arrays"}
)


def is_table(data: bytes) -> bool:
    """Whether these bytes are such a file."""
    return data.startswith(_magic)


def write_table(forest: Forest, *, exponential: str = "") -> bytes:
    """The forest in canonical order as a file. `exponential`: the name of a second output, exp() of the scores."""
    forest = ordered(forest)
    inner = forest.leaf < 0
    in_set = forest.set_index[inner] >= 0
    arrays: dict[str, NDArray[np.generic]] = {
        "roots": forest.roots,
        "feature": forest.feature,
        "threshold": forest.threshold[inner],
        "missing_yes": forest.missing_yes[inner],
        "in_set": in_set.astype(np.uint8) if in_set.any() else np.empty(0, dtype=np.uint8),
        "leaf_values": _narrow(forest.leaf_values.reshape(-1)),
        "base_values": forest.base_values,
        "cover": np.empty(0) if forest.cover is None else _narrow(forest.cover),
        "set_offsets": forest.set_offsets,
        "set_values": forest.set_values,
    }
    little = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    header = json.dumps(
        {
            "features": forest.features,
            "outputs": forest.outputs,
            "post_transform": forest.post_transform.value,
            "labels": list(forest.labels),
            "output_name": forest.output_name,
            "mirror": forest.mirror,
            "exponential": exponential,
            "arrays": [[name, array.dtype.str, len(array)] for name, array in little.items()],
        },
        sort_keys=True,
    ).encode()
    made = bytearray(_magic + len(header).to_bytes(8, "little") + header)
    for array in little.values():
        made += bytes(-len(made) % _align)
        made += array.tobytes()
    return bytes(made)


def read_table(data: bytes) -> Forest:
    """The forest in such a file, in canonical order; some of its arrays are views of `data`. Raises ConfigError."""
    try:
        header = _header(data)
        return _forest(header, _read_arrays(data, header))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise ConfigError(f"the table of trees is broken: {error}") from error


def with_output(data: bytes, forest: Forest, output: str | None) -> Forest:
    """The forest of read_table as the scores of one of the file's outputs: by default those that add up."""
    other = _header(data)["exponential"]
    if output is None or output == forest.output_name:
        return forest
    if output != other or not other:
        raise ConfigError(f"the table of trees has no output {output}")
    return replace(forest, post_transform=PostTransform.EXP, output_name=other)


def same_trees(first: Forest, second: Forest) -> bool:
    """Whether two forests are the same to the last bit, covers included."""
    for item in fields(Forest):
        one, other = getattr(first, item.name), getattr(second, item.name)
        if isinstance(one, np.ndarray):
            if other is None or not np.array_equal(one, other):
                return False
        elif isinstance(other, np.ndarray) or one != other:
            return False
    return True


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32] | NDArray[np.float64]:
    """As float32 where nothing is lost."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values


def _header(data: bytes) -> dict[str, Any]:
    start = len(_magic) + 8
    length = int.from_bytes(data[len(_magic) : start], "little")
    if not is_table(data) or length > _header_bytes_max or len(data) < start + length:
        raise ConfigError("the table of trees is cut off, or of another format")
    header = json.loads(data[start : start + length])
    if not isinstance(header, dict) or set(header) != _facts:
        raise ConfigError("the table of trees has a header of another format")
    if type(header["labels"]) is not list:
        raise ConfigError("the table of trees has a header of another format")
    texts = [header["output_name"], header["exponential"], *header["labels"]]
    if not all(isinstance(text, str) for text in texts) or type(header["mirror"]) is not float:
        raise ConfigError("the table of trees has a header of another format")
    if any(type(header[name]) is not int for name in ("features", "outputs")):
        raise ConfigError("the table of trees has a header of another format")
    return header


def _read_arrays(data: bytes, header: dict[str, Any]) -> dict[str, NDArray[Any]]:
    start = len(_magic) + 8 + int.from_bytes(data[len(_magic) : len(_magic) + 8], "little")
    found: dict[str, NDArray[Any]] = {}
    for name, kind, count in header["arrays"]:
        if kind not in _arrays[name] or type(count) is not int or count < 0 or name in found:
            raise ConfigError("the table of trees has a header of another format")
        start += -start % _align
        size = count * np.dtype(kind).itemsize
        if start + size > len(data):
            raise ConfigError("the table of trees is cut off")
        found[name] = np.frombuffer(data, dtype=kind, count=count, offset=start)
        start += size
    if set(found) != set(_arrays) or start != len(data):
        raise ConfigError("the table of trees lacks arrays, or goes on behind them")
    return found


def _forest(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Forest:
    feature, roots = arrays["feature"], arrays["roots"]
    n, inner, outputs = len(feature), feature >= 0, header["outputs"]
    if not len(roots) or roots[0] != 0 or (np.diff(roots) < 1).any() or roots[-1] >= n:
        raise ConfigError("the table of trees has roots that are no starts of trees")
    inners = int(inner.sum())
    in_set = arrays["in_set"] if len(arrays["in_set"]) else np.zeros(inners, dtype=np.uint8)
    if not inners == len(arrays["threshold"]) == len(arrays["missing_yes"]) == len(in_set):
        raise ConfigError("the table of trees has arrays of different lengths")
    if len(arrays["leaf_values"]) != (n - inners) * outputs or len(arrays["cover"]) not in (0, n):
        raise ConfigError("the table of trees has arrays of different lengths")
    yes = np.full(n, -1, dtype=np.int32)
    # The i-th inner node of a tree has its children at 1 + 2i and 2 + 2i behind the root.
    before = np.concatenate(([0], np.cumsum(inner)))[roots]
    sizes = np.diff(np.append(roots, n))
    shift = (roots + 1 - 2 * before).astype(np.int32)
    yes[inner] = 2 * np.arange(inners, dtype=np.int32) + np.repeat(shift, np.diff(np.append(before, inners)))
    if (2 * np.diff(np.append(before, inners)) + 1 != sizes).any():
        raise ConfigError("the table of trees has a tree that does not end")
    no = np.where(inner, yes + np.int32(1), np.int32(-1))
    threshold, missing = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.uint8)
    threshold[inner], missing[inner] = arrays["threshold"], arrays["missing_yes"]
    set_index = np.full(n, -1, dtype=np.int32)
    if in_set.any():
        set_index[inner] = np.where(in_set != 0, np.cumsum(in_set != 0) - 1, -1)
    leaf = np.full(n, -1, dtype=np.int32)
    leaf[~inner] = np.arange(n - inners, dtype=np.int32)
    return Forest(
        features=header["features"],
        outputs=outputs,
        roots=roots.astype(np.int32, copy=False),
        feature=feature.astype(np.int32, copy=False),
        threshold=threshold,
        set_index=set_index,
        yes=yes,
        no=no,
        missing_yes=missing,
        cover=arrays["cover"].astype(np.float64, copy=False) if len(arrays["cover"]) else None,
        leaf=leaf,
        leaf_values=arrays["leaf_values"].astype(np.float64, copy=False).reshape(-1, outputs),
        base_values=arrays["base_values"].astype(np.float64, copy=False),
        set_offsets=arrays["set_offsets"].astype(np.int32, copy=False),
        set_values=arrays["set_values"].astype(np.float32, copy=False),
        post_transform=PostTransform(header["post_transform"]),
        labels=tuple(header["labels"]),
        output_name=header["output_name"],
        mirror=header["mirror"],
    )
