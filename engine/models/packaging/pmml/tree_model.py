"""A TreeModel, or whatever asks predicates in order, as a binary tree of ours: exact for every value, missing ones included."""

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.pmml.elements import Element
from penstock.engine.models.packaging.pmml.fields import RawColumn
from penstock.engine.models.packaging.pmml.predicates import (
    Codes,
    Domain,
    Numbers,
    Predicate,
    PredicateReader,
    State,
    Test,
    Truth,
    always,
    asked,
    domain_of,
)
from penstock.engine.trees.readers.assemble import Tree
from penstock.schemas.errors import ConfigError

nodes_max: Final = 1 << 20
"""Of one tree as ours: predicates joined by `or` may ask for the same subtree many times."""
_missing_strategies: Final = ("none", "nullPrediction", "lastPrediction", "defaultChild")


@dataclass(slots=True, eq=False)
class Node:
    """A node as the file has it."""

    element: Element
    predicate: Predicate
    values: NDArray[np.float64] | None
    """(K,) what it answers; None where it answers nothing."""
    children: list["Node"]
    default: "Node | None" = None
    missing: str = "none"
    """What it does where the predicate of a child is unknown."""
    returns_last: bool = False
    """It answers itself where no child is true."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Guard:
    """One of several models takes part: the first whose predicate is true, and nobody where none is."""

    element: Element
    predicates: tuple[Predicate, ...]
    chosen: int
    """For the trees of this one; they answer zeros where another is the first."""


def read_rules(
    model: Element, reader: PredicateReader, values_of: Callable[[Element], NDArray[np.float64] | None]
) -> Node:
    """The nodes of a TreeModel; `values_of` says what one answers. Raises ConfigError."""
    strategy = model.get("missingValueStrategy", "none")
    if strategy not in _missing_strategies:
        raise model.refused(f"has missingValueStrategy={strategy[:40]!r}, which is not kept exactly")
    otherwise = model.get("noTrueChildStrategy", "returnNullPrediction")
    if otherwise not in ("returnNullPrediction", "returnLastPrediction"):
        raise model.refused(f"has noTrueChildStrategy={otherwise[:40]!r}, which is not known")
    root: Node | None = None
    waiting: list[tuple[Element, Node | None]] = [(model.need("Node"), None)]
    while waiting:
        element, parent = waiting.pop()
        for name in ("Regression", "DecisionTree"):
            if found := element.one(name):
                raise found.refused("is a model inside a node, which is not read")
        node = Node(
            element, reader.of(element), values_of(element), [],
            missing=strategy, returns_last=otherwise == "returnLastPrediction",
        )  # fmt: skip
        if parent is None:
            root = node
        else:
            parent.children.append(node)
        waiting += [(child, node) for child in reversed(element.all("Node"))]
    assert root is not None
    if strategy == "defaultChild":
        _take_defaults(root)
    return root


def _below(node: Node, predicate: Predicate, children: list[Node]) -> Node:
    """What stands above a node, and answers nothing itself."""
    return Node(node.element, predicate, None, children)


def _take_defaults(root: Node) -> None:
    for node in _all(root):
        if node.children and "defaultChild" in node.element.attributes:
            wanted = node.element.get("defaultChild")
            found = [child for child in node.children if child.element.get("id") == wanted]
            if len(found) != 1:
                raise node.element.refused(
                    f"has defaultChild={wanted[:40]!r}, which is not one of its children"
                )
            node.default = found[0]


def _all(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


@dataclass(frozen=True, slots=True)
class _End:
    """No child: the node itself answers, or nobody."""

    node: Node | None
    """None: no prediction."""


class TreeCompiler:
    """Compiles the rules of a file, with one idea of what its columns may hold.

    Where only a missing value leads to no prediction, its column is marked: records without it are set aside.
    """

    def __init__(self, columns: Sequence[RawColumn], guards: Sequence[Guard] = ()) -> None:
        """`guards`: which of several models its trees belong to, the outermost first."""
        self._columns, self._guards = columns, guards
        self._whole: dict[int, Domain] = {}
        """What the columns may hold before anything is asked; a state has those that are known more of."""

    def compile(self, root: Node, width: int = 1) -> Tree:
        """The rules as a binary tree, `width` numbers in a leaf; thresholds are doubles. Raises ConfigError where a record would
        get no prediction."""
        if root.predicate is not always:  # rare: a root that is not always true is a child of nobody
            root = _below(root, always, [root])
        for guard in reversed(self._guards):
            others = [Node(guard.element, each, np.zeros(width), []) for each in guard.predicates]
            others[guard.chosen] = _below(root, guard.predicates[guard.chosen], [root])
            root = Node(guard.element, always, None, others)
        while True:
            try:
                return self._compiled(root)
            except _MissingError as found:
                self._columns[found.column].rejects_missing = True

    def _compiled(self, root: Node) -> Tree:
        made = _Made()
        self._whole = {number: domain_of(column) for number, column in enumerate(self._columns)}
        waiting: list[tuple[Node, State, int, int]] = [(root, {}, -1, 0)]
        while waiting:
            node, state, parent, side = waiting.pop()
            found = self._selected(node, state)
            while isinstance(found, Node):
                node = found
                found = self._selected(node, state)
            if isinstance(found, _End):
                place = made.leaf(self._answer(found, node, state))
            else:
                test, yes, no = self._split(node, state, found)
                place = made.inner(found.column, test)
                waiting += [(node, no, place, 1), (node, yes, place, 0)]
            made.link(parent, side, place, root.element)
        return made.tree()

    def _selected(self, node: Node, state: State) -> "Node | _End | Test":
        """The child that is taken in this state, that none is, or the test that decides."""
        if not node.children:
            return _End(node)
        known = ChainMap(dict(state), self._whole)
        for child in node.children:
            found = asked(child.predicate, known)
            if isinstance(found, Test):
                return found
            if found is Truth.TRUE:
                return child
            if found is Truth.INVALID:
                raise child.element.refused(
                    "asks about a field that has no value for some records (a function is not defined there), which no tree asks"
                )
            if found is Truth.UNKNOWN and node.missing != "none":
                if node.missing == "defaultChild":
                    if node.default is None:
                        raise node.element.refused("has no defaultChild, and a predicate that may be unknown")
                    return node.default
                return _End(node if node.missing == "lastPrediction" else None)
        return _End(node if node.returns_last else None)

    def _answer(self, end: _End, node: Node, state: State) -> NDArray[np.float64]:
        if end.node is not None and end.node.values is not None:
            return end.node.values
        for number in reversed([*state]):
            domain = state[number]
            if domain.missing and not domain.there:
                raise _MissingError(number)
        raise node.element.refused(
            "gives no prediction to some values (a predicate is unknown, or no child's is true), which no bundle can keep: "
            'missingValueStrategy="lastPrediction" and noTrueChildStrategy="returnLastPrediction" give its own'
        )

    def _split(self, node: Node, state: State, test: Test) -> tuple["_Split", State, State]:
        """A test of ours on the column, and what is known on its sides."""
        domain = state.get(test.column, self._whole[test.column])
        rest = {number: held for number, held in state.items() if number != test.column}  # newest last

        def narrowed(held: Domain) -> State:
            return {**rest, test.column: held}

        if isinstance(domain, Codes):
            parts = [codes & domain.held for codes in test.held]
            found = [codes for codes in parts if codes]
            if len(found) < 2:
                return (
                    _Split(members=domain.held),
                    narrowed(Codes(domain.held, False)),
                    narrowed(Codes(0, True)),
                )
            yes, no = Codes(parts[Truth.TRUE] or found[0], False), Codes(0, False)
            no = Codes(domain.held & ~yes.held, False)
            made = _Split(members=yes.held)
            both: tuple[Domain, Domain] = (yes, no)
        else:
            assert isinstance(domain, Numbers)
            inside = [cut for cut in test.cuts if domain.low < cut < domain.high] if domain.there else []
            if not inside:
                there = replace(domain, missing=False)
                return _Split(threshold=np.inf), narrowed(there), narrowed(Numbers(there=False))
            cut = inside[0]
            made = _Split(threshold=cut)
            both = (Numbers(domain.low, cut, True, False), Numbers(cut, domain.high, True, False))
        if not domain.missing:
            return made, narrowed(both[0]), narrowed(both[1])
        with_yes = self._goes_with(node, narrowed, both)
        sides = [replace(held, missing=(place == 0) == with_yes) for place, held in enumerate(both)]
        return replace(made, missing_yes=with_yes), narrowed(sides[0]), narrowed(sides[1])

    def _goes_with(
        self,
        node: Node,
        narrowed: Callable[[Domain], State],
        both: tuple[Domain, Domain],
    ) -> bool:
        """Whether a missing value is better kept with the yes side: where it is known to take the same child."""
        gone: Domain = Codes(0, True) if isinstance(both[0], Codes) else Numbers(there=False)
        of_missing = self._selected(node, narrowed(gone))
        return _same(of_missing, self._selected(node, narrowed(both[0])))


def _same(one: "Node | _End | Test", other: "Node | _End | Test") -> bool:
    if isinstance(one, _End) and isinstance(other, _End):
        return one.node is other.node
    return one is other and isinstance(one, Node)


class _MissingError(ConfigError):
    """A record without this column gets no prediction."""

    def __init__(self, column: int) -> None:
        super().__init__("a record without a value gets no prediction")
        self.column = column


@dataclass(frozen=True, slots=True)
class _Split:
    """A test of ours: at most the threshold, or one of the members."""

    threshold: float = 0.0
    members: int | None = None
    missing_yes: bool = False


class _Made:
    """A tree of ours as it grows."""

    def __init__(self) -> None:
        self._feature: list[int] = []
        self._splits: list[_Split] = []
        self._children: list[list[int]] = []
        self._values: dict[int, NDArray[np.float64]] = {}

    def leaf(self, values: NDArray[np.float64]) -> int:
        """A leaf; returns its number."""
        self._values[len(self._feature)] = values
        return self._add(-1, _Split())

    def inner(self, column: int, split: _Split) -> int:
        """An inner node; returns its number."""
        return self._add(column, split)

    def _add(self, column: int, split: _Split) -> int:
        self._feature.append(column)
        self._splits.append(split)
        self._children.append([-1, -1])
        return len(self._feature) - 1

    def link(self, parent: int, side: int, node: int, root: Element) -> None:
        """Hangs a node under another."""
        if len(self._feature) > nodes_max:
            raise root.refused(
                f"is a tree of predicates that make more than {nodes_max:,} nodes of a binary tree"
            )
        if parent >= 0:
            self._children[parent][side] = node

    def tree(self) -> Tree:
        """What was made."""
        width = len(next(iter(self._values.values())))
        values = np.zeros((len(self._feature), width))
        for node, held in self._values.items():
            values[node] = held
        children = np.array(self._children, dtype=np.int64)
        return Tree(
            feature=np.array(self._feature, dtype=np.int64),
            threshold=np.array([split.threshold for split in self._splits], dtype=np.float64),
            yes=children[:, 0],
            no=children[:, 1],
            missing_yes=np.array([split.missing_yes for split in self._splits], dtype=np.bool_),
            cover=None,
            values=values,
            sets={
                node: _bits(split.members)
                for node, split in enumerate(self._splits)
                if split.members is not None
            },
        )


def _bits(held: int) -> NDArray[np.float32]:
    """The numbers of the bits that are set, ascending."""
    return np.array([place for place in range(held.bit_length()) if held >> place & 1], dtype=np.float32)
