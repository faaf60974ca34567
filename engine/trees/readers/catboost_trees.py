"""CatBoost's trees grown anew from tests of one feature each.

A test in the file may ask about several features at once: a statistic of the target over a combination of categories and
numbers. Over the tables of categories it is a truth table, and a truth table is a few tests of one feature each, so that
nothing is lost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.readers.assemble import Tree
from penstock.engine.trees.readers.catboost_ctr import Element
from penstock.schemas.errors import ConfigError

nodes_max: Final = 1 << 22
"""Of all trees, once tests of several features are tests of one each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Test:
    """A question about one feature or several: what is answered for every combination of their values."""

    elements: tuple[Element, ...]
    truth: NDArray[np.bool_]  # an axis for each element
    is_of_target: bool = False
    """It asks about a statistic of the target, which was another number for each row of training than it is in the model."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the way to here says of the features."""

    codes: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    """Categories that are still possible, by column; the last one is any that the table does not hold."""
    bounds: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """x is above the first and not above the second."""


_Then = Callable[[bool, _Known], int]


class Grower:
    """Trees of tests of one feature each."""

    def __init__(self, tests: Sequence[Test], *, outputs: int, scale: float) -> None:
        self.trees: list[Tree] = []
        self._tests, self._outputs, self._scale = tests, outputs, scale
        self._all_nodes = 0

    def oblivious(self, tree: Mapping[str, Any]) -> None:
        """All tests of a level are one. The last one is asked first, as CatBoost's own SHAP values and shap.TreeExplainer have
        it: the function is the same in any order, its path-dependent values are not."""
        asked = [self._test(split) for split in tree["splits"] or ()]
        leaves = 1 << len(asked)
        values = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(leaves, self._outputs)
        weights = tree.get("leaf_weights")
        grown = self._begin()

        def level(depth: int, index: int, known: _Known) -> int:
            if depth < 0:
                weight = float(weights[index]) if weights else None
                return grown.leaf(index, values[index] * self._scale, weight)
            return self._ask(
                grown, asked[depth], known, lambda bit, then: level(depth - 1, index | bit << depth, then)
            )

        level(len(asked) - 1, 0, _Known())
        self._end(grown)

    def nested(self, tree: Mapping[str, Any]) -> None:
        """Every node has a test of its own."""
        grown = self._begin()

        def below(node: Mapping[str, Any], known: _Known) -> int:
            if "split" not in node:
                value = np.asarray(node["value"], dtype=np.float64).reshape(self._outputs)
                weight = float(node["weight"]) if "weight" in node else None
                return grown.leaf(id(node), value * self._scale, weight)
            sides = (node["left"], node["right"])
            return self._ask(
                grown, self._test(node["split"]), known, lambda bit, then: below(sides[bit], then)
            )

        below(tree, _Known())
        self._end(grown)

    def _test(self, split: Mapping[str, Any]) -> Test:
        place = int(split["split_index"])
        if place < 0:
            raise ConfigError("the CatBoost model has a test that is not there")
        return self._tests[place]

    def _begin(self) -> "_Grown":
        return _Grown(room=nodes_max - self._all_nodes)

    def _end(self, grown: "_Grown") -> None:
        self._all_nodes += len(grown.feature)
        self.trees.append(grown.tree(self._outputs))

    def _ask(self, grown: "_Grown", test: Test, known: _Known, then: _Then) -> int:
        grown.has_covers &= not test.is_of_target
        return self._along(grown, test.elements, test.truth, known, then)

    def _along(
        self,
        grown: "_Grown",
        elements: tuple[Element, ...],
        truth: NDArray[np.bool_],
        known: _Known,
        then: _Then,
    ) -> int:
        """The first node of what decides the rest of a truth table."""
        if truth.all() or not truth.any():
            return then(bool(truth.flat[0]), known)
        element, rest = elements[0], elements[1:]
        if element.threshold is not None:
            return self._by_number(grown, element, rest, truth, known, then)
        codes = known.codes.get(element.column)
        codes = np.ones(element.values, dtype=np.bool_) if codes is None else codes
        groups: dict[bytes, list[int]] = {}
        for code in np.flatnonzero(codes).tolist():
            groups.setdefault(truth[code].tobytes(), []).append(code)
        # Categories that no table holds are never named: they go where no set led away.
        *named, last = sorted(groups.values(), key=lambda group: group[-1])
        first, before = -1, -1
        left = codes
        for group in named:
            node = grown.inner(element.column, members=np.array(group, dtype=np.float32))
            if before < 0:
                first = node
            else:
                grown.no[before] = node
            chosen = np.zeros_like(codes)
            chosen[group] = True
            left = left & ~chosen
            within = replace(known, codes={**known.codes, element.column: chosen})
            grown.yes[node] = self._along(grown, rest, truth[group[0]], within, then)
            before = node
        within = replace(known, codes={**known.codes, element.column: left}) if named else known
        ended = self._along(grown, rest, truth[last[0]], within, then)
        if before < 0:
            return ended
        grown.no[before] = ended
        return first

    def _by_number(
        self,
        grown: "_Grown",
        element: Element,
        rest: tuple[Element, ...],
        truth: NDArray[np.bool_],
        known: _Known,
        then: _Then,
    ) -> int:
        threshold = element.threshold
        assert threshold is not None
        low, high = known.bounds.get(element.column, (-np.inf, np.inf))
        if high <= threshold or low >= threshold or truth[0].tobytes() == truth[1].tobytes():
            return self._along(grown, rest, truth[int(low >= threshold)], known, then)
        node = grown.inner(element.column, threshold=threshold, missing_yes=element.missing_below)
        for side, bounds in (("yes", (low, threshold)), ("no", (threshold, high))):
            within = replace(known, bounds={**known.bounds, element.column: bounds})
            child = self._along(grown, rest, truth[int(side == "no")], within, then)
            getattr(grown, side)[node] = child
        return node


@dataclass(slots=True)
class _Grown:
    """A tree under way; node 0 is the first one made."""

    room: int
    has_covers: bool = True
    """The weights of the file's leaves are those of the rows that the model sends there."""
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    missing_yes: list[bool] = field(default_factory=list)
    yes: list[int] = field(default_factory=list)
    no: list[int] = field(default_factory=list)
    values: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[int, float | None] = field(default_factory=dict)
    leaves: list[int] = field(default_factory=list)
    """Of the file, as often as they were used."""
    sets: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def inner(
        self,
        column: int,
        *,
        threshold: float = 0.0,
        missing_yes: bool = False,
        members: NDArray[np.float32] | None = None,
    ) -> int:
        node = self._add(column, threshold, missing_yes)
        if members is not None:
            self.sets[node] = members
        return node

    def leaf(self, number: int, value: NDArray[np.float64], weight: float | None) -> int:
        node = self._add(-1, 0.0, False)
        self.values[node], self.weights[node] = value, weight
        self.leaves.append(number)
        return node

    def tree(self, outputs: int) -> Tree:
        n = len(self.feature)
        values = np.zeros((n, outputs))
        for node, value in self.values.items():
            values[node] = value
        # Where a leaf of the file became several, nobody knows how much of its data came to each.
        known = (
            self.has_covers
            and len(set(self.leaves)) == len(self.leaves)
            and None not in self.weights.values()
        )
        cover = np.zeros(n)
        for node in range(n - 1, -1, -1):
            weight = self.weights.get(node)
            cover[node] = (
                weight or 0.0 if node in self.values else cover[self.yes[node]] + cover[self.no[node]]
            )
        return Tree(
            feature=np.array(self.feature, dtype=np.int64),
            threshold=np.array(self.threshold, dtype=np.float32),
            yes=np.array(self.yes, dtype=np.int64),
            no=np.array(self.no, dtype=np.int64),
            missing_yes=np.array(self.missing_yes, dtype=np.bool_),
            cover=cover if known and cover[0] > 0 else None,
            values=values,
            sets=self.sets,
        )

    def _add(self, column: int, threshold: float, missing_yes: bool) -> int:
        if len(self.feature) >= self.room:
            raise ConfigError(
                f"the CatBoost model combines so many categories that its trees would have more than {nodes_max} nodes: train "
                "it with max_ctr_complexity=1"
            )
        self.feature.append(column)
        self.threshold.append(threshold)
        self.missing_yes.append(missing_yes)
        self.yes.append(-1)
        self.no.append(-1)
        return len(self.feature) - 1
