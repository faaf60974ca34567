"""Formulas as an ONNX graph of doubles; NaN is a missing value, and what cannot be computed."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.models.packaging.converted import input_name
from penstock.engine.models.packaging.pmml.answers import Chosen, Total
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
from penstock.engine.models.packaging.pmml.predicates import Always, Predicate, Test, Truth
from penstock.schemas.errors import ConfigError

_opset: Final = 17
_of_one: Final = {"exp": "Exp", "ln": "Log", "sqrt": "Sqrt", "abs": "Abs", "floor": "Floor", "ceil": "Ceil"}
_of_two: Final = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "pow": "Pow"}
nodes_max: Final = 100_000


class FormulaGraph:
    """Writes expressions over the columns of a matrix (N, F) of doubles as nodes, each (N, 1)."""

    def __init__(
        self, columns: Sequence[RawColumn], place_of: Mapping[int, int], *, prefix: str = ""
    ) -> None:
        """`place_of`: where in the matrix each column stands that is used; `prefix`: of the names of tensors."""
        self._columns, self._place_of, self._prefix = columns, place_of, prefix
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

    def append_to(self, graph: Any, made: str, name: str) -> None:
        """Puts the nodes behind those of another graph; the tensor `made` is called `name` then."""
        graph.node.extend(self._nodes)
        graph.node.append(helper.make_node("Identity", [made], [name]))
        graph.initializer.extend(self._constants)

    def call(self, operator: str, *given: str, outputs: int = 1, **attributes: Any) -> str:
        """One node more; returns the name of its first output."""
        if len(self._nodes) > nodes_max:
            raise ConfigError(f"the formula needs more than {nodes_max:,} operators")
        names = [
            f"{self._prefix}t{len(self._nodes)}{'abc'[place : place + (outputs > 1)]}"
            for place in range(outputs)
        ]
        self._nodes.append(helper.make_node(operator, list(given), names, **attributes))
        return names[0]

    def constant(self, values: Any, kind: Any = np.float64) -> str:
        """A constant tensor."""
        name = f"{self._prefix}c{len(self._constants)}"
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
        if isinstance(expression, Chosen):
            return self._chosen(expression)
        if isinstance(expression, Applied):
            return self._applied(expression)
        raise ConfigError(f"a {type(expression).__name__.lower()} field of several others is not written")

    def _column(self, number: int) -> str:
        return self._gathered(self._place_of[number])

    def _gathered(self, place: int) -> str:
        return self.call("Gather", input_name, self.constant([place], np.int64), axis=1)

    def _of_codes(self, expression: Expression, number: int) -> str:
        values = [_number(expression.at(value)) for value in self._columns[number].values]
        return self._by_code(number, [*values, _number(expression.at(None))])

    def _by_code(self, number: int, table: Sequence[float]) -> str:
        """Of a category: a table by its code, the value of a missing one at its end."""
        code = self._column(number)
        place = self.call("Where", self.call("IsNaN", code), self.constant([[len(table) - 1.0]]), code)
        return self.call(
            "Gather", self.constant(table), self.call("Cast", place, to=TensorProto.INT64), axis=0
        )

    def _of_steps(self, expression: Expression, number: int) -> str:
        ends = [end for end in breaks(expression) if -farthest < end < farthest]
        values = [_number(expression.at(end)) for end in (*ends, farthest)]
        return self._by_place(number, ends, [*values, _number(expression.at(None))])

    def _by_place(self, number: int, ends: Sequence[float], table: Sequence[float]) -> str:
        """Of a number: a table by how many of the ends lie below it, the value of a missing one at its end."""
        column = self._column(number)
        above = self.call("Cast", self.call("Greater", column, self.constant([ends])), to=TensorProto.DOUBLE)
        place = self.call("ReduceSum", above, self.constant([1], np.int64), keepdims=1)
        place = self.call("Where", self.call("IsNaN", column), self.constant([[len(table) - 1.0]]), place)
        return self.call(
            "Gather", self.constant(table), self.call("Cast", place, to=TensorProto.INT64), axis=0
        )

    def _chosen(self, chosen: Chosen) -> str:
        made = self.constant([[math.nan]])
        for predicate, value in reversed(chosen.branches):
            is_true, _ = self._truth(predicate)
            made = self.call("Where", is_true, self.take(value), made)
        return made

    def _truth(self, predicate: Predicate) -> tuple[str, str]:
        """Whether it is true, and whether it is false: of what is unknown it is neither."""
        if isinstance(predicate, Always):
            says = predicate.truth
            return self._bool(says is Truth.TRUE), self._bool(says is Truth.FALSE)
        if isinstance(predicate, Test):
            return self._truth_of_test(predicate)
        found = [self._truth(each) for each in predicate.parts]
        trues, falses = [one for one, _ in found], [other for _, other in found]
        if predicate.operator == "and":
            return self._all("And", trues), self._all("Or", falses)
        if predicate.operator == "or":
            return self._all("Or", trues), self._all("And", falses)
        if predicate.operator == "xor":
            known = self._all("And", [self.call("Or", *each) for each in found])
            odd = self._all("Xor", trues)
            return self.call("And", known, odd), self.call("And", known, self.call("Not", odd))
        is_true, is_false = found[-1]
        for one, other in reversed(found[:-1]):
            unknown = self.call("Not", self.call("Or", one, other))
            is_true = self.call("Or", one, self.call("And", unknown, is_true))
            is_false = self.call("Or", other, self.call("And", unknown, is_false))
        return is_true, is_false

    def _truth_of_test(self, test: Test) -> tuple[str, str]:
        if test.held:
            codes = range(len(self._columns[test.column].table))
            says = [next(truth for truth, held in enumerate(test.held) if held >> code & 1) for code in codes]
            place = self._by_code(test.column, [*says, test.missing])
        else:
            says = [int(truth) for truth in test.truths]
            place = self._by_place(test.column, test.cuts, [*says, test.missing])
        if Truth.INVALID in says:
            raise ConfigError("a formula is chosen by a field that has no value for some records")
        is_true = self.call("Equal", place, self.constant([[float(Truth.TRUE)]]))
        return is_true, self.call("Equal", place, self.constant([[float(Truth.FALSE)]]))

    def _all(self, operator: str, names: Sequence[str]) -> str:
        made = names[0]
        for each in names[1:]:
            made = self.call(operator, made, each)
        return made

    def _bool(self, value: bool) -> str:
        return self.constant([[value]], np.bool_)

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
