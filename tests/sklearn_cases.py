"""scikit-learn models as people have them: families times kinds of data, all from one seed."""

from collections.abc import Callable, Iterator
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import FactorAnalysis, FastICA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes IterativeImputer importable
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    Lasso,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tests.sklearn_tables import Kind, cost, grade, kinds, late, numbers, texts


def _encoded(kind: Kind, last: Any, *, scaler: Any = None, encoder: Any = None) -> Pipeline:
    """Numbers imputed and scaled, texts imputed and encoded, and a last step."""
    encoder = encoder or OneHotEncoder(handle_unknown="ignore")
    parts: list[Any] = [
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), scaler or StandardScaler()), numbers),
        ("texts", make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), texts),
    ]
    if kind.flags:
        parts += [("codes", OneHotEncoder(handle_unknown="ignore"), ["code", "vip"])]
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", last)])


def _ordinal(kind: Kind, last: Any, **options: Any) -> Pipeline:
    """Texts by number, unknown and missing ones as -1 and NaN, the numbers passed on."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, **options)
    parts: list[Any] = [("texts", encoder, texts), ("numbers", "passthrough", numbers)]
    if kind.flags:
        parts += [("codes", "passthrough", ["code", "vip"])]
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", last)])


def _missing_or_not(kind: Kind, last: Any) -> Pipeline:
    """Marks of missing numbers by a function of NumPy, beside the numbers imputed."""
    del kind
    parts: list[Any] = [
        ("marks", FunctionTransformer(np.isnan), numbers),
        ("numbers", SimpleImputer(), numbers),
    ]
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", last)])


def _marks(kind: Kind, last: Any) -> Pipeline:
    """Numbers imputed, and marks of where they were missing."""
    del kind
    both = FeatureUnion([("filled", SimpleImputer()), ("marks", MissingIndicator(features="all"))])
    return Pipeline([("columns", ColumnTransformer([("numbers", both, numbers)])), ("model", last)])


def _noted(kind: Kind, vectorizer: Any, last: Any, *, fills: bool = False, dense: bool = False) -> Pipeline:
    """Words of a text beside numbers and categories."""
    if fills:
        filled = SimpleImputer(strategy="constant", fill_value="no text")
        vectorizer = make_pipeline(filled, FunctionTransformer(np.ravel), vectorizer)
    parts: list[Any] = [
        ("words", vectorizer, ["note"] if fills else "note"),
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
    ]
    if kind.flags:
        parts += [("codes", "passthrough", ["code", "vip"])]
    columns = ColumnTransformer(parts, sparse_threshold=0.0 if dense else 0.9)
    return Pipeline([("columns", columns), ("model", last)])


def _estimated(kind: Kind, imputer: Any, last: Any) -> Pipeline:
    """Numbers that are missing are estimated from the others, scaled alike before; texts encoded."""
    parts: list[Any] = [
        ("numbers", make_pipeline(StandardScaler(), imputer), ["age", "amount", "code"]),
        ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
    ]
    if kind.flags:
        parts += [("vip", OneHotEncoder(handle_unknown="ignore"), ["vip"])]
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", last)])


def _numeric(kind: Kind, *steps: Any) -> Pipeline:
    """Numbers alone, imputed."""
    del kind
    parts = ColumnTransformer([("numbers", SimpleImputer(strategy="median"), numbers)])
    return make_pipeline(parts, *steps)


Target = Callable[[pd.DataFrame], np.ndarray]
Build = Callable[[Kind], Any]

families: dict[str, tuple[Build, Target]] = {
    "one-hot, random forest": (lambda kind: _encoded(kind, RandomForestClassifier(6, max_depth=5, random_state=0)), late),
    "one-hot, random forest, three classes": (lambda kind: _encoded(kind, RandomForestClassifier(6, max_depth=5, random_state=0)), grade),
    "one-hot, forest regression": (lambda kind: _encoded(kind, RandomForestRegressor(5, max_depth=5, random_state=0)), cost),
    "one-hot, extra trees": (lambda kind: _encoded(kind, ExtraTreesClassifier(6, max_depth=5, random_state=0)), late),
    "one-hot, gradient boosting": (lambda kind: _encoded(kind, GradientBoostingClassifier(n_estimators=6, random_state=0)), late),
    "one-hot, histogram boosting": (lambda kind: _encoded(kind, HistGradientBoostingRegressor(max_iter=6), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)), cost),
    "one-hot, XGBoost": (lambda kind: _encoded(kind, xgboost.XGBClassifier(n_estimators=6, max_depth=4)), late),
    "one-hot, XGBoost regression": (lambda kind: _encoded(kind, xgboost.XGBRegressor(n_estimators=6, max_depth=4)), cost),
    "one-hot, LightGBM": (lambda kind: _encoded(kind, lightgbm.LGBMClassifier(n_estimators=6, verbose=-1)), late),
    "one-hot infrequent, forest": (lambda kind: _encoded(kind, RandomForestClassifier(6, max_depth=5, random_state=0), encoder=OneHotEncoder(min_frequency=0.18, handle_unknown="infrequent_if_exist")), late),
    "one-hot dropping the first, boosting": (lambda kind: _encoded(kind, GradientBoostingRegressor(n_estimators=6, random_state=0), encoder=OneHotEncoder(drop="first", handle_unknown="ignore")), cost),
    "ordinal, histogram boosting": (lambda kind: _ordinal(kind, HistGradientBoostingClassifier(max_iter=6)), late),
    "ordinal, histogram boosting by category": (lambda kind: _ordinal(kind, HistGradientBoostingClassifier(max_iter=6, categorical_features=[0, 1])), late),
    "ordinal, LightGBM": (lambda kind: _ordinal(kind, lightgbm.LGBMRegressor(n_estimators=6, verbose=-1)), cost),
    "ordinal with codes for gaps, XGBoost": (lambda kind: _ordinal(kind, xgboost.XGBClassifier(n_estimators=6, max_depth=4), encoded_missing_value=-2), late),
    "target encoder, histogram boosting": (lambda kind: _encoded(kind, HistGradientBoostingRegressor(max_iter=6), encoder=TargetEncoder(random_state=0)), cost),
    "min-max scaler, tree": (lambda kind: _encoded(kind, DecisionTreeClassifier(max_depth=5), scaler=MinMaxScaler()), late),
    "robust scaler, tree": (lambda kind: _encoded(kind, DecisionTreeRegressor(max_depth=5), scaler=RobustScaler()), cost),
    "quantile transformer, forest": (lambda kind: _encoded(kind, RandomForestRegressor(5, max_depth=4, random_state=0), scaler=QuantileTransformer(n_quantiles=40)), cost),
    "bins, forest": (lambda kind: _encoded(kind, RandomForestClassifier(5, max_depth=4, random_state=0), scaler=KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")), late),
    "bins one-hot, tree": (lambda kind: _encoded(kind, DecisionTreeClassifier(max_depth=4), scaler=KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")), late),
    "bins of one width, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=KBinsDiscretizer(4, strategy="uniform", encode="ordinal")), cost),
    "bins of clusters one-hot, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=KBinsDiscretizer(4, strategy="kmeans", random_state=0)), cost),
    "above a threshold, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=Binarizer(threshold=30.0)), cost),
    "missing or not, ridge": (lambda kind: _missing_or_not(kind, Ridge()), cost),
    "missing or not, forest": (lambda kind: _missing_or_not(kind, RandomForestRegressor(5, max_depth=5, random_state=0)), cost),
    "missing marks, ridge": (lambda kind: _marks(kind, Ridge()), cost),
    "independent components, ridge": (lambda kind: _numeric(kind, StandardScaler(), FastICA(2, random_state=0), Ridge()), cost),
    "factor analysis, ridge": (lambda kind: _numeric(kind, StandardScaler(), FactorAnalysis(1), Ridge()), cost),
    "random search of lines": (lambda kind: RandomizedSearchCV(_encoded(kind, Ridge()), {"model__alpha": [1.0, 2.0]}, n_iter=2, cv=2, random_state=0), cost),
    "self-training, logistic": (lambda kind: _encoded(kind, SelfTrainingClassifier(LogisticRegression())), late),
    "weighted vote of lines": (lambda kind: _encoded(kind, VotingRegressor([("a", Ridge()), ("b", Lasso(0.01))], weights=[1, 3])), cost),
    "degrees, forest": (lambda kind: _encoded(kind, RandomForestRegressor(5, max_depth=5, random_state=0), scaler=FunctionTransformer(np.deg2rad)), cost),
    "absolute, forest": (lambda kind: _encoded(kind, RandomForestRegressor(5, max_depth=5, random_state=0), scaler=FunctionTransformer(np.absolute)), cost),
    "log1p, forest": (lambda kind: _encoded(kind, RandomForestRegressor(5, max_depth=5, random_state=0), scaler=FunctionTransformer(np.log1p)), cost),
    "selection, forest": (lambda kind: make_pipeline(_encoded(kind, SelectKBest(f_classif, k=4)), RandomForestClassifier(5, max_depth=4, random_state=0)), late),
    "bagging": (lambda kind: _encoded(kind, BaggingClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=5, max_features=0.7, random_state=0)), late),
    "bagging regression": (lambda kind: _encoded(kind, BaggingRegressor(n_estimators=4, random_state=0)), cost),
    "AdaBoost": (lambda kind: _encoded(kind, AdaBoostClassifier(n_estimators=6, random_state=0)), late),
    "AdaBoost of three classes": (lambda kind: _encoded(kind, AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=6, random_state=0)), grade),
    "AdaBoost regression": (lambda kind: _encoded(kind, AdaBoostRegressor(n_estimators=4, random_state=0)), cost),
    "soft vote of pipelines": (lambda kind: VotingClassifier([("a", _encoded(kind, RandomForestClassifier(4, max_depth=4, random_state=0))), ("b", _encoded(kind, DecisionTreeClassifier(max_depth=4)))], voting="soft", weights=[2, 1]), late),
    "vote of regressors": (lambda kind: VotingRegressor([("a", _encoded(kind, RandomForestRegressor(4, max_depth=4, random_state=0))), ("b", _encoded(kind, GradientBoostingRegressor(n_estimators=4)))]), cost),
    "soft vote with a line": (lambda kind: VotingClassifier([("a", _encoded(kind, RandomForestClassifier(4, max_depth=4, random_state=0))), ("b", _encoded(kind, LogisticRegression()))], voting="soft"), late),
    "stacking": (lambda kind: _encoded(kind, StackingClassifier([("a", RandomForestClassifier(4, max_depth=4, random_state=0)), ("b", LogisticRegression())], cv=3)), late),
    "calibrated forest, isotonic": (lambda kind: _encoded(kind, CalibratedClassifierCV(RandomForestClassifier(4, max_depth=4, random_state=0), method="isotonic", cv=3)), late),
    "calibrated XGBoost, sigmoid": (lambda kind: _encoded(kind, CalibratedClassifierCV(xgboost.XGBClassifier(n_estimators=4, max_depth=3), cv=3)), late),
    "calibrated boosting, sigmoid": (lambda kind: _encoded(kind, CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=4, loss="exponential", random_state=0), cv=3)), late),
    "calibrated boosting of one fold, sigmoid": (lambda kind: _encoded(kind, CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5), cv=3, ensemble=False), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)), late),
    "calibrated AdaBoost of three classes, isotonic": (lambda kind: _encoded(kind, CalibratedClassifierCV(AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=4, random_state=0), method="isotonic", cv=3)), grade),
    "calibrated pipelines of forests of three classes": (lambda kind: CalibratedClassifierCV(_encoded(kind, ExtraTreesClassifier(4, max_depth=4, random_state=0)), cv=3), grade),
    "calibrated XGBoost of three classes": (lambda kind: _encoded(kind, CalibratedClassifierCV(xgboost.XGBClassifier(n_estimators=4, max_depth=3), cv=3)), lambda frame: np.searchsorted(["high", "low", "middle"], grade(frame))),
    "calibrated LightGBM, isotonic": (lambda kind: _encoded(kind, CalibratedClassifierCV(lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1), method="isotonic", cv=3)), late),
    "calibrated pipelines of logistic": (lambda kind: CalibratedClassifierCV(_encoded(kind, LogisticRegression()), cv=3), late),
    "calibrated linear SVC": (lambda kind: _encoded(kind, CalibratedClassifierCV(LinearSVC(), cv=3)), grade),
    "grid search": (lambda kind: GridSearchCV(_encoded(kind, RandomForestClassifier(4, random_state=0)), {"model__max_depth": [2, 4]}, cv=2), late),
    "forest behind a projection": (lambda kind: make_pipeline(_encoded(kind, TruncatedSVD(3, random_state=0)), RandomForestClassifier(4, max_depth=4, random_state=0)), late),
    "XGBoost behind a projection": (lambda kind: make_pipeline(_encoded(kind, TruncatedSVD(3, random_state=0)), xgboost.XGBClassifier(n_estimators=4, max_depth=3)), late),
    "target by its logarithm": (lambda kind: TransformedTargetRegressor(_encoded(kind, GradientBoostingRegressor(n_estimators=5)), func=np.log, inverse_func=np.exp), cost),
    "target by log1p, ridge": (lambda kind: TransformedTargetRegressor(_encoded(kind, Ridge()), func=np.log1p, inverse_func=np.expm1), cost),
    "target scaled, forest": (lambda kind: TransformedTargetRegressor(_encoded(kind, RandomForestRegressor(4, max_depth=4, random_state=0)), transformer=StandardScaler()), cost),
    "several outputs of boosting": (lambda kind: _encoded(kind, MultiOutputRegressor(GradientBoostingRegressor(n_estimators=4))), lambda frame: np.stack((cost(frame), -2 * cost(frame)), axis=1)),
    "chain of lines": (lambda kind: _encoded(kind, RegressorChain(Ridge(), order=[1, 0])), lambda frame: np.stack((cost(frame), -2 * cost(frame)), axis=1)),
    "logistic": (lambda kind: _encoded(kind, LogisticRegression()), late),
    "logistic of three classes": (lambda kind: _encoded(kind, LogisticRegression()), grade),
    "logistic, classes true and false": (lambda kind: _encoded(kind, LogisticRegression()), lambda frame: late(frame).astype(bool)),
    "forest, classes true and false": (lambda kind: _encoded(kind, RandomForestClassifier(4, max_depth=4, random_state=0)), lambda frame: late(frame).astype(bool)),
    "forest, classes 0.0 and 1.0": (lambda kind: make_pipeline(_encoded(kind, TruncatedSVD(3, random_state=0)), RandomForestClassifier(4, max_depth=4, random_state=0)), lambda frame: late(frame).astype(float)),
    "ridge": (lambda kind: _encoded(kind, Ridge()), cost),
    "ridge of target-encoded texts": (lambda kind: _encoded(kind, Ridge(), encoder=TargetEncoder(random_state=0)), cost),
    "ridge of powers and products": (lambda kind: _encoded(kind, make_pipeline(PolynomialFeatures(2), Ridge()), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)), cost),
    "power transformer, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=PowerTransformer()), cost),
    "Poisson regression": (lambda kind: _encoded(kind, PoissonRegressor()), cost),
    "ridge classifier": (lambda kind: _encoded(kind, RidgeClassifier()), late),
    "linear SVC": (lambda kind: _encoded(kind, LinearSVC()), late),
    "linear SVC of three classes": (lambda kind: _encoded(kind, LinearSVC()), grade),
    "SGD": (lambda kind: _encoded(kind, SGDClassifier(random_state=0)), late),
    "perceptron": (lambda kind: _encoded(kind, Perceptron(random_state=0)), late),
    "SVC": (lambda kind: _encoded(kind, SVC()), late),
    "SVC of three classes, sigmoid": (lambda kind: _encoded(kind, SVC(kernel="sigmoid")), grade),
    "SVC with probabilities": (lambda kind: _encoded(kind, SVC(kernel="poly", probability=True, random_state=0)), late),
    "NuSVC of three classes with probabilities": (lambda kind: _encoded(kind, NuSVC(nu=0.2, probability=True, random_state=0)), grade),
    "SVR, polynomial": (lambda kind: _encoded(kind, SVR(kernel="poly")), cost),
    "NuSVR, sigmoid": (lambda kind: _encoded(kind, NuSVR(kernel="sigmoid")), cost),
    "naive Bayes": (lambda kind: _encoded(kind, GaussianNB(), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)), late),
    "discriminant analysis": (lambda kind: _numeric(kind, StandardScaler(), LinearDiscriminantAnalysis()), late),
    "neighbours": (lambda kind: _encoded(kind, KNeighborsClassifier(3)), late),
    "neighbours, regression": (lambda kind: _numeric(kind, StandardScaler(), KNeighborsRegressor(3)), cost),
    "neighbours by distance": (lambda kind: _encoded(kind, KNeighborsClassifier(4, weights="distance")), grade),
    "neighbours by distance, regression": (lambda kind: _encoded(kind, KNeighborsRegressor(3, weights="distance", p=1)), cost),
    "Gaussian process of classes": (lambda kind: _encoded(kind, GaussianProcessClassifier(1.0 * RBF(1.5), optimizer=None)), late),
    "neural net": (lambda kind: _encoded(kind, MLPClassifier((6,), max_iter=60, random_state=0)), late),
    "union of scalers, forest": (lambda kind: _numeric(kind, FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]), RandomForestRegressor(4, max_depth=4, random_state=0)), cost),
    "words, logistic": (lambda kind: _noted(kind, TfidfVectorizer(), LogisticRegression(), fills=True), late),
    "pairs of words, logistic": (lambda kind: _noted(kind, TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words=["slow", "love"], min_df=2), LogisticRegression()), grade),
    "characters, linear SVC": (lambda kind: _noted(kind, TfidfVectorizer(analyzer="char", ngram_range=(1, 2), norm="l1", strip_accents="ascii"), LinearSVC()), late),
    "words and characters, SGD": (lambda kind: _noted(kind, FeatureUnion([("a", CountVectorizer(strip_accents="unicode")), ("b", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=60))]), SGDClassifier(loss="log_loss", random_state=0)), late),
    "topics of words, ridge": (lambda kind: _noted(kind, make_pipeline(TfidfVectorizer(lowercase=False), TruncatedSVD(3, random_state=0)), Ridge(), fills=True), cost),
    "counted words, naive Bayes": (lambda kind: Pipeline([("words", ColumnTransformer([("note", CountVectorizer(), "note")])), ("model", MultinomialNB())]), late),
    "weighted words, complement naive Bayes": (lambda kind: Pipeline([("words", ColumnTransformer([("note", make_pipeline(CountVectorizer(), TfidfTransformer()), "note")])), ("model", ComplementNB())]), grade),
    "words there or not, Bernoulli naive Bayes": (lambda kind: Pipeline([("words", ColumnTransformer([("note", CountVectorizer(binary=True), "note")])), ("model", BernoulliNB())]), late),
    "words, forest": (lambda kind: _noted(kind, TfidfVectorizer(), RandomForestClassifier(5, max_depth=6, random_state=0)), late),
    "counted words, forest regression": (lambda kind: _noted(kind, CountVectorizer(token_pattern=r"[a-z]+"), RandomForestRegressor(5, max_depth=6, random_state=0), fills=True), cost),
    "chosen words, gradient boosting": (lambda kind: _noted(kind, make_pipeline(TfidfVectorizer(), SelectKBest(f_classif, k=8)), GradientBoostingClassifier(n_estimators=6, random_state=0)), late),
    "words, histogram boosting": (lambda kind: _noted(kind, TfidfVectorizer(sublinear_tf=True), HistGradientBoostingClassifier(max_iter=6, min_samples_leaf=5), dense=True), late),
    "words, XGBoost, zeros missing": (lambda kind: _noted(kind, TfidfVectorizer(), xgboost.XGBClassifier(n_estimators=6, max_depth=4)), late),
    "words, XGBoost, dense": (lambda kind: _noted(kind, TfidfVectorizer(), xgboost.XGBRegressor(n_estimators=6, max_depth=4), dense=True), cost),
    "words, LightGBM": (lambda kind: _noted(kind, TfidfVectorizer(), lightgbm.LGBMClassifier(n_estimators=6, min_child_samples=5, verbose=-1)), late),
    "vote over other words": (lambda kind: VotingClassifier([("a", _noted(kind, TfidfVectorizer(), LogisticRegression())), ("b", _noted(kind, CountVectorizer(ngram_range=(2, 2)), RandomForestClassifier(4, max_depth=4, random_state=0)))], voting="soft"), late),
    "one-hot, XGBoost, zeros missing": (lambda kind: Pipeline([("columns", ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts), ("numbers", "passthrough", numbers)], sparse_threshold=1.0)), ("model", xgboost.XGBClassifier(n_estimators=6, max_depth=4))]), late),
    "numbers of neighbours, ridge": (lambda kind: _estimated(kind, KNNImputer(n_neighbors=3), Ridge()), cost),
    "numbers of near neighbours and marks, forest": (lambda kind: _estimated(kind, KNNImputer(n_neighbors=4, weights="distance", add_indicator=True), RandomForestRegressor(4, max_depth=4, random_state=0)), cost),
    "numbers estimated in turn, logistic": (lambda kind: _estimated(kind, IterativeImputer(max_iter=4, random_state=0), LogisticRegression()), late),
    "numbers estimated by trees, boosting": (lambda kind: _estimated(kind, IterativeImputer(DecisionTreeRegressor(max_depth=3, random_state=0), max_iter=2, add_indicator=True, random_state=0), GradientBoostingRegressor(n_estimators=4)), cost),
    "splines, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=SplineTransformer(n_knots=4)), cost),
    "splines with straight ends, logistic": (lambda kind: _encoded(kind, LogisticRegression(), scaler=make_pipeline(StandardScaler(), SplineTransformer(knots="quantile", degree=2, extrapolation="linear", include_bias=False))), late),
    "periodic splines, ridge": (lambda kind: _encoded(kind, Ridge(), scaler=SplineTransformer(n_knots=5, extrapolation="periodic")), cost),
    "kernel ridge": (lambda kind: _encoded(kind, KernelRidge(kernel="rbf", gamma=0.3)), cost),
    "kernel map, ridge": (lambda kind: _encoded(kind, make_pipeline(Nystroem(n_components=12, random_state=0), Ridge())), cost),
    "random waves, logistic": (lambda kind: _encoded(kind, make_pipeline(RBFSampler(n_components=12, random_state=0), LogisticRegression())), late),
    "one against one": (lambda kind: _encoded(kind, OneVsOneClassifier(LogisticRegression())), grade),
    "majority vote": (lambda kind: _encoded(kind, VotingClassifier([("a", RandomForestClassifier(4, max_depth=4, random_state=0)), ("b", LogisticRegression()), ("c", LinearSVC())], weights=[1.0, 2.0, 1.5])), grade),
    "majority vote of pipelines": (lambda kind: VotingClassifier([("a", _encoded(kind, GaussianNB(), encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False))), ("b", _encoded(kind, LogisticRegression())), ("c", _encoded(kind, SVC()))]), late),
    "distances from clusters, ridge": (lambda kind: _numeric(kind, StandardScaler(), KMeans(4, n_init=1, random_state=0), Ridge()), cost),
    "elliptic envelope": (lambda kind: _numeric(kind, StandardScaler(), EllipticEnvelope(random_state=0)), late),
    "isolation forest": (lambda kind: _encoded(kind, IsolationForest(n_estimators=8, random_state=0)), late),
    "one-class SVM": (lambda kind: _encoded(kind, OneClassSVM()), late),
    "clusters": (lambda kind: _numeric(kind, StandardScaler(), KMeans(3, n_init=1, random_state=0)), late),
    "mixture": (lambda kind: _numeric(kind, StandardScaler(), GaussianMixture(2, random_state=0)), late),
    "dummy classifier": (lambda kind: _encoded(kind, DummyClassifier()), late),
    "dummy regressor": (lambda kind: _encoded(kind, DummyRegressor()), cost),
}  # fmt: skip

not_as_trees = (
    "vote with a line", "stacking", "calibrated pipelines of logistic", "calibrated linear", "projection", "log1p, ridge", "logistic", "ridge", "Poisson",
    "SVC", "SVR", "SVM", "SGD", "perceptron", "Bayes", "discriminant", "neighbours", "process", "neural", "of lines", "of neighbours", "near neighbours", "estimated", "splines", "clusters", "mixture", "dummy",
    "vote over", "majority", "kernel", "waves", "one against one", "elliptic", "from clusters",
)  # fmt: skip


def is_explained_as_trees(family: str) -> bool:
    """Whether its bundle is one tree ensemble over the features, for exact tree SHAP."""
    if family in ("forest, classes 0.0 and 1.0", "AdaBoost regression"):
        return False
    named = [word for word in not_as_trees if word in family]
    return not named


additive = frozenset(
    {
        "bins of one width, ridge", "bins of clusters one-hot, ridge", "above a threshold, ridge", "missing or not, ridge",
        "missing marks, ridge", "independent components, ridge", "factor analysis, ridge", "random search of lines",
        "self-training, logistic", "weighted vote of lines", "target by log1p, ridge", "chain of lines", "logistic",
        "logistic of three classes", "logistic, classes true and false", "ridge", "ridge of target-encoded texts",
        "power transformer, ridge", "Poisson regression", "ridge classifier", "linear SVC", "linear SVC of three classes", "SGD",
        "perceptron", "naive Bayes", "discriminant analysis", "words, logistic", "pairs of words, logistic",
        "characters, linear SVC", "words and characters, SGD", "topics of words, ridge", "counted words, naive Bayes",
        "weighted words, complement naive Bayes", "words there or not, Bernoulli naive Bayes", "dummy classifier",
        "dummy regressor", "splines, ridge", "splines with straight ends, logistic", "periodic splines, ridge",
    }
)  # fmt: skip
"""Families whose score is a sum of a part for each feature."""
sums = {
    "isolation forest": "path_length",
    "calibrated forest, isotonic": "uncalibrated",
    "calibrated XGBoost, sigmoid": "uncalibrated",
    "calibrated boosting, sigmoid": "mean_log_odds",
    "calibrated AdaBoost of three classes, isotonic": "uncalibrated",
    "calibrated pipelines of forests of three classes": "mean_log_odds",
    "calibrated XGBoost of three classes": "uncalibrated",
    "calibrated LightGBM, isotonic": "uncalibrated",
}
"""Families whose bundle publishes the sum of the trees beside the original's answer, and explains that: how it is called."""


refused_cases = frozenset(
    {
        # Histogram boosting by category keeps its own encoder of objects where booleans are among the columns.
        ("ordinal, histogram boosting by category", "all of it"),
        ("ordinal, histogram boosting by category", "booleans and codes"),
        # Two whole numbers a row: some rows of training are equally near to a row given, and the original takes any.
        ("neighbours, regression", "large ids"),
        # Operators of float32: the proof finds that they do not tell such ids apart.
        ("mixture", "large ids"),
        ("mixture", "all of it"),
        # Two knots of the calibration are 1e-15 apart, and 0.3 of probability: rounding of the original decides.
        ("calibrated LightGBM, isotonic", "large ids"),
        ("calibrated LightGBM, isotonic", "decimals"),
        ("calibrated LightGBM, isotonic", "unseen categories"),
    }
)
"""Refused by name, and why: family and kind of data."""


def rows_of_page() -> list[str]:
    """The families in docs/models.md."""
    lines = []
    for family in families:
        how = (
            "exact tree SHAP, in the features" + (f", of `{sums[family]}`" if family in sums else "")
            if is_explained_as_trees(family)
            else "exact, a part for each feature"
            if family in additive
            else "enumeration, gradients or sampled"
        )
        lines.append(f"| {family} | {how} |")
    return lines


def cases() -> Iterator[tuple[str, Kind]]:
    """Every family with every kind of data, in an order that mixes both."""
    every = [(family, kind) for family in families for kind in kinds]
    for place in np.random.default_rng(0).permutation(len(every)).tolist():
        yield every[place]
