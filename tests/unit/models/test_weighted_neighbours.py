"""Neighbours weighted by distance, and Gaussian processes of classes: packaged to the original's digits, or refused by name."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.special import erf
from sklearn.ensemble import VotingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penstock
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.sklearn.kernels.process_nodes import error_function
from penstock.engine.models.packaging.sklearn.kernels.processes import process_model
from penstock.engine.models.packaging.sklearn.operators.nodes import PlainNodes
from penstock.schemas.errors import ConfigError

_random = np.random.default_rng(0)
_rows = _random.normal(size=(150, 3)).round(3)
_value = _rows[:, 0] * 3 + np.sin(_rows[:, 1])
_two = np.where(_value > 0, "yes", "no")
_three = np.digitize(_value, [-1.0, 1.0])
_several = np.stack((_value, -_rows[:, 2]), axis=1)
_wide = _random.normal(size=(150, 70))


def _asked(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of training, some with one digit changed, and others."""
    random = np.random.default_rng(1)
    near = rows[:40] + random.choice([0.0, 1e-9, 1e-4, -1e-3], size=(40, rows.shape[1]))
    return np.concatenate((rows[:60], near, random.normal(size=(200, rows.shape[1]))))


def _compared(model: Any, rows: NDArray[np.float64], folder: Path, near: float = 1e-9) -> penstock.Model:
    package(model, folder / "bundle", background=rows[:30], rows=rows)
    opened = penstock.load(folder / "bundle")
    asked = _asked(rows)
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if isinstance(
        last, (KNeighborsClassifier, KNeighborsRegressor)
    ):  # of equally near rows the original takes any
        given = asked if last is model else model[:-1].transform(asked)
        apart, _ = last.kneighbors(given, n_neighbors=last.n_neighbors + 1)
        asked = asked[apart[:, -1] - apart[:, -2] > 1e-12]
    found = opened.predict(asked)
    scores = next(iter(found.outputs.values()))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(scores, model.predict_proba(asked), atol=near)
        assert (found.labels == model.predict(asked).astype(str)).all()
    else:
        wanted = model.predict(asked).reshape(len(asked), -1)
        np.testing.assert_allclose(scores, wanted, rtol=near, atol=near)
    return opened


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"algorithm": "ball_tree"},
        {"algorithm": "brute"},
        {"p": 1},
        {"p": 3},
        {"metric": "chebyshev"},
        {"metric": "manhattan", "algorithm": "brute"},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["value", "values", "two", "three"])
def test_neighbours_by_their_distance(options: dict[str, Any], target: str, tmp_path: Path) -> None:
    kind = KNeighborsRegressor if target.startswith("value") else KNeighborsClassifier
    wanted = {"value": _value, "values": _several, "two": _two, "three": _three}[target]
    model = kind(4, weights="distance", **options)
    # By brute force the original multiplies, which loses digits of small distances.
    near = 1e-6 if options.get("algorithm") == "brute" and "metric" not in options else 1e-9
    _compared(make_pipeline(StandardScaler(), model).fit(_rows, wanted), _rows, tmp_path, near)


def test_a_record_that_is_a_row_of_training_is_answered_by_it_alone(tmp_path: Path) -> None:
    twice = np.concatenate((_rows, _rows[:3]))
    value = np.concatenate((_value, [100.0, 200.0, 300.0]))
    model = KNeighborsRegressor(5, weights="distance").fit(twice, value)
    package(model, tmp_path / "bundle", background=_rows[:30])
    scores = penstock.load(tmp_path / "bundle").predict(_rows[:10]).outputs["value"][:, 0]
    np.testing.assert_array_equal(scores[3:], _value[3:10])
    np.testing.assert_allclose(scores[:3], (_value[:3] + np.array([100.0, 200.0, 300.0])) / 2)


def test_many_columns_are_multiplied(tmp_path: Path) -> None:
    model = KNeighborsRegressor(3, weights="distance").fit(_wide, _value)
    package(model, tmp_path / "bundle", background=_wide[:30])
    asked = _random.normal(size=(100, 70))
    scores = penstock.load(tmp_path / "bundle").predict(asked).outputs["value"][:, 0]
    np.testing.assert_allclose(scores, model.predict(asked), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("target", ["value", "two", "three"])
@pytest.mark.filterwarnings("ignore:One or more samples have no neighbors")
def test_neighbours_within_a_radius_by_their_distance(target: str, tmp_path: Path) -> None:
    if target == "value":
        model: Any = RadiusNeighborsRegressor(3.0, weights="distance").fit(_rows, _value)
    else:
        outlier = "no" if target == "two" else "most_frequent"
        wanted = _two if target == "two" else _three
        model = RadiusNeighborsClassifier(3.0, weights="distance", outlier_label=outlier).fit(_rows, wanted)
    opened = _compared(model, _rows, tmp_path)
    alone = [dict.fromkeys(opened.feature_names, 50.0)]
    outcome = opened.score(alone)
    if target == "value":  # the original answers NaN
        assert outcome["reason"].to_pylist() == ["output_not_finite"]
    else:
        assert outcome["label"].to_pylist() == [str(model.predict(np.full((1, 3), 50.0))[0])]


def test_neighbours_inside_a_vote(tmp_path: Path) -> None:
    near = KNeighborsClassifier(4, weights="distance")
    vote = VotingClassifier([("a", near), ("b", LogisticRegression())], voting="soft").fit(_rows, _three)
    _compared(vote, _rows, tmp_path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KNeighborsRegressor(3, weights=np.square), "weighs its neighbours by a Python function"),
        (KNeighborsRegressor(3, weights="distance", metric="cosine"), "metric='cosine'.*behind a Normalizer"),
        (KNeighborsRegressor(3, weights="distance", metric="canberra"), "metric='canberra'"),
        (KNeighborsRegressor(3, weights="distance", metric_params={"w": np.ones(3)}), "metric_params of w"),
    ],
    ids=["function", "cosine", "canberra", "weights of columns"],
)
def test_what_has_no_operators_is_refused_by_name(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        package(model.fit(_rows, _value), tmp_path / "bundle", background=_rows[:30])


_kernels = [
    RBF([1.0, 2.0, 0.5]),
    ConstantKernel(2.0) * RBF(1.3) + WhiteKernel(0.1),
    Matern(1.5, nu=0.5),
    Matern([1.0, 2.0, 3.0], nu=1.5),
    Matern(nu=2.5),
    Matern(nu=np.inf),
    RationalQuadratic(1.2, 0.7),
    ExpSineSquared(2.0, 5.0) + WhiteKernel(1.0),
    DotProduct(0.8),
    (DotProduct(1.0) ** 2) + RBF(),
    PairwiseKernel(gamma=0.5, metric="rbf"),
    PairwiseKernel(gamma=0.5, metric="laplacian"),
    PairwiseKernel(metric="linear"),
    PairwiseKernel(gamma=0.3, metric="polynomial", pairwise_kernels_kwargs={"degree": 2}),
]


@pytest.mark.parametrize("kernel", _kernels, ids=str)
def test_gaussian_processes_of_two_classes(kernel: Any, tmp_path: Path) -> None:
    model = GaussianProcessClassifier(kernel, optimizer=None).fit(_rows, _two)
    _compared(model, _rows, tmp_path)


@pytest.mark.parametrize("kernel", [None, Matern(nu=1.5)], ids=str)
def test_gaussian_processes_of_three_classes(kernel: Any, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), GaussianProcessClassifier(kernel, random_state=0))
    opened = _compared(model.fit(_rows, _three), _rows, tmp_path)
    assert opened.explain(_rows[:5]).method == "exact_enumeration"


def test_gaussian_processes_without_operators_are_refused_by_name() -> None:
    pairs = GaussianProcessClassifier(multi_class="one_vs_one", optimizer=None).fit(_rows, _three)
    with pytest.raises(ConfigError, match="use 'one_vs_rest'"):
        process_model(pairs)
    strange = GaussianProcessClassifier(Matern(nu=0.7), optimizer=None).fit(_rows, _two)
    with pytest.raises(ConfigError, match=r"has the kernel Matern.*nu 0\.5"):
        process_model(strange)
    strange = GaussianProcessClassifier(PairwiseKernel(metric="chi2"), optimizer=None)
    with pytest.raises(ConfigError, match="metric='chi2'"):
        process_model(strange.fit(np.abs(_rows), _two))
    many = GaussianProcessClassifier(optimizer=None).fit(_rows, _two)
    many.base_estimator_.X_train_ = np.zeros((3000, 2))
    with pytest.raises(ConfigError, match="fit it on a sample"):
        process_model(many)


class _Plain:
    """What error_function asks for, on a graph without a converter."""

    def __init__(self, nodes: PlainNodes) -> None:
        self._nodes = nodes

    def number(self, value: float) -> str:
        return self._nodes.tensor(np.array([value]))

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        return self._nodes.node(kind, [*inputs], output=output, **attributes)


def test_the_error_function_is_exact_to_the_last_digits() -> None:
    given = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None])
    graph = helper.make_graph(
        [], "g", [given], [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None])]
    )
    nodes = PlainNodes(graph, "erf")
    found = error_function(cast(Any, _Plain(nodes)), "x")
    nodes.node("Identity", [found], output="y")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.concatenate((np.linspace(-7, 7, 20_001), [0.46875, -0.46875, 6.0, 0.0, 1e-300, 30.0, -1e9]))
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, erf(x), rtol=0, atol=4e-16)
