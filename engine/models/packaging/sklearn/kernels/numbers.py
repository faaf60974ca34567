"""Nodes on numbers of one precision: constants, sums, and how far rows are from rows kept from training."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of

exact_columns_max: Final = 64
"""So many columns are subtracted one by one; more are multiplied, which loses digits of small distances."""


class Numbers:
    """Nodes on numbers of one precision."""

    def __init__(self, scope: Any, operator: Any, container: Any, *, wide: bool = False) -> None:
        """`wide`: they compute in double precision, whatever the operator is given."""
        self._scope, self._container = scope, container
        self.graph, self.kind = GraphNodes(scope, container), kind_of(operator)
        self._operator = operator
        self.given = operator.inputs[0].full_name
        self.axis = self.graph.tensor(np.array([1]))
        self.last_axis = self.graph.tensor(np.array([2]))
        if wide and self.kind is not np.float64:
            self.kind = np.float64
            self.given = self.cast(self.given)

    def known(self, values: Any) -> str:
        """A constant."""
        return self.graph.tensor(np.ascontiguousarray(np.asarray(values, dtype=self.kind)))

    def row(self, values: Any) -> str:
        """A constant (1, K)."""
        return self.known(np.asarray(values).reshape(1, -1))

    def number(self, value: float) -> str:
        """A constant (1,)."""
        return self.known(np.array([value]))

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node of one output."""
        return self.graph.node(kind, [*inputs], output=output, **attributes)

    def cast(self, values: str) -> str:
        """To the precision of these numbers."""
        return self.node(
            "Cast", values, to=TensorProto.DOUBLE if self.kind is np.float64 else TensorProto.FLOAT
        )

    def answer(self, values: str, place: int) -> None:
        """These as an output of the operator, in the precision that it was given."""
        to = TensorProto.DOUBLE if kind_of(self._operator) is np.float64 else TensorProto.FLOAT
        self.node("Cast", values, to=to, output=self._operator.outputs[place].full_name)

    def total(self, values: str) -> str:
        """The sum of each row, (N, 1)."""
        return self.node("ReduceSum", values, self.axis, keepdims=1)

    def nearest(self, apart: str, count: int) -> tuple[str, str]:
        """The least numbers of each row, ascending, and their places, (N, count) each."""
        near, places = (str(self._scope.get_unique_variable_name(name)) for name in ("near", "places"))
        self._container.add_node(
            "TopK", [apart, self.graph.tensor(np.array([count]))], [near, places], op_version=11, axis=1, largest=0,
            name=self._scope.get_unique_operator_name("TopK"),
        )  # fmt: skip
        return near, places

    def powers(self, given: str, vectors: NDArray[np.float64], power: float) -> str:
        """Of each row from each vector (M, F) the sum of the `power`-th powers of the differences, added in the order of the
        columns, (N, M); with `power` infinite the largest difference."""
        if power == 2.0 and vectors.shape[1] > exact_columns_max:
            middle = vectors.mean(axis=0)
            return self.squares(self.node("Sub", given, self.row(middle)), vectors - middle)
        total = ""
        for column in range(vectors.shape[1]):
            values = self.node("Gather", given, self.graph.tensor(np.array([column])), axis=1)
            apart = self.node("Sub", values, self.row(vectors[:, column]))
            if power == 2.0:
                part = self.node("Mul", apart, apart)
            else:
                part = self.node("Abs", apart)
                if power not in (1.0, np.inf):
                    part = self.node("Pow", part, self.number(power))
            if total:
                part = self.node("Max" if power == np.inf else "Add", total, part)
            total = part
        return total

    def squares(self, given: str, vectors: NDArray[np.float64]) -> str:
        """Squared distances from the vectors, (N, M), by products: of many columns."""
        product = self.node("MatMul", given, self.known(vectors.T))
        own = self.total(self.node("Mul", given, given))
        both = self.node("Add", own, self.row((vectors**2).sum(axis=1)))
        apart = self.node("Sub", both, self.node("Mul", product, self.number(2.0)))
        return self.node("Max", apart, self.number(0.0))
