"""Trees whose tests were moved to other columns: a test becomes one node, or a few, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import levels_of
from penstock.engine.models.packaging.sklearn.moved_tests import Asked, Mover, NotFoldedError, Test
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.readers.assemble import Tree

_growth_max = 8
"""Times as many nodes as before: a test of an interval repeats what lies below it."""
_room = 1 << 16
_whole_max = float(1 << 24)
"""Integers below it are distinct in float32."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """How trees compare the columns that they are given."""

    narrow: bool = True
    """They round numbers to float32 first."""
    cuts: tuple[tuple[float, ...], ...] = ()
    """Signature.cuts of the forest, where it compares doubles."""
    marker: float | None = None
    """A number that they take for missing."""
    marks_zeros: bool = False
    """Whether they take 0 for missing, before anything is rounded."""
    tables: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """Of their categorical columns, the values that they number, ascending."""
    places: NDArray[np.int64] | None = None
    """Which of the steps' columns each of theirs is; None: as they come."""


def moved_trees(forest: Forest, columns: Columns, mover: Mover) -> list[Tree]:
    """The forest's trees, in order, asking the features themselves; thresholds are doubles. Raises NotFoldedError.

    A tree loses its covers where a test had to become several nodes.
    """
    nodes = np.flatnonzero(forest.leaf < 0)
    asked, entry = _asked(forest, columns, nodes)
    tests = mover.moved(asked) if len(nodes) else []
    of_node = np.full(forest.nodes, -1, dtype=np.int64)
    of_node[nodes] = entry
    owner = forest.tree_of_node()
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(forest.trees + 1))
    made, grown = [], 0
    for number, root in enumerate(forest.roots.tolist()):
        members = order[bounds[number] : bounds[number + 1]]
        tree = _tree(forest, root, members, of_node, tests, forest.nodes * _growth_max + _room - grown)
        grown += len(tree.feature)
        made.append(tree)
    return made


def _asked(forest: Forest, columns: Columns, nodes: NDArray[np.int64]) -> tuple[Asked, NDArray[np.int64]]:
    """The different tests of the nodes, and which of them each node puts."""
    column = forest.feature[nodes].astype(np.int64)
    threshold = forest.threshold[nodes].astype(np.float64)
    for number, cuts in enumerate(columns.cuts):
        at = (column == number) & np.isfinite(threshold) & (forest.set_index[nodes] < 0)
        if cuts and at.any():
            places = np.searchsorted(levels_of(np.array(cuts)), forest.threshold[nodes][at])
            threshold[at] = np.array(cuts)[places]
    numbers = forest.set_index[nodes].astype(np.int64)
    threshold[numbers >= 0] = 0.0
    key = np.stack(
        (column, (threshold + 0.0).view(np.int64), forest.missing_yes[nodes].astype(np.int64), numbers)
    )
    _, first, entry = np.unique(key, axis=1, return_index=True, return_inverse=True)
    members = {
        place: forest.set_values[slice(*forest.set_offsets[numbers[at] : numbers[at] + 2])].astype(np.float64)
        for place, at in enumerate(first.tolist())
        if numbers[at] >= 0
    }
    asked = Asked(
        column=column[first] if columns.places is None else columns.places[column[first]],
        threshold=threshold[first],
        missing_yes=forest.missing_yes[nodes][first] != 0,
        members=members,
        tables={
            place: columns.tables[int(column[at])]
            for place, at in enumerate(first.tolist())
            if int(column[at]) in columns.tables
        },
        narrow=columns.narrow,
        marker=columns.marker,
        marks_zeros=columns.marks_zeros,
    )
    return asked, entry.reshape(-1)


def _tree(
    forest: Forest,
    root: int,
    members: NDArray[np.int64],
    of_node: NDArray[np.int64],
    tests: Sequence[Test],
    room: int,
) -> Tree:
    writer = _Writer(keeps_covers=forest.cover is not None, room=room)
    values, cover = forest.leaf_values, forest.cover
    # Each thing to write: a node of the forest, the steps of its test that are left, and where to note its place.
    waiting: list[tuple[int, Sequence[_Link] | None, int, bool]] = [(root, None, -1, True)]
    while waiting:
        node, links, above, is_yes = waiting.pop()
        if links is None:
            if forest.leaf[node] >= 0:
                place = writer.leaf(values[forest.leaf[node]], None if cover is None else cover[node])
                writer.note(above, place, is_yes=is_yes)
                continue
            links = _links(tests[of_node[node]])
        first, rest = links[0], links[1:]
        if first.feature < 0:
            waiting.append((_below(forest, node, first.then), None, above, is_yes))
            continue
        place = writer.inner(first, None if cover is None else cover[node])
        writer.note(above, place, is_yes=is_yes)
        waiting.append((_below(forest, node, first.then), None, place, True))
        if rest[0].feature < 0:
            waiting.append((_below(forest, node, rest[0].then), None, place, False))
        else:
            writer.keeps_covers = False
            waiting.append((node, rest, place, False))
    return writer.tree(forest.outputs)


def _below(forest: Forest, node: int, yes: bool) -> int:
    return int(forest.yes[node] if yes else forest.no[node])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Link:
    """One node of a test: where it is met, the answer is `then`, else the next link is asked."""

    feature: int
    """-1: it is always met."""
    threshold: float = 0.0
    members: tuple[float, ...] = ()
    missing: bool = False
    """Whether a missing value meets it."""
    then: bool = True


def _links(test: Test) -> list[_Link]:
    """The chain that answers as the test does."""
    if test.feature < 0:
        return [_Link(feature=-1, then=test.starts)]
    exact = tuple(value for value in test.members if _is_exact(value))
    # A number that float32 has no room for around it is an interval between two doubles.
    toggles = sorted(
        [*test.switches]
        + [
            side
            for value in test.members
            if value not in exact
            for side in (float(np.nextafter(value, -np.inf)), value)
        ]
    )
    switches = [value for value in toggles if toggles.count(value) % 2 == 1]
    switches = sorted(set(switches))
    answers = [test.starts ^ bool(number % 2) for number in range(len(switches) + 1)]
    links: list[_Link] = []
    for then in (True, False):
        chosen = tuple(value for value in exact if answers[int(np.searchsorted(switches, value))] != then)
        if chosen:
            links.append(_Link(feature=test.feature, members=chosen, then=then))
    links += [
        _Link(feature=test.feature, threshold=switch, then=answer)
        for switch, answer in zip(switches, answers, strict=False)
    ]
    met = next((place for place, link in enumerate(links) if link.then == test.missing), None)
    if met is not None:
        links[met] = replace(links[met], missing=True)
    elif answers[-1] != test.missing:  # nothing that is known passes a threshold of -infinity
        links.insert(0, _Link(feature=test.feature, threshold=-np.inf, missing=True, then=test.missing))
    return [*links, _Link(feature=-1, then=answers[-1])]


def _is_exact(value: float) -> bool:
    return abs(value) < _whole_max and float(np.float32(value)) == value


class _Writer:
    """A tree, node by node."""

    def __init__(self, *, keeps_covers: bool, room: int) -> None:
        self.keeps_covers = keeps_covers
        self._room = room
        self._feature: list[int] = []
        self._threshold: list[float] = []
        self._yes: list[int] = []
        self._no: list[int] = []
        self._missing: list[bool] = []
        self._cover: list[float] = []
        self._values: list[NDArray[np.float64] | None] = []
        self._sets: dict[int, NDArray[np.float32]] = {}

    def leaf(self, values: NDArray[np.float64], cover: float | None) -> int:
        """A leaf's place."""
        place = self._add(-1, 0.0, False, cover)
        self._values[place] = values
        return place

    def inner(self, link: _Link, cover: float | None) -> int:
        """The place of a node that asks."""
        place = self._add(link.feature, link.threshold, link.missing, cover)
        if link.members:
            self._sets[place] = np.unique(np.array(link.members, dtype=np.float32))
        return place

    def note(self, above: int, place: int, *, is_yes: bool) -> None:
        """The child of a node, and on which side."""
        if above >= 0:
            (self._yes if is_yes else self._no)[above] = place

    def tree(self, outputs: int) -> Tree:
        """What was written."""
        nothing = np.zeros(outputs)
        return Tree(
            feature=np.array(self._feature, dtype=np.int64),
            threshold=np.array(self._threshold, dtype=np.float64),
            yes=np.array(self._yes, dtype=np.int64),
            no=np.array(self._no, dtype=np.int64),
            missing_yes=np.array(self._missing, dtype=np.bool_),
            cover=np.array(self._cover, dtype=np.float64) if self.keeps_covers else None,
            values=np.stack([nothing if each is None else each for each in self._values]),
            sets=self._sets,
        )

    def _add(self, feature: int, threshold: float, missing: bool, cover: float | None) -> int:
        if len(self._feature) >= self._room:
            raise NotFoldedError(
                "its steps cut features into so many pieces that the trees would grow beyond measure"
            )
        self._feature.append(feature)
        self._threshold.append(threshold)
        self._missing.append(missing)
        self._cover.append(0.0 if cover is None else float(cover))
        self._yes.append(-1)
        self._no.append(-1)
        self._values.append(None)
        return len(self._feature) - 1
