"""Formulas as an ONNX graph of doubles; NaN is a missing value, and what cannot be computed."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.models.packaging.converted import input_name
from penstock.engine.models.packaging.pmml.answers import Total
from penstock.engine.models.packaging.pmml.expressions import (
    Applied,
    Cleaned,
    Column,
    Constant,
    Expression,
    Interpolated,
    Rounded,
    Value,
)
from penstock.engine.models.packaging.pmml.fields import RawColumn
from penstock.engine.models.packaging.pmml.pieces import breaks, farthest, is_steps
from penstock.schemas.errors import ConfigError

_opset: Final = 17
_of_one: Final = {"exp": "Exp", "ln": "Log", "sqrt": "Sqrt", "abs": "Abs", "floor": "Floor", "ceil": "Ceil"}
_of_two: Final = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "pow": "Pow"}
nodes_max: Final = 100_000


class FormulaGraph:
    """Writes expressions over the columns of a matrix (N, F) of doubles as nodes, each (N, 1)."""

    def __init__(self, columns: Sequence[RawColumn], place_of: Mapping[int, int]) -> None:
        """`place_of`: where in the matrix each column stands that is used."""
        self._columns, self._place_of = columns, place_of
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._made: dict[int, tuple[Expression, str]] = {}

    def take(self, expression: Expression) -> str:
        """The name of the tensor that holds it. Raises ConfigError for what no graph of ours can hold."""
        if id(expression) not in self._made:
            self._made[id(expression)] = (expression, self._write(expression))
        return self._made[id(expression)][1]

    def finished(self, answer: str, name: str, width: int) -> bytes:
        """The graph, whose output is this tensor as floats."""
        self._nodes.append(helper.make_node("Cast", [answer], [name], to=TensorProto.FLOAT))
        graph = helper.make_graph(
            self._nodes,
            "formula",
            [helper.make_tensor_value_info(input_name, TensorProto.DOUBLE, [None, len(self._place_of)])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])],
            initializer=self._constants,
        )
        model = helper.make_model(
            graph, producer_name="penstock", ir_version=8, opset_imports=[helper.make_opsetid("", _opset)]
        )
        return bytes(model.SerializeToString(deterministic=True))

    def call(self, operator: str, *given: str, **attributes: Any) -> str:
        """One node more; returns the name of its output."""
        if len(self._nodes) > nodes_max:
            raise ConfigError(f"the formula needs more than {nodes_max:,} operators")
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(given), [name], **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.float64) -> str:
        """A constant tensor."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(values, dtype=kind), name))
        return name

    def _write(self, expression: Expression) -> str:
        columns = expression.columns
        if len(columns) == 1 and not isinstance(expression, Column):
            (number,) = columns
            if self._columns[number].is_category:
                return self._of_codes(expression, number)
            if not isinstance(expression, Total) and _is_steps(expression):
                return self._of_steps(expression, number)
        if isinstance(expression, Column):
            return self._column(expression.column)
        if isinstance(expression, Constant):
            return self.constant([[_number(expression.value)]])
        if isinstance(expression, Rounded):
            narrow = self.call("Cast", self.take(expression.inner), to=TensorProto.FLOAT)
            return self.call("Cast", narrow, to=TensorProto.DOUBLE)
        if isinstance(expression, Cleaned):
            return self._cleaned(expression)
        if isinstance(expression, Interpolated):
            return self._interpolated(expression)
        if isinstance(expression, Total):
            return self._total(expression)
        if isinstance(expression, Applied):
            return self._applied(expression)
        raise ConfigError(f"a {type(expression).__name__.lower()} field of several others is not written")

    def _column(self, number: int) -> str:
        return self._gathered(self._place_of[number])

    def _gathered(self, place: int) -> str:
        return self.call("Gather", input_name, self.constant([place], np.int64), axis=1)

    def _of_codes(self, expression: Expression, number: int) -> str:
        """Of a category: a table by its code, the value of a missing one at its end."""
        values = [_number(expression.at(value)) for value in self._columns[number].values]
        table = self.constant([*values, _number(expression.at(None))])
        code = self._column(number)
        place = self.call("Where", self.call("IsNaN", code), self.constant([[float(len(values))]]), code)
        return self.call("Gather", table, self.call("Cast", place, to=TensorProto.INT64), axis=0)

    def _of_steps(self, expression: Expression, number: int) -> str:
        """Of a number: a table by how many of its breaks lie below it."""
        ends = [end for end in breaks(expression) if -farthest < end < farthest]
        values = [_number(expression.at(end)) for end in (*ends, farthest)]
        table = self.constant([*values, _number(expression.at(None))])
        column = self._column(number)
        above = self.call("Cast", self.call("Greater", column, self.constant([ends])), to=TensorProto.DOUBLE)
        place = self.call("ReduceSum", above, self.constant([1], np.int64), keepdims=1)
        place = self.call("Where", self.call("IsNaN", column), self.constant([[float(len(values))]]), place)
        return self.call("Gather", table, self.call("Cast", place, to=TensorProto.INT64), axis=0)

    def _cleaned(self, cleaned: Cleaned) -> str:
        """Of numbers: marks, ranges and ends one by one."""
        value = self.take(cleaned.inner)
        gone, instead = self.constant([[math.nan]]), self.constant([[_number(cleaned.instead)]])
        for marker in sorted(each for each in cleaned.markers if isinstance(each, float)):
            value = self.call("Where", self.call("Equal", value, self.constant([[marker]])), gone, value)
        missing = self.call("IsNaN", value)
        bad: str | None = None
        for each in sorted(each for each in cleaned.invalid_values if isinstance(each, float)):
            bad = self._either(bad, self.call("Equal", value, self.constant([[each]])))
        if cleaned.ranges:
            good: str | None = None
            for low, high, from_low, to_high in cleaned.ranges:
                over = self.call("GreaterOrEqual" if from_low else "Greater", value, self.constant([[low]]))
                under = self.call("LessOrEqual" if to_high else "Less", value, self.constant([[high]]))
                good = self._either(good, self.call("And", over, under))
            assert good is not None
            outside = self.call("Not", self.call("Or", good, missing))
            bad = self._either(bad, outside)
        kept = value
        if math.isfinite(cleaned.low) or math.isfinite(cleaned.high):
            least, most = self.constant([[cleaned.low]]), self.constant([[cleaned.high]])
            under, over = self.call("Less", value, least), self.call("Greater", value, most)
            kept = self.call("Where", under, least if cleaned.extremes else gone, kept)
            kept = self.call("Where", over, most if cleaned.extremes else gone, kept)
        missing = self.call("IsNaN", kept)
        filled = self.call("Where", missing, self.constant([[_number(cleaned.replacement)]]), kept)
        if bad is None:
            return filled
        if cleaned.instead is None:
            instead = self.constant([[_number(cleaned.replacement)]])
        return self.call("Where", bad, instead, filled)

    def _either(self, one: str | None, other: str) -> str:
        return other if one is None else self.call("Or", one, other)

    def _interpolated(self, expression: Interpolated) -> str:
        value, points = self.take(expression.inner), expression.points
        made = ""
        for (low, from_low), (high, to_high) in pairwise(points):
            share = self.call(
                "Div", self.call("Sub", value, self.constant([[low]])), self.constant([[high - low]])
            )
            line = self.call("Add", self.call("Mul", share, self.constant([[to_high - from_low]])), self.constant([[from_low]]))  # fmt: skip
            made = line if not made else self.call("Where", self.call("Less", value, self.constant([[low]])), made, line)  # fmt: skip
        ends = {
            "asExtremeValues": (points[0][1], points[-1][1]),
            "asMissingValues": (_number(expression.missing), _number(expression.missing)),
        }.get(expression.outliers)
        if ends is not None:
            under, over = ends
            made = self.call("Where", self.call("Less", value, self.constant([[points[0][0]]])), self.constant([[under]]), made)  # fmt: skip
            made = self.call("Where", self.call("Greater", value, self.constant([[points[-1][0]]])), self.constant([[over]]), made)  # fmt: skip
        return self.call(
            "Where", self.call("IsNaN", value), self.constant([[_number(expression.missing)]]), made
        )

    def _total(self, total: Total) -> str:
        """One product of all terms; those that depend on nothing are added to the constant."""
        constant = total.constant + sum(
            weight * _number(term.at(None)) for weight, term in total.terms if not term.columns
        )
        parts = [(weight, self.take(term)) for weight, term in total.terms if term.columns]
        if not parts:
            return self.call("Add", self._zeros(), self.constant([[constant]]))
        names = [name for _, name in parts]
        stacked = names[0] if len(names) == 1 else self.call("Concat", *names, axis=1)
        weights = self.constant([[weight] for weight, _ in parts])
        return self.call("Add", self.call("MatMul", stacked, weights), self.constant([[constant]]))

    def _zeros(self) -> str:
        """(N, 1) of zeros."""
        column = self._gathered(0)
        return self.call("Where", self.call("IsNaN", column), self.constant([[0.0]]), self.call("Mul", column, self.constant([[0.0]])))  # fmt: skip

    def _applied(self, applied: Applied) -> str:
        name = applied.function
        given = [self.take(each) for each in applied.arguments]
        if name in _of_one:
            made = self.call(_of_one[name], given[0])
        elif name == "log10":
            made = self.call("Div", self.call("Log", given[0]), self.constant([[math.log(10.0)]]))
        elif name in _of_two:
            made = self.call(_of_two[name], *given)
        else:
            raise ConfigError(
                f"function {name} of several fields, or of a number before a formula, is not written"
            )
        if applied.default is not None or applied.invalid_is_missing:
            raise ConfigError(
                f"function {name} has a defaultValue or takes what is invalid for missing, which is not written"
            )
        if applied.missing is not None:
            missing = self.call("IsNaN", given[0])
            for each in given[1:]:
                missing = self.call("Or", missing, self.call("IsNaN", each))
            made = self.call("Where", missing, self.constant([[_number(applied.missing)]]), made)
        return made


def _is_steps(expression: Expression) -> bool:
    try:
        return is_steps(expression)
    except ConfigError:
        return False


def _number(value: Value) -> float:
    """What a tensor of doubles holds for a value. Raises ConfigError for a text."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        raise ConfigError("a formula takes a text for a number")
    return value if isinstance(value, float) else math.nan


def linked(graph: FormulaGraph, terms: Sequence[Expression], link: str, whose: int | None) -> str:
    """The answer (N, 1) or (N, K) as a tensor; of two classes with one term, `whose` is the place of its class."""
    names = [graph.take(term) for term in terms]
    stacked = names[0] if len(names) == 1 else graph.call("Concat", *names, axis=1)
    made = _linked(graph, stacked, link)
    if whose is None:
        return made
    other = graph.call("Sub", graph.constant([[1.0]]), made)
    pair = [made, other] if whose == 0 else [other, made]
    return graph.call("Concat", *pair, axis=1)


def _linked(graph: FormulaGraph, value: str, link: str) -> str:
    def exp(of: str) -> str:
        return graph.call("Exp", of)

    def negative(of: str) -> str:
        return graph.call("Neg", of)

    if link == "exp":
        return exp(value)
    if link == "logit":
        return graph.call("Sigmoid", value)
    if link == "softmax":
        return graph.call("Softmax", value, axis=1)
    if link == "simplemax":
        return graph.call(
            "Div", value, graph.call("ReduceSum", value, graph.constant([1], np.int64), keepdims=1)
        )
    if link == "cloglog":
        return graph.call("Sub", graph.constant([[1.0]]), exp(negative(exp(value))))
    if link == "loglog":
        return exp(negative(exp(negative(value))))
    return value


def reference(terms: NDArray[np.float64], link: str) -> NDArray[np.float64]:
    """The link of sums (R, K), in doubles."""
    with np.errstate(over="ignore"):
        if link == "exp":
            return np.exp(terms)
        if link == "logit":
            return np.asarray(1.0 / (1.0 + np.exp(-terms)))
        if link == "softmax":
            raised = np.exp(terms - terms.max(axis=1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=1, keepdims=True))
    return terms
