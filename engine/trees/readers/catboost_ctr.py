"""CatBoost's statistics of the target (CTRs): the number that each combination of a model's features stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

cells_max: Final = 1 << 20
"""Combinations of the categories that one statistic may be of."""
counting: Final = ("Counter", "FeatureFreq")
"""Kinds of statistics that count the rows of a category, whatever their target."""
_no_key: Final = (1 << 64) - 1
"""An empty place of the table."""
_magic: Final = np.uint64(0x4906BA494954CB65)


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """A feature of the record, as a test sees it: a number on one side of a threshold, or a category."""

    column: int
    values: int
    """How many it tells apart: 2 of a number; of a category those of its table, and any other."""
    threshold: float | None = None
    missing_below: bool = False
    """A missing number counts as below."""


class Statistics:
    """The statistics of one model, over tables of categories given by their hashes."""

    def __init__(
        self,
        floats: Sequence[Mapping[str, Any]],
        cats: Sequence[Mapping[str, Any]],
        hashes: Mapping[int, NDArray[np.int32]],
        tables: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._floats, self._cats, self._hashes, self._tables = floats, cats, hashes, tables
        self._names = {int(item["flat_feature_index"]): str(item.get("feature_id") or "") for item in cats}
        self._read: dict[str, tuple[NDArray[np.uint64], NDArray[np.float64], float]] = {}

    def number(self, index: int, border: float) -> Element:
        """Whether the index-th number is above a border."""
        feature = self._floats[index]
        return Element(
            column=int(feature["flat_feature_index"]),
            values=2,
            threshold=float(np.float32(border)),
            missing_below=feature.get("nan_value_treatment") != "AsTrue",
        )

    def category(self, index: int) -> Element:
        """The index-th category."""
        column = int(self._cats[index]["flat_feature_index"])
        return Element(column=column, values=len(self._hashes[column]) + 1)

    def of(self, ctr: Mapping[str, Any]) -> tuple[tuple[Element, ...], NDArray[np.float32]]:
        """What a statistic is about, and its value for every combination, with an axis for each element.

        Raises ConfigError where the tables lack a category that the model has met.
        """
        elements, keys, known = self._combined(ctr["elements"])
        table_keys, counts, denominator = self._table(str(ctr["identifier"]))
        met = keys[known]
        strange = ~np.isin(table_keys, met)
        if strange.any():
            columns = dict.fromkeys(e.column for e in elements if e.threshold is None)
            named = ", ".join(self._names.get(column) or f"column {column}" for column in columns)
            raise ConfigError(
                f"the model was trained on {int(strange.sum())} more values of {named} than its categories name: give all that "
                "the training data had, in a features file (--features)"
            )
        order = np.argsort(table_keys)
        place = np.minimum(np.searchsorted(table_keys, keys, sorter=order), max(len(order) - 1, 0))
        rows = order[place] if len(order) else np.zeros(keys.shape, dtype=np.int64)
        found = known & (table_keys[rows] == keys) if len(order) else np.zeros(keys.shape, dtype=np.bool_)
        good, total = _counted(ctr, counts, denominator)
        in_class = np.where(found, good[rows] if len(order) else 0.0, 0.0).astype(np.float32)
        all_rows = np.where(found, total[rows] if len(order) else 0.0, _of_none(ctr, denominator))
        prior, more = np.float32(ctr["prior_numerator"]), np.float32(ctr["prior_denomerator"])
        share = (in_class + prior) / (all_rows.astype(np.float32) + more)
        return elements, (share + np.float32(ctr["shift"])) * np.float32(ctr["scale"])

    def _combined(
        self, described: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Element, ...], NDArray[np.uint64], NDArray[np.bool_]]:
        """The elements, the key of every combination, and whether its key is known: that of no category is not."""
        ranked = sorted(described, key=lambda item: item["combination_element"] != "cat_feature_value")
        elements, parts, sure = [], [], []
        for item in ranked:
            kind = item["combination_element"]
            if kind == "float_feature":
                elements.append(self.number(int(item["float_feature_index"]), item["border"]))
                parts.append(np.array([0, 1], dtype=np.uint64))
                sure.append(np.ones(2, dtype=np.bool_))
                continue
            element = self.category(int(item["cat_feature_index"]))
            hashed = self._hashes[element.column]
            elements.append(element)
            if kind == "cat_feature_value":
                parts.append(np.append(hashed.astype(np.int64).astype(np.uint64), np.uint64(0)))
                sure.append(np.append(np.ones(len(hashed), dtype=np.bool_), False))
            elif kind == "cat_feature_exact_value":
                parts.append(np.append(hashed == np.int32(item["value"]), False).astype(np.uint64))
                sure.append(np.ones(len(hashed) + 1, dtype=np.bool_))
            else:
                raise ConfigError(
                    f"the CatBoost model combines features by {str(kind)[:40]}, which is not known"
                )
        shape = tuple(element.values for element in elements)
        if np.prod(shape, dtype=np.float64) > cells_max:
            raise ConfigError(
                "the CatBoost model combines so many categories that their combinations cannot all be tried: train it with "
                "max_ctr_complexity=1"
            )
        keys, known = np.zeros(shape, dtype=np.uint64), np.ones(shape, dtype=np.bool_)
        for axis, (part, certain) in enumerate(zip(parts, sure, strict=True)):
            spread = [1] * len(shape)
            spread[axis] = len(part)
            with np.errstate(over="ignore"):
                keys = _magic * (keys + _magic * part.reshape(spread))
            known = known & certain.reshape(spread)
        return tuple(elements), keys, known

    def _table(self, name: str) -> tuple[NDArray[np.uint64], NDArray[np.float64], float]:
        """Keys, what was counted for each, and what a frequency is relative to."""
        if name not in self._read:
            table = self._tables[name]
            stride = int(table["hash_stride"])
            cells = table["hash_map"]
            if stride < 2 or len(cells) % stride:
                raise ConfigError("the CatBoost model has a table of statistics that is cut off")
            keys = np.array([int(key) for key in cells[::stride]], dtype=np.uint64)
            counts = np.array(
                [[float(cell) for cell in cells[at + 1 : at + stride]] for at in range(0, len(cells), stride)]
            ).reshape(len(keys), stride - 1)
            kept = keys != np.uint64(_no_key)
            self._read[name] = (keys[kept], counts[kept], float(table["counter_denominator"]))
        return self._read[name]


def _counted(
    ctr: Mapping[str, Any], counts: NDArray[np.float64], denominator: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of every row of a table, what was counted, and out of how many."""
    kind, border = ctr["ctr_type"], int(ctr["target_border_idx"])
    if kind in ("BinarizedTargetMeanValue", "FloatTargetMeanValue"):
        return counts[:, 0], counts[:, 1]
    if kind in counting:
        return counts[:, 0], np.full(len(counts), denominator)
    if kind == "Buckets":
        return counts[:, border], counts.sum(axis=1)
    if kind == "Borders":
        return counts[:, border + 1 :].sum(axis=1), counts.sum(axis=1)
    raise ConfigError(f"the CatBoost model has statistics of the kind {str(kind)[:40]}, which is not known")


def _of_none(ctr: Mapping[str, Any], denominator: float) -> float:
    """Out of how many nothing was counted."""
    return denominator if ctr["ctr_type"] in counting else 0.0
