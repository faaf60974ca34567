"""Kernel regressions, kernel maps and other known functions of the whole row, as operators in the numbers' own precision."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.packaging.sklearn.kernels.numbers import Numbers
from penstock.engine.models.packaging.sklearn.kernels.processes import ProcessMean
from penstock.engine.models.packaging.sklearn.kernels.stand_ins import (
    Centroids,
    Chi2Steps,
    Distances,
    Hidden,
    Kernel,
    KernelAnswer,
    KernelMap,
    KernelShares,
    Sketch,
    Waves,
)
from penstock.engine.models.packaging.sklearn.operators.calibrators import add_calibrator
from penstock.engine.models.packaging.sklearn.operators.scores import add_label


def map_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    rows, model = operator.inputs[0].get_first_dimension(), operator.raw_operator
    if isinstance(model, (KernelMap, KernelAnswer, ProcessMean, Waves)):
        width = model.weights.shape[1]
    elif isinstance(model, Chi2Steps):
        width = model.width * (2 * model.steps - 1)
    elif isinstance(model, Distances):
        width = len(model.places)
    elif isinstance(model, Sketch):
        width = model.hashed.shape[2]
    else:
        width = len(model.scores.coef) if isinstance(model, Hidden) else 1
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, width])


def alike(nodes: Numbers, kernel: Kernel, vectors: NDArray[np.float64]) -> str:
    """How alike each row is to each vector, (N, M)."""
    given = nodes.given
    if kernel.name == "laplacian":
        parts = []
        for column in range(vectors.shape[1]):
            values = nodes.node("Gather", given, nodes.graph.tensor(np.array([column])), axis=1)
            parts.append(nodes.node("Abs", nodes.node("Sub", values, nodes.row(vectors[:, column]))))
        return nodes.node("Exp", nodes.node("Mul", nodes.node("Sum", *parts), nodes.number(-kernel.gamma)))
    if kernel.name == "rbf":  # distances between numbers near each other, far from 0, would lose their digits
        middle = vectors.mean(axis=0)
        apart = nodes.squares(nodes.node("Sub", given, nodes.row(middle)), vectors - middle)
        return nodes.node("Exp", nodes.node("Mul", apart, nodes.number(-kernel.gamma)))
    if kernel.name == "cosine":
        size = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(size > 0, size, 1.0)
        length = nodes.node("Sqrt", nodes.total(nodes.node("Mul", given, given)))
        none = nodes.node("Equal", length, nodes.number(0.0))
        given = nodes.node("Div", given, nodes.node("Where", none, nodes.number(1.0), length))
    product = nodes.node("MatMul", given, nodes.known(vectors.T))
    if kernel.name in ("linear", "cosine"):
        return product
    moved = nodes.node(
        "Add", nodes.node("Mul", product, nodes.number(kernel.gamma)), nodes.number(kernel.coef0)
    )
    if kernel.name == "sigmoid":
        return nodes.node("Tanh", moved)
    return nodes.node("Pow", moved, nodes.number(kernel.degree))


def add_kernel_map(scope: Any, operator: Any, container: Any) -> None:
    """Of KernelMap and KernelAnswer."""
    nodes, model = Numbers(scope, operator, container), operator.raw_operator
    near = alike(nodes, model.kernel, model.vectors)
    nodes.node("MatMul", near, nodes.known(model.weights), output=operator.outputs[0].full_name)


def add_distances(scope: Any, operator: Any, container: Any) -> None:
    """Of Distances."""
    nodes = Numbers(scope, operator, container)
    places = operator.raw_operator.places
    middle = places.mean(axis=0)
    squares = nodes.squares(nodes.node("Sub", nodes.given, nodes.row(middle)), places - middle)
    nodes.node("Sqrt", squares, output=operator.outputs[0].full_name)


def add_isotone(scope: Any, operator: Any, container: Any) -> None:
    """Of Isotone."""
    nodes = Numbers(scope, operator, container)
    answer = add_calibrator(nodes.graph, operator.raw_operator.fitted, nodes.given, nodes.kind)
    nodes.node("Reshape", answer, nodes.graph.tensor(np.array([-1, 1])), output=operator.outputs[0].full_name)


def add_kernel_shares(scope: Any, operator: Any, container: Any) -> None:
    """Of KernelShares."""
    nodes = Numbers(scope, operator, container)
    model: KernelShares = operator.raw_operator
    sums = nodes.node("MatMul", alike(nodes, model.kernel, model.vectors), nodes.known(model.weights))
    shares = nodes.node("Div", sums, nodes.total(sums), output=operator.outputs[1].full_name)
    place = nodes.node("ArgMax", shares, axis=1, keepdims=0)
    add_label(nodes.graph, place, model.classes_, operator.outputs[0].full_name)


def add_waves(scope: Any, operator: Any, container: Any) -> None:
    """Of Waves."""
    nodes = Numbers(scope, operator, container)
    model: Waves = operator.raw_operator
    given = nodes.given
    if model.skew is not None:
        given = nodes.node("Log", nodes.node("Add", given, nodes.number(model.skew)))
    sums = nodes.node("Add", nodes.node("MatMul", given, nodes.known(model.weights)), nodes.row(model.offset))
    nodes.node(
        "Mul", nodes.node("Cos", sums), nodes.number(model.scale), output=operator.outputs[0].full_name
    )


def add_chi2_steps(scope: Any, operator: Any, container: Any) -> None:
    """Of Chi2Steps: a number below 0 comes out as NaN, where the original refuses it."""
    nodes = Numbers(scope, operator, container)
    model: Chi2Steps = operator.raw_operator
    given, zero = nodes.given, nodes.number(0.0)
    none = nodes.node("Equal", given, zero)
    held = nodes.node("Where", none, nodes.number(1.0), given)
    angle = nodes.node("Mul", nodes.node("Log", held), nodes.number(model.interval))
    parts = [nodes.node("Sqrt", nodes.node("Mul", held, nodes.number(model.interval)))]
    for step in range(1, model.steps):
        share = 2 * model.interval / np.cosh(np.pi * step * model.interval)
        factor = nodes.node("Sqrt", nodes.node("Mul", held, nodes.number(float(share))))
        turned = nodes.node("Mul", angle, nodes.number(float(step)))
        parts += [nodes.node("Mul", factor, nodes.node(wave, turned)) for wave in ("Cos", "Sin")]
    kept = [nodes.node("Where", none, zero, part) for part in parts]
    nodes.node("Concat", *kept, axis=1, output=operator.outputs[0].full_name)


def add_sketch(scope: Any, operator: Any, container: Any) -> None:
    """Of Sketch: the transforms are products with known matrices."""
    nodes = Numbers(scope, operator, container)
    model: Sketch = operator.raw_operator
    count = model.hashed.shape[2]
    turns = 2 * np.pi * (np.outer(np.arange(count), np.arange(count)) % count) / count
    real, imaginary = "", ""
    for hashed, constant in zip(model.hashed, model.constant, strict=True):
        parts = []
        for wave in (np.cos(turns), -np.sin(turns)):
            product = nodes.node("MatMul", nodes.given, nodes.known(hashed @ wave))
            parts.append(nodes.node("Add", product, nodes.row(constant @ wave)))
        if not real:
            real, imaginary = parts
            continue
        one, other = (nodes.node("Mul", real, parts[0]), nodes.node("Mul", imaginary, parts[1]))
        cross = (nodes.node("Mul", real, parts[1]), nodes.node("Mul", imaginary, parts[0]))
        real, imaginary = nodes.node("Sub", one, other), nodes.node("Add", *cross)
    back = nodes.node(
        "Sub",
        nodes.node("MatMul", real, nodes.known(np.cos(turns) / count)),
        nodes.node("MatMul", imaginary, nodes.known(np.sin(turns) / count)),
    )
    nodes.node("Identity", back, output=operator.outputs[0].full_name)


def add_hidden(scope: Any, operator: Any, container: Any) -> None:
    """Of Hidden."""
    nodes = Numbers(scope, operator, container)
    scores = operator.raw_operator.scores
    sums = nodes.node(
        "Add", nodes.node("MatMul", nodes.given, nodes.known(scores.coef.T)), nodes.row(scores.intercept)
    )
    nodes.node("Sigmoid", sums, output=operator.outputs[0].full_name)


def add_ellipse(scope: Any, operator: Any, container: Any) -> None:
    """Of Ellipse."""
    nodes, model = Numbers(scope, operator, container), operator.raw_operator
    apart = nodes.node("Sub", nodes.given, nodes.row(model.middle))
    turned = nodes.node("MatMul", apart, nodes.known(model.precision))
    distance = nodes.total(nodes.node("Mul", turned, apart))
    offset = nodes.number(-model.offset)
    nodes.node("Sub", offset, distance, output=operator.outputs[0].full_name)


def add_centroids(scope: Any, operator: Any, container: Any) -> None:
    """Of Centroids."""
    nodes = Numbers(scope, operator, container)
    model: Centroids = operator.raw_operator
    middle = model.middles.mean(axis=0)

    def near(scale: NDArray[np.float64]) -> str:
        """Negative squared distances, (N, K)."""
        given = nodes.node("Div", nodes.node("Sub", nodes.given, nodes.row(middle)), nodes.row(scale))
        return nodes.node("Neg", nodes.squares(given, (model.middles - middle) / scale))

    scores = nodes.node("Add", near(model.scale), nodes.row(2.0 * np.log(model.priors)))
    nodes.node("Softmax", scores, axis=1, output=operator.outputs[1].full_name)
    chosen = near(np.ones(len(middle))) if model.bare else scores
    place = nodes.node("ArgMax", chosen, axis=1, keepdims=0)
    add_label(nodes.graph, place, model.classes_, operator.outputs[0].full_name)
