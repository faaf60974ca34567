"""The families of models that can be packaged, each with what is promised of it: the rows of docs/models.md and the cases of
tests/unit/models/test_families.py, which proves them. `python -m tests.model_families docs/models.md` writes the page."""

import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Predictions
from tests.sklearn_cases import families as pipeline_families
from tests.sklearn_cases import rows_of_page
from tests.sklearn_every import rows_of_names
from tests.sklearn_refused import refused_models
from tests.sklearn_tables import kinds
from tests.suites.cases import rows_of_suites

exact_trees = "exact tree SHAP"
by_enumeration = "enumeration up to 10 features, else sampled or by gradients"
additive = "exact, a part for each feature"
by_parts = f"{additive}, where the scores add up over them before a last sigmoid, softmax or exponential; else {by_enumeration}"

Train = Callable[[NDArray[np.float64], NDArray[np.float64]], Any]
"""From rows (R, 3), NaN among them where the family takes it, and answers (R,) that are numbers above 0, to a live model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One row of the page."""

    library: str
    name: str
    train: Train
    method: str
    """Of the original: what the outputs are compared with."""
    meaning: str = "value"
    explained: str = exact_trees
    takes_missing: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What cannot be packaged, and why; the words stand in the refusal."""

    library: str
    name: str
    why: str
    cure: str


def classes_of(answers: NDArray[np.float64], count: int = 2) -> NDArray[np.int64]:
    """Class numbers by where an answer lies among all."""
    bounds = np.quantile(answers, np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(bounds, answers).astype(np.int64)


def _xgb(**options: Any) -> Train:
    def train(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
        import xgboost

        kind, count = options.get("kind", "XGBRegressor"), options.get("classes", 2)
        target = classes_of(answers, count) if kind != "XGBRegressor" else answers
        if kind == "XGBRanker":
            target = classes_of(answers, 4)
        rest = {name: value for name, value in options.items() if name not in ("kind", "classes")}
        model = getattr(xgboost, kind)(n_estimators=8, max_depth=4, n_jobs=1, **rest)
        return model.fit(rows, target, **({"group": [len(rows)]} if kind == "XGBRanker" else {}))

    return train


def _lgb(**options: Any) -> Train:
    def train(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
        import lightgbm

        kind, count = options.get("kind", "LGBMRegressor"), options.get("classes", 2)
        target = classes_of(answers, count) if kind != "LGBMRegressor" else answers
        rest = {name: value for name, value in options.items() if name not in ("kind", "classes")}
        model = getattr(lightgbm, kind)(n_estimators=8, verbose=-1, n_jobs=1, **rest)
        return model.fit(rows, target, **({"group": [len(rows)]} if kind == "LGBMRanker" else {}))

    return train


def _lines(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
    """XGBoost without trees."""
    import xgboost

    return xgboost.XGBRegressor(booster="gblinear", n_estimators=8, n_jobs=1).fit(rows, answers)


def _vectors(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
    """XGBoost's trees whose leaves speak of two targets at once."""
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=8, max_depth=4, n_jobs=1, multi_strategy="multi_output_tree")
    return model.fit(rows, np.stack((answers, np.sqrt(answers)), 1))


def _cat(kind: str, count: int = 0, **options: Any) -> Train:
    def train(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
        import catboost

        quiet = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
        model = getattr(catboost, kind)(iterations=12, depth=4, **quiet, **options)
        return model.fit(rows, classes_of(answers, count) if count else answers)

    return train


def _sk(module: str, kind: str, count: int = 0, **options: Any) -> Train:
    def train(rows: NDArray[np.float64], answers: NDArray[np.float64]) -> Any:
        from importlib import import_module

        estimator = getattr(import_module(f"sklearn.{module}"), kind)(**options)
        return estimator.fit(rows, classes_of(answers, count) if count else answers)

    return train


_booster, _proba = "Booster.predict", "predict"
xgboost_families = tuple(
    Family(library="XGBoost", name=name, train=_xgb(**options), method=_booster, meaning=meaning)
    for name, options, meaning in (
        ("two classes", {"kind": "XGBClassifier"}, "probability"),
        ("several classes", {"kind": "XGBClassifier", "classes": 3}, "probability"),
        ("regression", {}, "value"),
        ("counts and positive values (Poisson, gamma, Tweedie)", {"objective": "reg:gamma"}, "value"),
        ("quantiles", {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.8]}, "value"),
        ("log odds (binary:logitraw)", {"kind": "XGBClassifier", "objective": "binary:logitraw"}, "log_odds"),
        ("dropped trees (DART)", {"booster": "dart", "rate_drop": 0.3}, "value"),
        ("random forest", {"num_parallel_tree": 3, "subsample": 0.6}, "value"),
        ("ranking", {"kind": "XGBRanker"}, "rank"),
    )
)
xgboost_families += (
    Family(library="XGBoost", name="several targets, a vector in each leaf", train=_vectors, method=_booster),
    Family(
        library="XGBoost",
        name="lines (gblinear)",
        train=_lines,
        method=_booster,
        explained=additive,
    ),
)
catboost_families = tuple(
    Family(library="CatBoost", name=name, train=train, method=f"predict, {method}", meaning=meaning)
    for name, train, method, meaning in (
        ("two classes", _cat("CatBoostClassifier", 2), "Probability", "probability"),
        ("several classes", _cat("CatBoostClassifier", 3), "Probability", "probability"),
        (
            "one against all",
            _cat("CatBoostClassifier", 3, loss_function="MultiClassOneVsAll"),
            "Probability",
            "probability",
        ),
        ("regression (RMSE, MAE, quantile, Huber, ...)", _cat("CatBoostRegressor"), "RawFormulaVal", "value"),
        (
            "counts and positive values (Poisson, Tweedie)",
            _cat("CatBoostRegressor", loss_function="Poisson"),
            "Exponent",
            "value",
        ),
        (
            "trees that are no tables (Lossguide, Depthwise)",
            _cat("CatBoostRegressor", grow_policy="Lossguide"),
            "RawFormulaVal",
            "value",
        ),
    )
)
lightgbm_families = tuple(
    Family(library="LightGBM", name=name, train=_lgb(**options), method=_booster, meaning=meaning)
    for name, options, meaning in (
        ("two classes", {"kind": "LGBMClassifier"}, "probability"),
        ("several classes", {"kind": "LGBMClassifier", "classes": 3}, "probability"),
        (
            "one against all",
            {"kind": "LGBMClassifier", "classes": 3, "objective": "multiclassova"},
            "probability",
        ),
        ("regression (L1, L2, Huber, quantile)", {"objective": "huber"}, "value"),
        ("counts and positive values (Poisson, gamma, Tweedie)", {"objective": "poisson"}, "value"),
        (
            "random forest",
            {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
            "value",
        ),
        ("dropped trees (DART)", {"boosting_type": "dart"}, "value"),
        ("ranking", {"kind": "LGBMRanker", "classes": 4}, "rank"),
    )
)
_seed = {"random_state": 0}
sklearn_families = tuple(
    Family(
        library="scikit-learn",
        name=name,
        train=train,
        method="predict_proba" if meaning == "probability" else "predict",
        meaning=meaning,
        takes_missing=takes_missing,
    )
    for name, train, meaning, takes_missing in (
        ("decision tree", _sk("tree", "DecisionTreeRegressor", **_seed), "value", True),
        (
            "decision tree of classes",
            _sk("tree", "DecisionTreeClassifier", 3, max_depth=4, **_seed),
            "probability",
            True,
        ),
        (
            "random forest",
            _sk("ensemble", "RandomForestRegressor", n_estimators=5, **_seed),
            "value",
            True,
        ),
        (
            "random forest of classes",
            _sk("ensemble", "RandomForestClassifier", 2, n_estimators=5, **_seed),
            "probability",
            True,
        ),
        (
            "extra trees",
            _sk("ensemble", "ExtraTreesRegressor", n_estimators=5, **_seed),
            "value",
            True,
        ),
        (
            "gradient boosting",
            _sk("ensemble", "GradientBoostingRegressor", n_estimators=8, **_seed),
            "value",
            False,
        ),
        (
            "gradient boosting of classes",
            _sk("ensemble", "GradientBoostingClassifier", 3, n_estimators=5, **_seed),
            "probability",
            False,
        ),
        (
            "histogram gradient boosting",
            _sk("ensemble", "HistGradientBoostingRegressor", max_iter=8, **_seed),
            "value",
            True,
        ),
        (
            "histogram gradient boosting of classes",
            _sk("ensemble", "HistGradientBoostingClassifier", 2, max_iter=8, **_seed),
            "probability",
            True,
        ),
    )
)
families = (*xgboost_families, *lightgbm_families, *catboost_families, *sklearn_families)

refused = (
    Refused(library="XGBoost", name="binary:hinge", why="an output that no bundle can keep", cure="train binary:logistic"),
    Refused(library="XGBoost", name="dump_model", why="is for reading only", cure="save_model"),
    Refused(library="LightGBM", name="linear trees", why="have no ONNX operator", cure="linear_tree=False"),
    Refused(library="LightGBM", name="zero_as_missing", why="zero_as_missing", cure="train with NaN for missing values"),
    Refused(library="LightGBM", name="reg_sqrt", why="an output that no bundle can keep", cure="train on the root, square downstream"),
    Refused(library="LightGBM", name="cross_entropy_lambda", why="an output that no bundle can keep", cure="train cross_entropy"),
    Refused(library="CatBoost", name="texts, embeddings", why="which no bundle can keep", cure="train on numbers and categories"),
    Refused(library="CatBoost", name="RMSEWithUncertainty and other losses of several numbers", why="an output that no bundle can keep", cure="train RMSE, or a quantile"),
    Refused(library="CatBoost", name="combinations of very many categories", why="combines so many categories", cure="max_ctr_complexity=1"),
    Refused(library="PMML", name="neural networks, support vector machines, naive Bayes, rule sets, clusters, time series", why="is a kind of model that is not read", cure="package the model that it was made from"),
    Refused(library="PMML", name="a value without a prediction (nullPrediction for values, returnNullPrediction)", why="gives no prediction to some values", cure='noTrueChildStrategy="returnLastPrediction"'),
    Refused(library="PMML", name="selectAll (several answers at once); max (which the standard has for classes), median of classes; averages, votes, medians and chains of models of which some take part for some records only; models chosen among trees and formulas, or by formulas with different links", why="which is not read", cure="a file for each model, or package the model that it was made from"),
    Refused(library="PMML", name="weightedConfidence, aggregateNodes; several fields in one MapValues; trees on a field computed of several; links inside a chain but exp and logit; power, oddspower, logc and negbin links; ordinal targets", why="which is not read", cure="package the model that it was made from"),
    Refused(library="PMML", name="trees that ask about a function where it is not defined (the logarithm of what may be negative)", why="a field that has no value for some records", cure="a valid Interval for its field (invalidValueTreatment returnInvalid or asMissing)"),
    Refused(library="PyTorch, Keras", name=".pt, .pth, .keras, .h5", why="export", cure="torch.onnx.export or tf2onnx, then the .onnx"),
    Refused(library="Python", name=".pkl, .joblib", why="only Python may open", cure="package the live object"),
)  # fmt: skip

pmml_families = (
    ("TreeModel", "value, or probability of each class", exact_trees),
    ("MiningModel: sum, weightedSum, average, weightedAverage of trees", "value, or probability of each class", exact_trees),
    ("MiningModel: majorityVote, weightedMajorityVote of trees", "share of the votes (probability)", exact_trees),
    ("MiningModel: modelChain of boosting and a link (logit, softmax, exp)", "value, or probability of each class", exact_trees),
    ("MiningModel: selectFirst, and sums of which some take part for some records, of trees, scorecards and chains of boosting", "value, or probability of each class", exact_trees),
    ("MiningModel: median of trees or regressions; selectFirst and sums of regressions", "value, or probability of each class", by_enumeration),
    ("Scorecard", "value (the score)", exact_trees),
    ("RegressionModel, also in chains", "value, or probability of each class", by_parts),
    ("GeneralRegressionModel (regression, generalLinear, logLinear, generalizedLinear, multinomialLogistic)", "value, or probability of each class", by_parts),
)  # fmt: skip

onnx_forms = (
    "any number of named inputs", "float32, float64, float16, int64, int32, bool and text inputs", "a fixed batch",
    "symbolic widths", "outputs without a shape", "ranks above two", "weights in files beside it",
    "ZipMap, and an output for each class (zipmap=\"columns\")", "opsets that ONNX Runtime runs",
)  # fmt: skip


def served(bundle: Bundle, rows: NDArray[np.float64]) -> Predictions:
    """What the stream answers to JSON records of these rows; NaN becomes null."""
    names = bundle.signature.columns
    records = [
        json.dumps(
            {name: None if value != value else value for name, value in zip(names, row, strict=True)}
        ).encode()
        for row in rows.tolist()
    ]
    matrix, places, faults = JsonRows(bundle.signature).read(records)
    assert not faults
    matrix, _, rejected = FeaturePolicies(bundle.signature).apply(matrix, places)
    assert not rejected
    return open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock()).predict(matrix)


_head = """# Which models can be packaged

Written from the cases of `tests/model_families.py`, which `tests/unit/models/test_families.py` proves: each family is trained, packaged, and asked about JSON
records that it has not seen (prices of two decimals, ids near twenty million and five billion, doubles, nulls where it takes them); what the stream would
answer differs from the original's answer to the same record by no more than 1e-6 of the range. `make docs` writes this page.

A live object is packaged from Python (`penstock.engine.models.packaging.package`), a file by `penstock package`: XGBoost `.json` and `.ubj`, LightGBM `.txt`,
CatBoost `.cbm` and `.json`, scikit-learn `.skops`, ONNX `.onnx`, PMML `.pmml`. The original gets every row as it is, in double precision; the bundle gets what the stream would make of the record.
What no method of the original can be asked about is reported as not compared, and the exit code is 1 unless `--unproved` is given.

Numbers: XGBoost, CatBoost and scikit-learn's forests compare float32, and so does the bundle. LightGBM and histogram gradient boosting compare doubles: the bundle
keeps their thresholds in double precision and every value on its side of each while a record is read, at the speed of float32.

Missing values: null, absent and NaN. A number that stands for one (XGBoost's `missing=-999`) is taken over from a live object and asked for where a file
cannot say it: `--missing -999`, or `"sentinel": -999` for one feature in `--features`.

CatBoost's categories: the file holds hashes only, so that their tables are given in `--features` (all that the training data had: where one lacks, the refusal counts
them). What CatBoost asks about several features at once (its combinations) becomes tests of one feature each, to the same bits, categories included that training
never saw; a category that is missing is refused, as by CatBoost. Explanations are then relative to background rows, in the features (`tests/unit/models/test_catboost.py`);
of numbers, one-hot categories and `Counter` statistics in symmetric trees they are CatBoost's own `ShapValues` (whose values of other trees do not add up to the prediction; ours do).

What a live object or a file cannot say is asked for: LightGBM writes `_` for a blank in a feature's name, so that features are called as the columns of `--background` or
`--rows`; and which columns its category tables belong to, where ordered categories or codes stand beside them, a data frame tells, or `--features`. A classifier whose own `predict`
does not choose the highest score is refused. Numbers that a scikit-learn pipeline refuses (Box-Cox of 0, a logarithm of what is negative) are set aside, `out_of_range`, by the feature's name.

PMML (4.1 to 4.4) is read by our own reader, without entities and within bounds: tree models, scorecards, mining models of trees (sum, average, weightedAverage, majorityVote, votes by
weight, selectFirst, sums of which some take part for some records, and the chains that converters of boosters write) come out as one tree ensemble with exact tree SHAP, whatever the file does with missing values
(none, lastPrediction, defaultChild, nullPrediction, surrogate); regression and general regression models (identity, log, logit, softmax, simplemax, cloglog, loglog, probit; of RegressionModel cauchit too), alone, added or chosen by predicates, as a graph of doubles; the
middle one of several models (median) as a graph. Treatments of missing, invalid and outlying values, NormContinuous, NormDiscrete, Discretize, MapValues and Apply move into the tests of the trees to the last double.
A number outside the valid intervals of its field (invalidValueTreatment returnInvalid) is set aside as a dead letter, `out_of_range`, by the feature's name; of any other model `"within": [[0, 120]]` in `--features` does the same
(ends included, `null` for no end). A file has no original in Python: its outputs are compared with the answers that it holds itself (ModelVerification, at the precision that it says, never finer than `--tolerance`), with `--expected FILE`, and
else reported as not compared. Where a missing value alone leaves a record without a prediction, it is set aside, by the feature's name. What a field holds that nothing asks
about is of no account. The reader is held against an interpreter written from the standard on files drawn from seeds (`tests/unit/models/test_pmml.py`), the interpreter against JPMML
(`tests/unit/models/test_pmml_oracle.py`), and files that JPMML's converters wrote of XGBoost, LightGBM and scikit-learn against what those libraries answer.

Size: an ensemble of 1,048,576 nodes and more is kept as a table of packed arrays (`trees.table`) in place of an ONNX graph, read by our tree kernel alone, on the
CPU, with leaf values in double precision: about 110 bytes a node to package and 90 to serve and explain, where the graph takes 900 and 600. `penstock bench size`
measures both in processes of their own. A pipeline around such a forest, and an `.onnx` file, still go the longer way.

Texts: `TfidfVectorizer`, `CountVectorizer` and `CountVectorizer` with `TfidfTransformer`, of words, characters or characters within words, alone, in a branch of a `ColumnTransformer`, or
several over one text (`FeatureUnion`, members of a vote). The text is one feature of the record (`"kind": "text"`), and its words are columns called `note[refund]`: while a
record is read they are counted and weighted as by scikit-learn, to the bit, on any Unicode text (`tests/unit/features/test_texts.py`), and packaging proves it anew for each
vectorizer, with texts made up of its vocabulary and strange ones. A model that takes nothing but texts calls its feature `text`, unless `feature_names` or a features file names it. So trees behind words are explained exactly, word by word; linear models and naive Bayes over words
too, beside whatever else, relative to all background rows. A null text is set aside by the feature's name, as scikit-learn refuses it, unless `SimpleImputer` and
`FunctionTransformer(numpy.ravel)` stand before the vectorizer. `SelectKBest` and its like right behind it leave only the chosen words in the matrix; 16,384 columns are the most. To XGBoost the
zeros of a sparse matrix are missing values, and the bundle's trees take them so. Counting costs about 12 µs of a core for a text of 25 words (1,000 words known), 16 µs and 40 KB a row of a batch where 10,000
words are known; models without texts pay nothing. An explanation names every word that is a column: `explain.top` keeps the strongest.

TensorBoard: `penstock package --tensorboard DIR` writes what packaging found as an event file into a new or an empty folder, beside the bundle: the ONNX graph (its
nodes, edges and shapes; of the numbers how many there are), the mean absolute attribution of each feature over up to 1,000 background rows with a histogram of
the attributions for the 100 most important ones, and the largest difference of each output from the original's. What was not compared has no number. It needs
`pip install 'penstock-streaming[tensorboard]'` to write, and TensorBoard to look: `tensorboard --logdir DIR`.
"""


_pipelines = f"""Each with decimals, ids near five billion, nulls, categories that training did not know, booleans and whole-number codes, and all of that at once:
`tests/sklearn_cases.py`, proved by `tests/unit/models/test_sklearn_matrix.py` ({len(pipeline_families) * len(kinds)} cases, a sample in `make test`, all with `PENSTOCK_MATRIX=all`). The columns stand in a
`ColumnTransformer`: numbers imputed and scaled, texts imputed and encoded; a column that no step reads is no feature. A category that a step refuses (`handle_unknown="error"`) sets its record aside, by the feature's name.

Pipelines nobody thought of are drawn from seeds (`tests/random_pipelines.py`): 2 to 5 columns of any type, steps and models at random, rows past the range of
training, compared with the original's own method in `tests/unit/models/test_random_pipelines.py` (a few in `make test`, as many as `PENSTOCK_PIPELINES` says). None may
differ in silence, and no more than a tenth may be refused. Where the original's own answer is decided by rounding (equally near neighbours, differences of large numbers), a row made
up is left out of the comparison and the report counts such rows; a row given is an error that says so.

The types of columns count: a step such as `FunctionTransformer(numpy.log1p)` computes in half precision on booleans and small whole numbers, and whole numbers wrap around. Data
frames (and arrays, and .parquet files) given as rows or background tell the types that a model was trained on; where they make a difference, float32 and booleans are taken over, and other types are refused by the
column's name. The original is asked about the data frame itself too, each column in its type. `tests/unit/models/test_column_types.py` proves it for 21 types of columns, 12 steps and 2 models.

Trees behind steps of one feature each (imputers, scalers, encoders, bins, monotone functions of NumPy known by name, selections) are trees over the features: the steps move into the tests, to the last
double, and averages (votes, bags) are one ensemble. They are served by the tree kernel and explained exactly, in the features as records hold them. A step that mixes features (a projection, products)
keeps its place before the trees; such models are explained from several background rows, relative to those: `package` and `check` say by which method.

Isolation forests and calibrated trees make more of their trees' sum than a link: that sum is a second output of the bundle, compared with the original's too, and what is explained, exactly.
`path_length` is the mean length of a record's paths, as shap.TreeExplainer has it. `uncalibrated` is the mean over the folds of what their calibrators are given: a forest's probability, a boosting's log
odds (also where the library's own probability is calibrated), a decision function. Sigmoids of several folds are explained in `mean_log_odds`, the mean of what they are taken of. A
single fold calibrated by a sigmoid is explained in the log odds of its own probabilities, which are trees again.

Models whose score is a sum of a part for each feature, before a last sigmoid, softmax or exponential, are explained exactly, relative to all background rows, each part found by putting one number into a fixed
row (docs/explanations.md). That they are is tried on the bundle itself, so that it holds for `.onnx` and PMML files as well, and for a worker's every record again.

SVC and NuSVC answer decisions, or with `probability=True` probabilities, in double precision: those of all pairs of classes are put together in the same turns as by LIBSVM, of up to 16 classes (of more by
ONNX Runtime's operator in float32, which the proof refuses where it is more than 1e-5 off).

KNNImputer compares a record with a missing value with every row that it was fitted on, at 262,144 numbers the most; where several are equally near, the original takes any. IterativeImputer repeats its turns in double precision;
a batch in which every number of every record is missing, which the original fills by its first step alone, is answered as any other.

Neighbours (of a number or within a radius, alike or weighted by distance) compute distances in double precision, column by column: a record that is a row of training is answered by that row
alone, as by the original. GaussianProcessClassifier keeps Laplace's latent mean and variance and scikit-learn's own approximation of the probability, in double precision, of 2,048 rows of training at the most.

What steps make of several numbers together (products, rotations) may be past float32, which trees of scikit-learn refuse: such a record is set aside, `output_not_finite`, as the original has no answer to it."""


def page() -> str:
    """docs/models.md."""
    lines = [_head, "## Packaged", "", "| library | model | output | compared with | explained by |", "|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {each.library} | {each.name} | {each.meaning.replace('_', ' ')} | {each.method} | {each.explained} |"
        for each in families
    ]
    lines += [
        "",
        "## scikit-learn pipelines",
        "",
        _pipelines,
        "",
        "| family | explained by |",
        "|---|---|",
        *rows_of_page(),
        "",
        "## Every estimator of scikit-learn by its name",
        "",
        "All that `sklearn.utils.all_estimators()` lists is tried in the simplest pipeline around it (`tests/sklearn_every.py`, `tests/unit/models/test_every_estimator.py`:",
        "a few in `make test`, all with `PENSTOCK_MATRIX=all`): the bundle answers records that it has not seen within 1e-6 of the range of the original's answers, or the",
        "refusal names the estimator and why.",
        "",
        *rows_of_names(),
    ]
    lines += [
        "",
        "## Suites of other projects",
        "",
        *textwrap.wrap(
            "What the test suites of skl2onnx, onnxmltools, treelite and shap try, as cases (`tests/suites/`: which of their tests ask for which model on "
            "which kind of rows; `tests/unit/models/test_suites.py`: a sample in `make test`, all with `PENSTOCK_MATRIX=all`). Each is trained, packaged, and asked "
            "about JSON records that it has not seen: the answers are the original's within 1e-6 of their range, trees are explained as shap.TreeExplainer explains "
            "the original, or the refusal says why.",
            160,
        ),
        "",
        *rows_of_suites(),
    ]
    lines += [
        "", "## PMML", "", "| model | output | explained by |", "|---|---|---|",
        *(f"| {name} | {meaning} | {explained} |" for name, meaning, explained in pmml_families),
    ]  # fmt: skip
    lines += ["", "An `.onnx` file, from any exporter, is its own original: its outputs are compared only with `--expected FILE`, the original's answers to the rows",
              f"of `--rows`. Taken are {'; '.join(onnx_forms)}. A graph that is one ensemble of trees is explained by {exact_trees}; others: {by_parts}.",
              "", "## Not packaged", "", "| library | what | why: the refusal says | what to do |", "|---|---|---|---|"]  # fmt: skip
    lines += [f"| {each.library} | {each.name} | {each.why} | {each.cure} |" for each in refused]
    lines += [f"| scikit-learn | {each.name} | {each.says} | {each.cure} |" for each in refused_models]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Write the page to the path given."""
    Path(arguments[0]).write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
