"""scikit-learn models that are refused, each by name, and what to do instead; docs/models.md lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import NMF
from sklearn.ensemble import StackingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next line work
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import Matern
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import KNeighborsRegressor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    QuantileTransformer,
    SplineTransformer,
)

from tests.sklearn_tables import cost, late

before = "compute the column before the stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedModel:
    """A model of the numbers `amount` and `age`, or of other columns."""

    name: str
    build: Callable[[], Any]
    target: Callable[[pd.DataFrame], np.ndarray]
    says: str
    """What the refusal says."""
    cure: str
    columns: tuple[str, ...] = ("amount", "age")


def _two_classes(frame: pd.DataFrame) -> np.ndarray:
    return np.stack((late(frame), 1 - late(frame)), axis=1)


def _product(one: Any, other: Any) -> float:
    return float(one @ other)


def _rounded(rows: Any) -> Any:
    return rows


def _words(vectorizer: Any) -> Any:
    return make_pipeline(ColumnTransformer([("words", vectorizer, "job")]), LogisticRegression())


def _filled(*steps: Any) -> Any:
    return make_pipeline(SimpleImputer(), *steps)


refused_models = (
    RefusedModel(name="IterativeImputer(sample_posterior=True)", build=lambda: make_pipeline(IterativeImputer(max_iter=3, sample_posterior=True), Ridge()), target=cost, says="fills in by lot", cure="sample_posterior=False"),
    RefusedModel(name="KNNImputer over more than 262,144 numbers of training, or by a Python function", build=lambda: make_pipeline(KNNImputer(weights=_rounded), Ridge()), target=cost, says="by a Python function", cure="fit it on a sample; weights='distance'"),
    RefusedModel(name="imputers of neighbours and regressions with a number for missing values", build=lambda: make_pipeline(KNNImputer(missing_values=-1), Ridge()), target=cost, says="train it with NaN", cure="NaN for missing values"),
    RefusedModel(name="SplineTransformer(extrapolation='error')", build=lambda: _filled(SplineTransformer(extrapolation="error"), Ridge()), target=cost, says="refuses numbers beyond", cure="extrapolation='constant'"),
    RefusedModel(name="HashingVectorizer", build=lambda: _words(HashingVectorizer(n_features=16)), target=late, says="keeps no vocabulary", cure="TfidfVectorizer(max_features=...)", columns=("job",)),
    RefusedModel(name="vectorizers with a tokenizer, preprocessor or analyzer of Python's own", build=lambda: _words(TfidfVectorizer(tokenizer=str.split)), target=late, says="a tokenizer of its own", cure="change the texts before the stream", columns=("job",)),
    RefusedModel(name="vectorizers whose token_pattern has groups or choices", build=lambda: _words(CountVectorizer(token_pattern=r"(\w+)|!")), target=late, says="not one run of characters", cure=r"`\b\w\w+\b`, `[a-z]+`", columns=("job",)),
    RefusedModel(name="TfidfVectorizer(dtype=numpy.float32)", build=lambda: _words(TfidfVectorizer(dtype=np.float32, token_pattern=r"\w+")), target=late, says="in float32", cure="float64", columns=("job",)),
    RefusedModel(name="a step of Python before the words of a text", build=lambda: _words(make_pipeline(FunctionTransformer(_rounded), TfidfVectorizer(token_pattern=r"\w+"))), target=late, says="changes texts in a way", cure="change the texts before the stream", columns=("job",)),
    RefusedModel(name="a text that another step reads too", build=lambda: make_pipeline(ColumnTransformer([("words", CountVectorizer(token_pattern=r"\w+"), "job"), ("kind", OneHotEncoder(), ["job"])]), LogisticRegression()), target=late, says="by another step too", cure="a copy of the column", columns=("job",)),
    RefusedModel(name="more than 16,384 words", build=lambda: _words(CountVectorizer(vocabulary=[f"word{place}" for place in range(16_385)])), target=late, says="16384 are the most", cure="max_features, min_df, or SelectKBest", columns=("job",)),
    RefusedModel(name="NMF", build=lambda: _filled(MinMaxScaler(), NMF(1), Ridge()), target=cost, says="depends on the others of its batch", cure="PCA"),
    RefusedModel(name="Birch", build=lambda: _filled(Birch(n_clusters=None)), target=cost, says="answers clusters alone", cure="KMeans"),
    RefusedModel(name="IsotonicRegression(out_of_bounds='nan' or 'raise')", build=lambda: make_pipeline(MinMaxScaler(), IsotonicRegression()), target=cost, says="no answer beyond", cure="out_of_bounds='clip'", columns=("amount",)),
    RefusedModel(name="kernels that are Python functions", build=lambda: _filled(KernelRidge(kernel=_product)), target=cost, says="a Python function", cure="kernel='rbf'"),
    RefusedModel(name="NearestCentroid(metric='manhattan'), and before scikit-learn 1.6", build=lambda: _filled(NearestCentroid(metric="manhattan")), target=late, says="only classes", cure="metric='euclidean'"),
    RefusedModel(name="neighbours weighted by a Python function; by distance in other metrics than Euclid's, Manhattan's, Chebyshev's and Minkowski's", build=lambda: _filled(KNeighborsRegressor(2, weights="distance", metric="cosine")), target=cost, says="has no operators for metric='cosine'", cure="metric='euclidean' behind Normalizer()"),
    RefusedModel(name="GaussianProcessClassifier(multi_class='one_vs_one'), or with a Matern kernel of another nu", build=lambda: _filled(GaussianProcessClassifier(Matern(nu=0.7), optimizer=None)), target=late, says="which has no operators", cure="'one_vs_rest'; RBF, Matern of nu 0.5, 1.5, 2.5"),
    RefusedModel(name="a vote or a stack before another step", build=lambda: _filled(StackingRegressor([("a", Ridge())]), Ridge()), target=cost, says="stands before another step", cure="let it be the last step"),
    RefusedModel(name="classifiers of several targets", build=lambda: _filled(ClassifierChain(LogisticRegression())), target=_two_classes, says="several targets", cure="a bundle for each target"),
    RefusedModel(name="FixedThresholdClassifier, TunedThresholdClassifierCV", build=lambda: _filled(FixedThresholdClassifier(LogisticRegression(), threshold=0.3)), target=late, says="by a threshold of its own", cure="package its estimator_"),
    RefusedModel(name="calibration by temperature", build=lambda: _filled(CalibratedClassifierCV(LogisticRegression(), method="temperature", cv=2)), target=late, says="temperature", cure="sigmoid or isotonic"),
    RefusedModel(name="target by quantiles or powers", build=lambda: TransformedTargetRegressor(_filled(Ridge()), transformer=QuantileTransformer(n_quantiles=20)), target=cost, says="backwards, which has no operators", cure="a scaler, or a function of NumPy"),
    RefusedModel(name="FunctionTransformer of a Python function", build=lambda: _filled(FunctionTransformer(_rounded), Ridge()), target=cost, says="no ONNX graph can hold", cure=f"a function of NumPy, or {before}"),
)  # fmt: skip
