"""Kernel machines with probabilities (`SVC(probability=True)`), as operators in double precision.

Of each pair of classes a sigmoid of its decision value is a probability (Platt, 1999); what all pairs say is put together in turns,
until little changes (Wu, Lin and Weng, 2004, second method), also of two classes. LIBSVM, and so scikit-learn, stops within a twentieth of a
class's share, so that a turn more or less is seen: the turns are the same here.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.sklearn.kernels.machines import KernelChances
from penstock.engine.models.packaging.sklearn.kernels.numbers import Numbers
from penstock.engine.models.packaging.sklearn.operators.scores import (
    add_label,
    add_machine_pairs,
    add_pair_votes,
)

_turns: Final = 8
"""LIBSVM takes up to 100. Two were the most of two classes over all probabilities, and four of up to twelve over 3,000 drawn tables of
probabilities down to 10^-7; a record that needs more has no answer (NaN), and is set aside."""
_share_min: Final = 1e-7
_left: Final = 0.005


def add_kernel_chances(scope: Any, operator: Any, container: Any) -> None:
    """Of KernelChances."""
    nodes = Numbers(scope, operator, container, wide=True)
    model: KernelChances = operator.raw_operator
    machine, count = model.machine, len(model.classes_)
    values, (winners, losers) = add_machine_pairs(nodes.graph, machine, nodes.given, nodes.kind)
    known = nodes.node("Mul", values, nodes.row(machine.probA_))
    against = nodes.node("Add", known, nodes.row(machine.probB_))
    chance = nodes.node("Sigmoid", nodes.node("Neg", against))
    chance = nodes.node(
        "Max", nodes.node("Min", chance, nodes.number(1.0 - _share_min)), nodes.number(_share_min)
    )
    shares = _together(nodes, chance, winners, losers)
    nodes.answer(shares, 1)
    lost = nodes.cast(nodes.node("LessOrEqual" if count == 2 else "Less", values, nodes.number(0.0)))
    won = nodes.node("Sub", nodes.number(1.0), lost)
    votes, sure = add_pair_votes(nodes.graph, values, won, lost, winners, losers, nodes.kind)
    chosen = nodes.node("Add", votes, sure) if machine.break_ties and count > 2 else votes
    add_label(
        nodes.graph,
        nodes.node("ArgMax", chosen, axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )


def _together(nodes: Numbers, chance: str, winners: NDArray[np.float64], losers: NDArray[np.float64]) -> str:
    """Probabilities (N, K) from those of the pairs (N, P)."""
    pairs, count = winners.shape
    first, second = winners.argmax(axis=1), losers.argmax(axis=1)
    spread, offset = np.zeros((pairs, count * count)), np.zeros(count * count)
    for pair, (one, other) in enumerate(zip(first, second, strict=True)):
        spread[pair, one * count + other], spread[pair, other * count + one] = 1.0, -1.0
        offset[other * count + one] = 1.0
    flat = nodes.node("Add", nodes.node("MatMul", chance, nodes.known(spread)), nodes.row(offset))
    table = nodes.node(
        "Reshape", flat, nodes.graph.tensor(np.array([-1, count, count]))
    )  # of the row's class against the column's
    turned = nodes.node("Transpose", table, perm=[0, 2, 1])
    own = nodes.node("ReduceSum", nodes.node("Mul", turned, turned), nodes.last_axis, keepdims=1)
    system = nodes.node(
        "Sub", nodes.node("Mul", own, nodes.known(np.eye(count)[None])), nodes.node("Mul", turned, table)
    )
    rows = [
        nodes.node("Gather", system, nodes.graph.tensor(np.array(place)), axis=1) for place in range(count)
    ]
    own_of = [_column(nodes, row, place) for place, row in enumerate(rows)]
    units = [nodes.row(unit) for unit in np.eye(count)]
    zero = nodes.node(
        "Mul", nodes.node("Gather", system, nodes.graph.tensor(np.array(0)), axis=1), nodes.number(0.0)
    )
    shares = nodes.node("Add", zero, nodes.number(1.0 / count))
    for _ in range(_turns):
        known, both = _products(nodes, system, shares)
        enough = _enough(nodes, known, both, count)
        moved = shares
        for place in range(count):
            here = _column(nodes, known, place)
            step = nodes.node("Div", nodes.node("Sub", both, here), own_of[place])
            more = nodes.node("Add", step, nodes.number(1.0))
            inner = nodes.node(
                "Add", nodes.node("Mul", step, own_of[place]), nodes.node("Mul", here, nodes.number(2.0))
            )
            risen = nodes.node("Add", both, nodes.node("Mul", step, inner))
            both = nodes.node("Div", nodes.node("Div", risen, more), more)
            known = nodes.node("Div", nodes.node("Add", known, nodes.node("Mul", step, rows[place])), more)
            moved = nodes.node("Div", nodes.node("Add", moved, nodes.node("Mul", step, units[place])), more)
        shares = nodes.node("Where", enough, shares, moved)
    enough = _enough(nodes, *_products(nodes, system, shares), count)
    return nodes.node("Where", enough, shares, nodes.number(np.nan))


def _products(nodes: Numbers, system: str, shares: str) -> tuple[str, str]:
    """The system times the shares (N, K), and that times the shares again (N, 1)."""
    standing = nodes.node("Unsqueeze", shares, nodes.last_axis)
    known = nodes.node("Squeeze", nodes.node("MatMul", system, standing), nodes.last_axis)
    return known, nodes.total(nodes.node("Mul", shares, known))


def _enough(nodes: Numbers, known: str, both: str, count: int) -> str:
    """Whether each record's shares are near enough, (N, 1)."""
    apart = nodes.node("Abs", nodes.node("Sub", known, both))
    most = nodes.node("ReduceMax", apart, axes=[1], keepdims=1)
    return nodes.node("Less", most, nodes.number(_left / count))


def _column(nodes: Numbers, values: str, place: int) -> str:
    """(N, 1)."""
    return nodes.node("Gather", values, nodes.graph.tensor(np.array([place])), axis=1)
