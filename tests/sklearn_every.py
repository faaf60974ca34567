"""Every estimator that scikit-learn has, each in the simplest pipeline that it can stand in."""

import inspect
import textwrap
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # IterativeImputer is among all then
from sklearn.feature_selection import f_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from penstock.engine.models.packaging.sklearn.operators.refused_kinds import why_not
from tests.sklearn_tables import cost, late

_options: Final[dict[str, dict[str, Any]]] = {
    "AdaBoostClassifier": {"n_estimators": 4},
    "AdaBoostRegressor": {"n_estimators": 4},
    "BaggingClassifier": {"n_estimators": 4},
    "BaggingRegressor": {"n_estimators": 4},
    "CCA": {"n_components": 1},
    "CalibratedClassifierCV": {"estimator": LogisticRegression()},
    "ClassifierChain": {"estimator": LogisticRegression()},
    "DictionaryLearning": {"n_components": 2},
    "ExtraTreesClassifier": {"n_estimators": 4},
    "ExtraTreesRegressor": {"n_estimators": 4},
    "GaussianRandomProjection": {"n_components": 2},
    "GradientBoostingClassifier": {"n_estimators": 4},
    "GradientBoostingRegressor": {"n_estimators": 4},
    "GridSearchCV": {"estimator": Ridge(), "param_grid": {"alpha": [1.0]}},
    "HistGradientBoostingClassifier": {"max_iter": 4},
    "HistGradientBoostingRegressor": {"max_iter": 4},
    "HashingVectorizer": {"n_features": 8},
    "IsolationForest": {"n_estimators": 4},
    "KBinsDiscretizer": {"quantile_method": "averaged_inverted_cdf"},
    "KernelPCA": {"n_components": 2, "kernel": "rbf"},
    "KernelRidge": {"kernel": "rbf"},
    "LatentDirichletAllocation": {"n_components": 2},
    "LocalOutlierFactor": {"novelty": True},
    "MLPClassifier": {"hidden_layer_sizes": (4,), "max_iter": 40},
    "MLPRegressor": {"hidden_layer_sizes": (4,), "max_iter": 40},
    "MiniBatchDictionaryLearning": {"n_components": 2},
    "MiniBatchNMF": {"n_components": 2},
    "MultiOutputClassifier": {"estimator": LogisticRegression()},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "NMF": {"n_components": 2},
    "Nystroem": {"n_components": 6},
    "OneVsOneClassifier": {"estimator": LogisticRegression()},
    "OneVsRestClassifier": {"estimator": LogisticRegression()},
    "OutputCodeClassifier": {"estimator": LogisticRegression()},
    "FixedThresholdClassifier": {"estimator": LogisticRegression()},
    "TunedThresholdClassifierCV": {"estimator": LogisticRegression()},
    "FrozenEstimator": {"estimator": None},
    "PLSCanonical": {"n_components": 1},
    "PLSRegression": {"n_components": 1},
    "PLSSVD": {"n_components": 1},
    "PolynomialCountSketch": {"n_components": 6},
    "IsotonicRegression": {"out_of_bounds": "clip"},
    "MissingIndicator": {"features": "all"},
    "RBFSampler": {"n_components": 6},
    "RFE": {"estimator": Ridge()},
    "RFECV": {"estimator": Ridge()},
    "RadiusNeighborsClassifier": {"radius": 2.0},
    "RadiusNeighborsRegressor": {"radius": 2.0},
    "RandomForestClassifier": {"n_estimators": 4},
    "RandomForestRegressor": {"n_estimators": 4},
    "RandomTreesEmbedding": {"n_estimators": 3, "max_depth": 3},
    "RandomizedSearchCV": {"estimator": Ridge(), "param_distributions": {"alpha": [1.0]}, "n_iter": 1},
    "RegressorChain": {"estimator": Ridge()},
    "SelectFdr": {"score_func": f_regression},
    "SelectFpr": {"score_func": f_regression},
    "SelectFwe": {"score_func": f_regression},
    "SelectFromModel": {"estimator": Ridge()},
    "SelectPercentile": {"score_func": f_regression, "percentile": 50},
    "SelectKBest": {"k": 1},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SequentialFeatureSelector": {"estimator": Ridge(), "n_features_to_select": 1},
    "SkewedChi2Sampler": {"n_components": 6},
    "SparseCoder": {"dictionary": np.array([[0.6, 0.8], [0.8, 0.6]])},
    "SparsePCA": {"n_components": 2},
    "SparseRandomProjection": {"n_components": 2},
    "StackingClassifier": {"estimators": [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(3.0))]},
    "TruncatedSVD": {"n_components": 2},
    "VotingClassifier": {"estimators": [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(3.0))]},
    "GenericUnivariateSelect": {"mode": "k_best", "param": 1},
    "FunctionTransformer": {"func": np.log1p},
    "FeatureUnion": {"transformer_list": [("a", MinMaxScaler())]},
    "ColumnTransformer": {"transformers": [("a", MinMaxScaler(), [0, 1])]},
    "Pipeline": {"steps": [("a", Ridge())]},
    "LabelPropagation": {"gamma": 2.0},
    "LabelSpreading": {"gamma": 2.0},
}  # fmt: skip
_roles: Final = ("classifier", "regressor", "transformer", "cluster")
_alone: Final = frozenset(
    {
        "KernelCenterer", "LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer", "PatchExtractor", "SpectralBiclustering",
        "SpectralCoclustering",
    }
)  # fmt: skip
"""What takes no rows of features: fitted on what it takes."""
_never_a_step: Final = frozenset(
    {"CCA", "IsotonicRegression", "PLSCanonical", "PLSRegression", "PLSSVD", "TSNE"}
)
"""scikit-learn itself fits no pipeline in which another step follows them."""
_texts: Final = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_records: Final = ("DictVectorizer", "FeatureHasher")
_encoders: Final = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
_of_classes: Final = ("NeighborhoodComponentsAnalysis",)

_nothing = "predicts nothing for a new record"
_clusters = "answers clusters alone, without the distance of a record from each"
_step = "stands before another step"
refused: Final[dict[tuple[str, str], str]] = {
    **dict.fromkeys(
        [
            (name, "last")
            for name in (
                "AgglomerativeClustering", "ClassicalMDS", "DBSCAN", "EmpiricalCovariance", "FeatureAgglomeration", "GraphicalLasso",
                "GraphicalLassoCV", "HDBSCAN", "KernelDensity", "LedoitWolf", "MDS", "MinCovDet", "NearestNeighbors", "OAS", "OPTICS",
                "ShrunkCovariance", "SpectralClustering", "SpectralEmbedding", "TSNE", *sorted(_alone),
            )
        ],
        _nothing,
    ),
    ("AffinityPropagation", "last"): _clusters,
    ("Birch", "last"): _clusters,
    ("MeanShift", "last"): _clusters,
    **{(name, "step"): _step for name in ("StackingClassifier", "StackingRegressor", "VotingClassifier", "VotingRegressor")},
    ("ClassifierChain", "last"): "several targets",
    ("MultiOutputClassifier", "last"): "several targets",
    ("OutputCodeClassifier", "last"): "neither probabilities nor a decision",
    ("FixedThresholdClassifier", "last"): "a threshold of its own",
    ("TunedThresholdClassifierCV", "last"): "a threshold of its own",
    ("HashingVectorizer", "step"): "keeps no vocabulary",
    **{(name, "last" if name == "BisectingKMeans" else "step"): why for name, why in why_not.items()},
    ("DictVectorizer", "step"): "is given no table",
    ("FeatureHasher", "step"): "is given no table",
}  # fmt: skip
"""By name and place in the pipeline: what the refusal says."""


def every() -> list[tuple[str, str]]:
    """Each name, with each place that it can stand in: as the last step, or before one."""
    kinds_of: dict[str, set[str]] = {name: set() for name, _ in all_estimators()}
    for role in _roles:
        for name, _ in all_estimators(role):
            kinds_of[name].add(role)
    found = []
    for name, roles in sorted(kinds_of.items()):
        roles |= {"transformer"} if name in _texts else set()
        is_step = "transformer" in roles and name not in _never_a_step and name not in _alone
        if roles != {"transformer"} or not is_step:
            found.append((name, "last"))
        if is_step:
            found.append((name, "step"))
    return [each for each in found if each != ("PLSSVD", "last")]


def built(name: str, place: str, training: pd.DataFrame) -> tuple[Any, Any]:
    """A fitted pipeline around it, and the rows that it takes."""
    kind = dict(all_estimators())[name]
    options = dict(_options.get(name, {}))
    rows: Any = training[["amount", "age"]]
    if name == "FrozenEstimator":
        options = {"estimator": Ridge().fit(MinMaxScaler().fit_transform(rows), cost(training))}
    if "random_state" in inspect.signature(kind).parameters:
        options["random_state"] = 0
    estimator = kind(**options)
    if name in _alone:
        given: Any = {
            "KernelCenterer": np.eye(3), "MultiLabelBinarizer": [["a"], ["b"]], "PatchExtractor": np.zeros((2, 4, 4)),
        }.get(name, late(training))  # fmt: skip
        return estimator.fit(np.eye(6) + 0.1 if name.startswith("Spectral") else given), rows
    if name in _records:
        records = training[["job", "age"]].to_dict("records")
        return make_pipeline(estimator, Ridge()).fit(records, cost(training)), rows
    if name in _texts:
        rows = training[["note"]]
        return make_pipeline(ColumnTransformer([("words", estimator, "note")]), Ridge()).fit(
            rows, cost(training)
        ), rows
    if name in _encoders:
        rows = training[["sex", "job"]]
        return make_pipeline(estimator, Ridge()).fit(rows, cost(training)), rows
    if name == "IsotonicRegression":
        rows = training[["amount"]]
    is_classifier = name in dict(all_estimators("classifier")) or name in _of_classes
    target = late(training) if is_classifier else cost(training)
    if name in ("ClassifierChain", "MultiOutputClassifier"):
        target = np.stack((target, 1 - target), axis=1)
    if name in ("MultiOutputRegressor", "RegressorChain") or name.startswith("MultiTask"):
        target = np.stack((target, -target), axis=1)
    if place == "last":
        model = make_pipeline(MinMaxScaler(), estimator)
    else:
        model = make_pipeline(
            MinMaxScaler(clip=True), estimator, LogisticRegression() if is_classifier else Ridge()
        )
    return model.fit(rows, target), rows


def rows_of_names() -> list[str]:
    """What docs/models.md says of each name."""
    packaged = {
        place: [name for name, at in every() if at == place and (name, at) not in refused]
        for place in ("last", "step")
    }
    lines = [
        *textwrap.wrap(f"As the model: {', '.join(packaged['last'])}.", 160),
        "",
        *textwrap.wrap(f"As a step before one: {', '.join(packaged['step'])}.", 160),
        "",
        "| not packaged | as | the refusal says |",
        "|---|---|---|",
    ]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (name, place), why in sorted(refused.items()):
        by_reason.setdefault((place, why), []).append(name)
    for (place, why), names in sorted(by_reason.items(), key=lambda item: item[1]):
        lines.append(f"| {', '.join(names)} | {'the model' if place == 'last' else 'a step'} | {why} |")
    return lines
