"""Gaussian processes as operators, in double precision: the mean of a regression; of classes the latent mean and variance of Laplace's
approximation, and the probability as scikit-learn approximates it."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from scipy.linalg import solve_triangular
from sklearn.gaussian_process import kernels

from penstock.engine.models.packaging.sklearn.kernels.numbers import Numbers
from penstock.engine.models.packaging.sklearn.kernels.operators import alike
from penstock.engine.models.packaging.sklearn.kernels.processes import Processes, ProcessMean, pairwise
from penstock.engine.models.packaging.sklearn.kernels.stand_ins import Kernel
from penstock.engine.models.packaging.sklearn.operators.scores import add_label

# Williams and Barber (1998), appendix A: the logistic sigmoid as a sum of error functions, as scikit-learn has it.
_slopes: Final = (0.41, 0.4, 0.37, 0.44, 0.39)
_shares: Final = (-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654)
# Cody (1969): the error function in double precision, by three rational functions; coefficients from the highest power down.
_small: Final = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_middle: Final = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3,
     4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_middle_from, _large_from = 0.46875, 6.0
"""Beyond the second the error function is 1 to the last digit."""


def add_processes(scope: Any, operator: Any, container: Any) -> None:
    """Of Processes."""
    nodes = Numbers(scope, operator, container, wide=True)
    model: Processes = operator.raw_operator
    found = [_share(nodes, each) for each in model.fitted]
    if len(found) == 1:
        share, mean = found[0]
        shares = nodes.node("Concat", nodes.node("Sub", nodes.number(1.0), share), share, axis=1)
        above = nodes.node("Greater", mean, nodes.number(0.0))
        place = nodes.node(
            "Cast",
            nodes.node("Reshape", above, nodes.graph.tensor(np.array([-1]))),
            to=TensorProto.INT64,
        )
    else:
        each_alone = nodes.node("Concat", *(share for share, _ in found), axis=1)
        total = nodes.total(each_alone)
        none = nodes.node("Equal", total, nodes.number(0.0))
        shares = nodes.node("Div", each_alone, nodes.node("Where", none, nodes.number(1.0), total))
        place = nodes.node("ArgMax", each_alone, axis=1, keepdims=0)
    nodes.answer(shares, 1)
    add_label(nodes.graph, place, model.classes_, operator.outputs[0].full_name)


def add_process_mean(scope: Any, operator: Any, container: Any) -> None:
    """Of ProcessMean."""
    nodes = Numbers(scope, operator, container, wide=True)
    model: ProcessMean = operator.raw_operator
    process, rows = model.fitted, np.asarray(model.fitted.X_train_, dtype=np.float64)
    near = nodes.node("Add", _covariance(nodes, process.kernel_, rows), nodes.row(np.zeros(len(rows))))
    scaled = nodes.node(
        "Mul", nodes.node("MatMul", near, nodes.known(model.weights)), nodes.row(process._y_train_std)
    )
    mean = nodes.node("Add", scaled, nodes.row(process._y_train_mean))
    nodes.answer(mean, 0)


def _share(nodes: Numbers, process: Any) -> tuple[str, str]:
    """The probability of the second class, and the latent mean, (N, 1) each."""
    rows = np.asarray(process.X_train_, dtype=np.float64)
    near = nodes.node(
        "Add", _covariance(nodes, process.kernel_, rows), nodes.row(np.zeros(len(rows)))
    )  # (N, M)
    mean = nodes.node("MatMul", near, nodes.known((process.y_train_ - process.pi_)[:, None]))
    reach = solve_triangular(process.L_, np.diag(process.W_sr_), lower=True)
    known = nodes.node("MatMul", near, nodes.known(reach.T))
    variance = nodes.node("Sub", _own(nodes, process.kernel_), nodes.total(nodes.node("Mul", known, known)))
    positive = nodes.node("Greater", variance, nodes.number(0.0))
    variance = nodes.node("Where", positive, variance, nodes.number(np.nan))  # as its root in the original
    slopes = np.array(_slopes)
    spread = nodes.node("Mul", variance, nodes.row(2.0 * slopes**2))
    spread = nodes.node("Sqrt", nodes.node("Add", spread, nodes.number(1.0)))
    error = error_function(
        nodes, nodes.node("Div", nodes.node("Mul", mean, nodes.row(slopes)), spread)
    )  # (N, 5)
    shares = np.array(_shares)
    half = nodes.node("MatMul", error, nodes.known(0.5 * shares[:, None]))
    return nodes.node("Add", half, nodes.number(float(0.5 * shares.sum()))), mean


def error_function(nodes: Numbers, given: str) -> str:
    """The error function to about one part in 10^16."""

    def ratio(tables: tuple[tuple[float, ...], ...], at: str) -> str:
        ends = []
        for table in tables:
            total = nodes.number(table[0])
            for term in table[1:]:
                total = nodes.node("Add", nodes.node("Mul", total, at), nodes.number(term))
            ends.append(total)
        return nodes.node("Div", *ends)

    size = nodes.node("Min", nodes.node("Abs", given), nodes.number(_large_from))
    square = nodes.node("Mul", size, size)
    inner = nodes.node("Mul", size, ratio(_small, nodes.node("Min", square, nodes.number(_middle_from**2))))
    left = nodes.node("Mul", nodes.node("Exp", nodes.node("Neg", square)), ratio(_middle, size))
    outer = nodes.node("Sub", nodes.number(1.0), left)
    is_inner = nodes.node("LessOrEqual", size, nodes.number(_middle_from))
    return nodes.node("Mul", nodes.node("Sign", given), nodes.node("Where", is_inner, inner, outer))


def _zero(nodes: Numbers) -> str:
    """0 for each row, (N, 1)."""
    first = nodes.node("Gather", nodes.given, nodes.graph.tensor(np.array([0])), axis=1)
    nothing = nodes.known(np.zeros((1, 1)))
    return nodes.node("Where", nodes.node("IsNaN", first), nothing, nothing)


def _covariance(nodes: Numbers, kernel: Any, rows: NDArray[np.float64]) -> str:
    """What the kernel says of each record and each row of training, (N, M) or (N, 1)."""
    if isinstance(kernel, (kernels.Sum, kernels.Product)):
        both = (_covariance(nodes, each, rows) for each in (kernel.k1, kernel.k2))
        return nodes.node("Add" if isinstance(kernel, kernels.Sum) else "Mul", *both)
    if isinstance(kernel, kernels.Exponentiation):
        return nodes.node(
            "Pow", _covariance(nodes, kernel.kernel, rows), nodes.number(float(kernel.exponent))
        )
    if isinstance(kernel, kernels.ConstantKernel):
        return nodes.node("Add", _zero(nodes), nodes.number(float(kernel.constant_value)))
    if isinstance(kernel, kernels.WhiteKernel):
        return _zero(nodes)
    if isinstance(kernel, kernels.DotProduct):
        product = nodes.node("MatMul", nodes.given, nodes.known(rows.T))
        return nodes.node("Add", product, nodes.number(float(kernel.sigma_0) ** 2))
    if isinstance(kernel, kernels.PairwiseKernel):
        return alike(nodes, _of_pairs(kernel), rows)
    scale = np.broadcast_to(np.asarray(kernel.length_scale, dtype=np.float64), rows.shape[1])
    if isinstance(kernel, kernels.RBF):  # Matern too
        scaled = nodes.node("Div", nodes.given, nodes.row(scale))
        squares = nodes.powers(scaled, rows / scale, 2.0)
        return _matern(nodes, squares, kernel.nu if isinstance(kernel, kernels.Matern) else np.inf)
    squares = nodes.powers(nodes.given, rows, 2.0)
    length = float(scale[0])
    if isinstance(kernel, kernels.RationalQuadratic):
        part = nodes.node("Mul", squares, nodes.number(1.0 / (2.0 * float(kernel.alpha) * length**2)))
        return nodes.node(
            "Pow", nodes.node("Add", part, nodes.number(1.0)), nodes.number(-float(kernel.alpha))
        )
    turn = nodes.node("Mul", nodes.node("Sqrt", squares), nodes.number(float(np.pi / kernel.periodicity)))
    wave = nodes.node("Div", nodes.node("Sin", turn), nodes.number(length))
    return nodes.node("Exp", nodes.node("Mul", nodes.node("Mul", wave, wave), nodes.number(-2.0)))


def _matern(nodes: Numbers, squares: str, nu: float) -> str:
    if nu == np.inf:
        return nodes.node("Exp", nodes.node("Mul", squares, nodes.number(-0.5)))
    apart = nodes.node("Mul", nodes.node("Sqrt", squares), nodes.number(float(np.sqrt(2.0 * nu))))
    fall = nodes.node("Exp", nodes.node("Neg", apart))
    if nu == 0.5:
        return fall
    rise = nodes.node("Add", apart, nodes.number(1.0))
    if nu == 2.5:
        third = nodes.node("Mul", nodes.node("Mul", apart, apart), nodes.number(1.0 / 3.0))
        rise = nodes.node("Add", rise, third)
    return nodes.node("Mul", rise, fall)


def _of_pairs(kernel: Any) -> Kernel:
    more = dict(kernel.pairwise_kernels_kwargs or {})
    return Kernel(
        name=pairwise[kernel.metric],
        gamma=float(kernel.gamma),
        degree=float(more.get("degree", 3)),
        coef0=float(more.get("coef0", 1)),
    )


def _own(nodes: Numbers, kernel: Any) -> str:
    """What the kernel says of each record and itself, (N, 1) or (1,)."""
    if isinstance(kernel, (kernels.Sum, kernels.Product)):
        both = (_own(nodes, each) for each in (kernel.k1, kernel.k2))
        return nodes.node("Add" if isinstance(kernel, kernels.Sum) else "Mul", *both)
    if isinstance(kernel, kernels.Exponentiation):
        return nodes.node("Pow", _own(nodes, kernel.kernel), nodes.number(float(kernel.exponent)))
    if isinstance(kernel, kernels.ConstantKernel):
        return nodes.number(float(kernel.constant_value))
    if isinstance(kernel, kernels.WhiteKernel):
        return nodes.number(float(kernel.noise_level))
    length = nodes.total(nodes.node("Mul", nodes.given, nodes.given))
    if isinstance(kernel, kernels.DotProduct):
        return nodes.node("Add", length, nodes.number(float(kernel.sigma_0) ** 2))
    if isinstance(kernel, kernels.PairwiseKernel) and kernel.metric not in ("rbf", "laplacian"):
        of = _of_pairs(kernel)
        if of.name == "linear":
            return length
        moved = nodes.node("Add", nodes.node("Mul", length, nodes.number(of.gamma)), nodes.number(of.coef0))
        if of.name == "sigmoid":
            return nodes.node("Tanh", moved)
        return nodes.node("Pow", moved, nodes.number(of.degree))
    return nodes.number(1.0)
