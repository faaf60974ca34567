"""scikit-learn pipelines drawn from a seed: columns of every type, random steps around random estimators, and rows to ask about."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif, f_regression
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from tests.random_draws import Draw
from tests.random_texts import with_texts

rows_trained, rows_asked = 140, 120
kernels = ["rbf", "linear", "poly", "sigmoid"]
functions = (
    np.log1p, np.sqrt, np.square, np.negative, np.absolute, np.exp2, np.sign, np.tanh, np.floor, np.ceil, np.rint, np.trunc,
    np.cbrt, np.arctan, np.isnan, np.deg2rad, np.reciprocal, np.sin, np.expm1, np.log, np.log10, np.positive, np.arcsinh,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One case: an unfitted pipeline and its data."""

    model: Any
    training: pd.DataFrame
    target: NDArray[Any]
    records: pd.DataFrame
    """Rows as the original takes them: types of training, values past its range, unseen categories, gaps."""
    tells_types: bool
    """Whether packaging is given the training rows."""


def drawn(seed: int) -> Drawn:
    """The case of a seed."""
    draw = Draw(seed)
    count = int(draw.random.integers(2, 6))
    made = [_columns(draw, place) for place in range(count)]
    training = pd.DataFrame({name: column for name, column, _ in made})
    records = pd.DataFrame({name: column for name, _, column in made})
    task = draw.one(["two", "two", "three", "number", "number", "number", "alone"])
    target = _target(draw, training, task)
    model = _model(draw, training, task)
    if seed % 11 in (4, 5, 7):  # from numbers of their own: what other seeds draw stays as it was
        training, records, model = with_texts(Draw(seed + 1_000_003), training, records, model)
    return Drawn(
        model=model,
        training=training,
        target=target,
        records=records,
        tells_types=draw.chance(0.8),
    )


_numbers: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "price": lambda random, rows: np.round(np.exp(random.normal(3, 1, rows)), 2),
    "plain": lambda random, rows: random.normal(size=rows),
    "signed": lambda random, rows: np.round(random.normal(0, 30, rows), 1),
    "zeros": lambda random, rows: np.where(random.random(rows) < 0.5, 0.0, np.round(random.gamma(2, 50, rows), 2)),
    "id20m": lambda random, rows: 20_000_000.0 + random.integers(0, 400, rows),
    "id5b": lambda random, rows: 5_000_000_000 + random.integers(0, 500, rows),
    "small": lambda random, rows: random.integers(0, 7, rows),
    "int8": lambda random, rows: random.integers(-100, 100, rows).astype(np.int8),
    "uint8": lambda random, rows: random.integers(0, 250, rows).astype(np.uint8),
    "int32": lambda random, rows: random.integers(-2_000_000, 2_000_000, rows).astype(np.int32),
    "single": lambda random, rows: np.round(np.exp(random.normal(3, 1, rows)), 2).astype(np.float32),
    "flag": lambda random, rows: random.random(rows) < 0.4,
    "Int64": lambda random, rows: pd.array(random.integers(0, 40, rows), dtype="Int64"),
    "boolean": lambda random, rows: pd.array(random.random(rows) < 0.4, dtype="boolean"),
    "object": lambda random, rows: (random.random(rows) < 0.4).astype(object),
    "constant": lambda random, rows: np.full(rows, 3.25),
}  # fmt: skip
_texts = {
    "few": ["f", "m"],
    "job": list("abcdef"),
    "many": [f"shop {place}" for place in range(30)],
    "digits": ["1", "2", "10", "03"],
    "odd": ["", "a b", "ä", "nan", "None", "True"],
}
_whole = [1, 2, 5, 9]


def _columns(draw: Draw, place: int) -> tuple[str, pd.Series, pd.Series]:
    """A column by name, for training and for the records."""
    random = draw.random
    if draw.chance(0.4):
        kind = draw.one([*_texts, "whole"])
        known = _whole if kind == "whole" else _texts[kind]
        form: Any = (
            "category" if kind == "whole" else draw.one([object, object, object, "string", "category"])
        )
        strange = form is object and draw.chance(0.5)
        training, records = (
            [known[at] for at in random.integers(0, len(known), rows).tolist()]
            for rows in (rows_trained, rows_asked)
        )
        if strange:
            for at in random.integers(0, rows_asked, 10).tolist():
                records[at] = draw.one(["never seen", "zz"])
        kinds = pd.CategoricalDtype(draw.some(known, len(known))) if form == "category" else form
        one, other = pd.Series(training, dtype=kinds), pd.Series(records, dtype=kinds)
        nothing = draw.one([None, math.nan]) if form is object else None
        if draw.chance(0.35):
            _gaps(draw, (one, other) if draw.chance(0.8) else (other,), nothing)
        return f"{kind}_{place}", one, other
    kind = draw.one([*_numbers, "price", "price", "id20m"])
    one, other = (pd.Series(_numbers[kind](random, rows)) for rows in (rows_trained, rows_asked))
    if one.dtype == np.float64:
        values = other.to_numpy().copy()
        known = one.to_numpy()
        at = random.integers(0, rows_asked, rows_asked // 3)
        pairs = random.integers(0, len(known), (2, len(at)))
        values[at] = (known[pairs[0]] + known[pairs[1]]) / 2  # thresholds lie there
        values[random.integers(0, rows_asked, 6)] *= 7.0
        values[random.integers(0, rows_asked, 3)] = 0.0
        other = pd.Series(values)
    if (one.dtype.kind == "f" or kind in ("Int64", "boolean")) and draw.chance(0.35):
        _gaps(draw, (one, other) if draw.chance(0.8) else (other,), None)
    return f"{kind}_{place}", one, other


def _gaps(draw: Draw, columns: tuple[pd.Series, ...], nothing: Any) -> None:
    for column in columns:
        for at in np.flatnonzero(draw.random.random(len(column)) < 0.12).tolist():
            column.iloc[at] = nothing


def _target(draw: Draw, training: pd.DataFrame, task: str) -> NDArray[Any]:
    total = draw.random.normal(0, 0.3, len(training))
    for name in training:
        codes, _ = pd.factorize(training[name], sort=True)
        total = total + draw.random.normal() * (codes - codes.mean()) / (codes.std() + 1e-9)
    if task in ("number", "alone"):
        found = np.exp(total / 2) + 0.1
        return np.stack((found, total), axis=1) if task == "number" and draw.chance(0.08) else found
    if task == "three":
        return np.array(["low", "middle", "high"])[np.digitize(total, np.quantile(total, [0.3, 0.7]))]
    kind = draw.one([int, int, bool, float, str])
    places = (total > np.median(total)).astype(int)
    return np.array(["no", "yes"])[places] if kind is str else places.astype(kind)


def _model(draw: Draw, training: pd.DataFrame, task: str) -> Any:
    last = _estimator(draw, task)
    if draw.chance(0.15) and task in ("two", "three"):
        last = draw.one([
            lambda: CalibratedClassifierCV(last, method=draw.one(["sigmoid", "isotonic"]), cv=2),
            lambda: ensemble.VotingClassifier([("a", last), ("b", _estimator(draw, task))], voting="soft", weights=draw.one([None, (2, 1)])),
            lambda: ensemble.BaggingClassifier(last, n_estimators=3, random_state=0, max_features=draw.one([1.0, 0.7])),
            lambda: ensemble.StackingClassifier([("a", last), ("b", _estimator(draw, task))], cv=2, passthrough=draw.chance(0.3)),
        ])  # fmt: skip
    elif draw.chance(0.15) and task == "number":
        last = draw.one([
            lambda: ensemble.VotingRegressor([("a", last), ("b", _estimator(draw, task))]),
            lambda: ensemble.BaggingRegressor(last, n_estimators=3, random_state=0),
            lambda: ensemble.StackingRegressor([("a", last), ("b", _estimator(draw, task))], cv=2),
            lambda: TransformedTargetRegressor(last, func=np.log1p, inverse_func=np.expm1),
            lambda: TransformedTargetRegressor(last, func=np.log, inverse_func=np.exp),
            lambda: TransformedTargetRegressor(last, transformer=draw.one([StandardScaler, MinMaxScaler, RobustScaler])()),
        ])  # fmt: skip
    steps = [("columns", _by_columns(draw, training)), *_between(draw, task), ("model", last)]
    model: Any = Pipeline(steps)
    if task != "alone" and draw.chance(0.05):
        model = GridSearchCV(model, {"model": [last]}, cv=2)
    return model


def _by_columns(draw: Draw, training: pd.DataFrame) -> Any:
    numbers = [
        name for name in training if training[name].dtype.kind in "fiub" or name[:3] in ("Int", "boo", "obj")
    ]
    texts = [name for name in training if name not in numbers]
    parts: list[Any] = []
    while numbers:
        chosen = draw.some(numbers)
        numbers = [name for name in numbers if name not in chosen]
        parts.append(
            (f"numbers {len(parts)}", _number_steps(draw, training, chosen), _named(draw, training, chosen))
        )
    while texts:
        chosen = draw.some(texts)
        texts = [name for name in texts if name not in chosen]
        parts.append(
            (f"texts {len(parts)}", _text_steps(draw, training, chosen), _named(draw, training, chosen))
        )
    if len(parts) > 1 and draw.chance(0.15):
        parts.pop()
    if draw.chance(0.15):
        again = [name for name in training if training[name].dtype.kind in "fi"]
        if again:
            parts.append(("again", make_pipeline(SimpleImputer(), _scaler(draw)), draw.some(again)))
    weights = {parts[0][0]: 0.5} if draw.chance(0.1) else None
    return ColumnTransformer(
        parts, remainder="drop", transformer_weights=weights, sparse_threshold=draw.one([0.3, 0.0])
    )


def _named(draw: Draw, training: pd.DataFrame, chosen: list[str]) -> Any:
    """The columns by name, or by place."""
    return [training.columns.get_loc(name) for name in chosen] if draw.chance(0.15) else chosen


def _scaler(draw: Draw) -> Any:
    return draw.one([
        StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler(), MinMaxScaler((-1, 1), clip=True), MaxAbsScaler(), RobustScaler(),
        QuantileTransformer(n_quantiles=20), QuantileTransformer(n_quantiles=20, output_distribution="normal"), PowerTransformer(),
    ])  # fmt: skip


def _number_steps(draw: Draw, training: pd.DataFrame, chosen: list[str]) -> Any:
    steps: list[Any] = []
    if (training[chosen].isna().to_numpy().any() and draw.chance(0.85)) or draw.chance(0.3):
        steps.append(draw.one([
            SimpleImputer(), SimpleImputer(strategy="median"), SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value=-1),
            SimpleImputer(add_indicator=True), FeatureUnion([("filled", SimpleImputer()), ("gaps", MissingIndicator(features="all"))]),
        ]))  # fmt: skip
    choices = [
        lambda: _scaler(draw), lambda: _scaler(draw), lambda: _scaler(draw),
        lambda: FunctionTransformer(draw.one(functions)), lambda: FunctionTransformer(draw.one(functions), validate=True),
        lambda: KBinsDiscretizer(4, encode=draw.one(["ordinal", "onehot-dense", "onehot"]), strategy=draw.one(["uniform", "quantile"]), quantile_method="averaged_inverted_cdf"),
        lambda: Binarizer(threshold=draw.one([0.0, 3.0, 20.5])), lambda: SimpleImputer(missing_values=0, strategy="mean"),
        lambda: PolynomialFeatures(2, interaction_only=draw.chance(0.3), include_bias=draw.chance(0.5)), lambda: Normalizer(),
        lambda: OneHotEncoder(handle_unknown="ignore"), lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        lambda: VarianceThreshold(), lambda: PCA(1), lambda: FunctionTransformer(), lambda: "passthrough",
        lambda: FeatureUnion([("a", _scaler(draw)), ("b", _scaler(draw))]),
    ]  # fmt: skip
    more = [draw.one(choices) for _ in range(int(draw.random.integers(0, 3)))]
    if isinstance(more[-1] if more else None, PolynomialFeatures) and isinstance(more[0], OneHotEncoder):
        more.pop()  # products of hundreds of columns
    steps += more
    if not steps:
        return "passthrough"
    return make_pipeline(*steps) if len(steps) > 1 or draw.chance(0.3) else steps[0]


def _text_steps(draw: Draw, training: pd.DataFrame, chosen: list[str]) -> Any:
    steps: list[Any] = []
    if all(training[name].dtype == object for name in chosen) and draw.chance(0.5):
        steps.append(
            draw.one(
                [
                    SimpleImputer(strategy="most_frequent"),
                    SimpleImputer(strategy="constant", fill_value="none"),
                ]
            )
        )
    steps.append(draw.one([
        OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(handle_unknown="ignore", sparse_output=False), OneHotEncoder(),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.1), OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3),
        OneHotEncoder(drop="first", handle_unknown="ignore"), OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
        OrdinalEncoder(), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=math.nan),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99, min_frequency=0.1), TargetEncoder(random_state=0), TargetEncoder(smooth=2.0, random_state=0),
    ]))  # fmt: skip
    if draw.chance(0.2):
        steps.append(
            draw.one(
                [
                    StandardScaler(with_mean=False),
                    MaxAbsScaler(),
                    SimpleImputer(),
                    Binarizer(),
                    FunctionTransformer(np.sign),
                ]
            )
        )
    return make_pipeline(*steps) if len(steps) > 1 else steps[0]


def _between(draw: Draw, task: str) -> list[Any]:
    if not draw.chance(0.25):
        return []
    score = f_classif if task in ("two", "three") else f_regression
    return [("between", draw.one([
        lambda: TruncatedSVD(1, random_state=0), lambda: SelectKBest(score, k=1) if task != "alone" else VarianceThreshold(), lambda: MaxAbsScaler(),
        lambda: StandardScaler(with_mean=False), lambda: SimpleImputer(), lambda: Binarizer(), lambda: Normalizer(),
    ]))]  # fmt: skip


def _estimator(draw: Draw, task: str) -> Any:
    depth, few = draw.one([2, 4, 6, None]), {"n_estimators": 5, "random_state": 0}
    if task == "alone":
        return draw.one([
            lambda: ensemble.IsolationForest(n_estimators=6, random_state=0), lambda: svm.OneClassSVM(kernel=draw.one(kernels), max_iter=2000),
            lambda: KMeans(3, n_init=1, random_state=0), lambda: GaussianMixture(2, random_state=0), lambda: linear_model.SGDOneClassSVM(random_state=0),
        ])  # fmt: skip
    if task == "number":
        return draw.one([
            lambda: tree.DecisionTreeRegressor(max_depth=depth, random_state=0), lambda: ensemble.RandomForestRegressor(max_depth=depth, **few),
            lambda: ensemble.ExtraTreesRegressor(max_depth=depth, **few), lambda: ensemble.GradientBoostingRegressor(loss=draw.one(["squared_error", "huber"]), **few),
            lambda: ensemble.HistGradientBoostingRegressor(max_iter=5, loss=draw.one(["squared_error", "poisson"])),
            lambda: xgboost.XGBRegressor(n_estimators=5, max_depth=depth, n_jobs=1), lambda: lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
            lambda: ensemble.AdaBoostRegressor(**few), lambda: linear_model.Ridge(), lambda: linear_model.LinearRegression(), lambda: linear_model.Lasso(0.1),
            lambda: linear_model.ElasticNet(0.1), lambda: linear_model.HuberRegressor(), lambda: linear_model.PoissonRegressor(), lambda: linear_model.BayesianRidge(),
            lambda: linear_model.GammaRegressor(), lambda: linear_model.QuantileRegressor(), lambda: svm.SVR(kernel=draw.one(kernels), max_iter=2000),
            lambda: svm.NuSVR(kernel=draw.one(kernels), max_iter=2000), lambda: svm.LinearSVR(random_state=0), lambda: neighbors.KNeighborsRegressor(3, weights=draw.one(["uniform", "distance"])),
            lambda: neural_network.MLPRegressor(hidden_layer_sizes=(5,), max_iter=40, random_state=0),
        ])  # fmt: skip
    return draw.one([
        lambda: tree.DecisionTreeClassifier(max_depth=depth, random_state=0), lambda: ensemble.RandomForestClassifier(max_depth=depth, **few),
        lambda: ensemble.ExtraTreesClassifier(max_depth=depth, **few), lambda: ensemble.GradientBoostingClassifier(**few),
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=5), lambda: ensemble.AdaBoostClassifier(**few),
        lambda: xgboost.XGBClassifier(n_estimators=5, max_depth=depth, n_jobs=1), lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1),
        lambda: linear_model.LogisticRegression(), lambda: linear_model.RidgeClassifier(), lambda: linear_model.SGDClassifier(random_state=0),
        lambda: linear_model.SGDClassifier(loss=draw.one(["log_loss", "modified_huber"]), random_state=0), lambda: linear_model.Perceptron(random_state=0),
        lambda: svm.SVC(kernel=draw.one(kernels), max_iter=2000), lambda: svm.SVC(probability=True, random_state=0, max_iter=2000), lambda: svm.LinearSVC(random_state=0),
        lambda: svm.NuSVC(nu=0.2, kernel=draw.one(kernels), max_iter=2000), lambda: naive_bayes.GaussianNB(), lambda: naive_bayes.BernoulliNB(), lambda: LinearDiscriminantAnalysis(),
        lambda: QuadraticDiscriminantAnalysis(reg_param=0.1), lambda: neighbors.KNeighborsClassifier(3), lambda: neural_network.MLPClassifier(hidden_layer_sizes=(5,), max_iter=40, random_state=0),
    ])  # fmt: skip
