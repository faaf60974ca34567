"""From trained models to bundles: what was learned is kept, exactly, and what cannot be kept is refused by name."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import skops.io
import xgboost
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.features.narrowing import as_fed
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.convert import convert
from penstock.engine.models.packaging.converted import PackageOptions
from penstock.engine.models.packaging.package import PackageReport, package
from penstock.engine.models.packaging.parity import ParityError, prove_parity
from penstock.engine.models.probes.probe_rows import read_rows, rows_of_table
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.readers.assemble import Tree
from penstock.schemas.errors import ConfigError
from tests.bundles import constant, graph_bytes, linear_model, linear_scores, one_value, tensor

carriers = ["AA", "B6", "DL", "UA", "WN"]
count = 600


def _flights(*, missing: bool = True, categories: bool = True) -> pd.DataFrame:
    """Flights of a kind: numbers on a grid and off it, categories, gaps."""
    random = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "delay": random.normal(10, 30, count).astype(np.float32).astype(np.float64),
            "hour": random.integers(0, 24, count).astype(np.float64),
            "carrier": pd.Categorical(random.choice(carriers, count), categories=carriers),
            "wind": random.normal(size=count).round(1).astype(np.float32).astype(np.float64),
        }
    )
    if missing:
        table.loc[::7, "wind"] = np.nan
        table.loc[::11, "delay"] = np.nan
        table.loc[::13, "carrier"] = np.nan
    return table if categories else table.drop(columns="carrier")


def _late(table: pd.DataFrame) -> NDArray[np.int64]:
    risky = table.carrier.isin(["UA", "WN"]) if "carrier" in table else table.hour > 12
    return np.asarray(((table.delay.fillna(20) > 12) ^ risky ^ (table.wind > 1)).to_numpy().astype(np.int64))


def _grade(table: pd.DataFrame) -> NDArray[np.int64]:
    return np.asarray(_late(table) + (table.hour > 17).to_numpy())


def _minutes(table: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(np.exp(_late(table) + table.hour.to_numpy() / 24))


def _lightgbm(target: Callable[..., Any] = _late, **options: Any) -> Any:
    table = _flights()
    answers = target(table)
    kind = lightgbm.LGBMRegressor if answers.dtype.kind == "f" else lightgbm.LGBMClassifier
    options = {
        "n_estimators": 12,
        "num_leaves": 15,
        "min_child_samples": 5,
        "verbose": -1,
        "n_jobs": 1,
    } | options
    return kind(**options).fit(table, answers)


def _xgboost(target: Callable[..., Any] = _late, **options: Any) -> Any:
    table = _flights()
    answers = target(table)
    kind = xgboost.XGBRegressor if answers.dtype.kind == "f" else xgboost.XGBClassifier
    options = {"n_estimators": 12, "max_depth": 4, "enable_categorical": True, "n_jobs": 1} | options
    return kind(**options).fit(table, answers)


def _sklearn(estimator: Any, target: Callable[..., Any] = _late, *, missing: bool = True) -> Any:
    table = _flights(missing=missing, categories=False)
    return estimator.fit(table, target(table))


def _package(model: Any, out: Path, **options: Any) -> PackageReport:
    table = _flights()
    if "rows" not in options:
        options["rows"] = table[100:]
    return package(model, out, background=options.pop("background", table[:100]), **options)


def _predict(bundle: Bundle, table: pd.DataFrame) -> Any:
    model = open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())
    rows = rows_of_table(table, bundle.signature, origin="the table")
    return model.predict(as_fed(rows, bundle.signature))


def test_a_lightgbm_model_of_flights_is_kept_whole(tmp_path: Path) -> None:
    trained = _lightgbm()
    trained.booster_.save_model(tmp_path / "flights.txt")
    report = _package(tmp_path / "flights.txt", tmp_path / "bundle", classes=["in time", "late"])
    bundle = report.bundle
    carrier = bundle.signature.features[2]
    assert (carrier.name, carrier.kind, carrier.categories) == ("carrier", "category", tuple(carriers))
    assert [feature.kind for feature in bundle.signature.features].count("number") == 3
    assert bundle.classes == ("in time", "late")
    assert bundle.trees
    assert bundle.covers
    assert report.parity.difference_max <= 1e-6
    assert report.parity.rows_given == count
    table = _flights()
    found = _predict(bundle, table)
    np.testing.assert_allclose(found.outputs["probabilities"], trained.predict_proba(table), atol=1e-6)
    np.testing.assert_array_equal(found.labels, trained.predict(table))


def test_covers_are_the_training_rows_that_passed(tmp_path: Path) -> None:
    trained = _lightgbm()
    forest = read_forest(_package(trained, tmp_path / "bundle").bundle.model)
    assert forest.cover is not None
    nodes = trained.booster_.trees_to_dataframe()
    np.testing.assert_array_equal(np.sort(forest.cover), np.sort(nodes["count"].to_numpy(dtype=np.float64)))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    trained = _lightgbm()
    for name in ("one", "two"):
        _package(trained, tmp_path / name, name="flights")
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two


models: dict[str, Callable[[], Any]] = {
    "lightgbm multi-class": lambda: _lightgbm(_grade),
    "lightgbm one against all": lambda: _lightgbm(_grade, objective="multiclassova"),
    "lightgbm random forest": lambda: _lightgbm(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
    "lightgbm dart": lambda: _lightgbm(boosting_type="dart"),
    "lightgbm steep sigmoid": lambda: _lightgbm(sigmoid=2.0),
    "lightgbm no missing type": lambda: _lightgbm(use_missing=False),
    "lightgbm regression": lambda: _lightgbm(_minutes),
    "lightgbm poisson": lambda: _lightgbm(_minutes, objective="poisson"),
    "lightgbm stumps and nothing": lambda: _lightgbm(n_estimators=3, num_leaves=2, min_child_samples=290),
    "xgboost binary": _xgboost,
    "xgboost partitions": lambda: _xgboost(max_cat_to_onehot=1),
    "xgboost multi-class": lambda: _xgboost(_grade),
    "xgboost dart": lambda: _xgboost(booster="dart", rate_drop=0.3),
    "xgboost forest": lambda: _xgboost(num_parallel_tree=3, subsample=0.5),
    "xgboost base score": lambda: _xgboost(base_score=0.2),
    "xgboost regression": lambda: _xgboost(_minutes),
    "xgboost gamma": lambda: _xgboost(_minutes, objective="reg:gamma"),
    "xgboost quantiles": lambda: _xgboost(_minutes, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]),
}


@pytest.mark.parametrize("kind", models)
def test_boosted_trees_predict_what_they_predicted(kind: str, tmp_path: Path) -> None:
    trained = models[kind]()
    report = _package(trained, tmp_path / "bundle")
    table = _flights()
    bundle = report.bundle
    expected = trained.predict_proba(table) if bundle.classes else trained.predict(table).reshape(count, -1)
    found = _predict(bundle, table)
    np.testing.assert_allclose(found.outputs[bundle.outputs[0].name], expected, rtol=2e-6, atol=1e-6)
    assert bundle.trees
    assert bundle.covers
    # What the explainer adds up must be one of the outputs, and the same number.
    forest = read_forest(bundle.model)
    matrix = rows_of_table(table, bundle.signature, origin="").astype(np.float32)
    if forest.post_transform == "NONE":
        np.testing.assert_allclose(
            forest.raw_scores(matrix), found.outputs[forest.output_name], rtol=1e-5, atol=1e-5
        )


sklearn_models: dict[str, Callable[[], Any]] = {
    "tree": lambda: _sklearn(DecisionTreeClassifier(max_depth=5)),
    "forest": lambda: _sklearn(RandomForestClassifier(8, random_state=0)),
    "forest of three classes": lambda: _sklearn(RandomForestClassifier(8, random_state=0), _grade),
    "forest regression": lambda: _sklearn(RandomForestRegressor(8, random_state=0), _minutes),
    "boosting": lambda: _sklearn(GradientBoostingClassifier(n_estimators=8), missing=False),
    "boosting of three classes": lambda: _sklearn(
        GradientBoostingClassifier(n_estimators=8), _grade, missing=False
    ),
    "boosting exponential": lambda: _sklearn(
        GradientBoostingClassifier(n_estimators=8, loss="exponential"), missing=False
    ),
    "boosting regression": lambda: _sklearn(
        GradientBoostingRegressor(n_estimators=8), _minutes, missing=False
    ),
    "histogram": lambda: _sklearn(HistGradientBoostingClassifier(max_iter=8)),
    "histogram of three classes": lambda: _sklearn(HistGradientBoostingClassifier(max_iter=8), _grade),
    "histogram gamma": lambda: _sklearn(HistGradientBoostingRegressor(max_iter=8, loss="gamma"), _minutes),
}


@pytest.mark.parametrize("kind", sklearn_models)
def test_sklearn_trees_keep_thresholds_and_where_missing_values_go(kind: str, tmp_path: Path) -> None:
    trained = sklearn_models[kind]()
    report = _package(trained, tmp_path / "bundle")
    table = _flights(missing="boosting" not in kind, categories=False)
    expected = (
        trained.predict_proba(table) if report.bundle.classes else trained.predict(table).reshape(count, 1)
    )
    found = _predict(report.bundle, table)
    np.testing.assert_allclose(found.outputs[report.bundle.outputs[0].name], expected, rtol=1e-6, atol=1e-6)
    assert report.bundle.trees
    assert report.bundle.covers
    refuses = {feature.missing for feature in report.bundle.signature.features} == {"reject"}
    assert refuses == ("boosting" in kind)


def test_histogram_boosting_keeps_its_categories(tmp_path: Path) -> None:
    table = _flights()
    trained = HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype").fit(
        table, _late(table)
    )
    report = _package(trained, tmp_path / "bundle")
    assert report.bundle.signature.features[2].categories == tuple(carriers)
    found = _predict(report.bundle, table)
    np.testing.assert_allclose(found.outputs["probabilities"], trained.predict_proba(table), atol=1e-6)


def _encoded(encoder: Any, last: Any, *, impute: bool = False) -> Any:
    numeric = make_pipeline(SimpleImputer(), StandardScaler()) if impute else StandardScaler()
    columns = ColumnTransformer([("n", numeric, ["delay", "hour", "wind"]), ("c", encoder, ["carrier"])])
    table = _texts(_flights())
    return Pipeline([("columns", columns), ("model", last)]).fit(table, _late(_flights()))


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(carrier=table.carrier.astype(object).where(table.carrier.notna(), "AA"))


pipelines: dict[str, Callable[[], Any]] = {
    "one-hot forest": lambda: _encoded(
        OneHotEncoder(handle_unknown="ignore"), RandomForestClassifier(8, random_state=0)
    ),
    "ordinal forest": lambda: _encoded(OrdinalEncoder(), RandomForestClassifier(8, random_state=0)),
    "linear": lambda: _encoded(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(), impute=True),
}


@pytest.mark.parametrize("kind", pipelines)
def test_a_pipeline_keeps_its_named_inputs_and_string_categories(kind: str, tmp_path: Path) -> None:
    trained = pipelines[kind]()
    table = _texts(_flights())
    report = _package(trained, tmp_path / "bundle", background=table[:100], rows=table[100:])
    assert list(report.bundle.signature.columns) == list(table.columns)
    assert report.bundle.signature.features[2].categories == tuple(carriers)
    found = _predict(report.bundle, table)
    np.testing.assert_allclose(
        found.outputs[report.bundle.outputs[0].name], trained.predict_proba(table), atol=1e-6
    )
    np.testing.assert_array_equal(found.labels, trained.predict(table))


def test_a_pipeline_packaged_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    trained = pipelines["one-hot forest"]()
    table = _texts(_flights())
    digests = {
        _package(trained, tmp_path / "b", background=table, rows=table).bundle.digest for _ in range(2)
    }
    assert len(digests) == 1


def test_skops_files_are_packaged_and_strange_types_in_them_refused(tmp_path: Path) -> None:
    trained = _sklearn(HistGradientBoostingClassifier(max_iter=4))
    skops.io.dump(trained, tmp_path / "good.skops")
    assert _package(tmp_path / "good.skops", tmp_path / "bundle").parity.difference_max <= 1e-6
    skops.io.dump(make_pipeline(FunctionTransformer(_texts), Ridge()), tmp_path / "bad.skops")
    with pytest.raises(ConfigError, match="not a type that is trusted"):
        package(tmp_path / "bad.skops", tmp_path / "bundle2")


def test_a_pickle_is_not_a_model_file(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(ConfigError, match="is a pickle, which only Python may open"):
        package(tmp_path / "model.pkl", tmp_path / "bundle")
    assert main(["package", str(tmp_path / "model.pkl"), "--out", str(tmp_path / "bundle")]) == 2


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost_files_are_packaged_with_their_categories(suffix: str, tmp_path: Path) -> None:
    _xgboost().save_model(tmp_path / f"model.{suffix}")
    report = _package(tmp_path / f"model.{suffix}", tmp_path / "bundle")
    assert report.bundle.signature.features[2].categories == tuple(carriers)


def test_early_stopping_counts_where_the_model_itself_counts_it(tmp_path: Path) -> None:
    table = _flights()
    noisy = _late(table) ^ (np.random.default_rng(0).random(count) < 0.3)
    trained = xgboost.XGBClassifier(
        n_estimators=60, learning_rate=1.0, early_stopping_rounds=5, enable_categorical=True, n_jobs=1
    ).fit(table[:300], noisy[:300], eval_set=[(table[300:], noisy[300:])], verbose=False)
    trained.save_model(tmp_path / "model.json")
    best = trained.best_iteration + 1
    for model in (trained, tmp_path / "model.json"):
        report = _package(model, tmp_path / "bundle")
        assert read_forest(report.bundle.model).trees == best
        np.testing.assert_allclose(
            _predict(report.bundle, table).outputs["probabilities"], trained.predict_proba(table), atol=1e-6
        )
    booster = trained.get_booster()
    report = _package(booster, tmp_path / "bundle")  # Booster.predict uses every round
    assert read_forest(report.bundle.model).trees == booster.num_boosted_rounds() > best
    assert any("early" in note for note in report.notes)


def _torn() -> tuple[pd.DataFrame, Any, list[str]]:
    table = _flights()
    table["carrier"] = table.carrier.cat.rename_categories({"AA": "Ä", "B6": "ß6"})
    trained = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(table, _late(_flights()))
    return table, trained, list(table.carrier.cat.categories)


@pytest.mark.parametrize("way", ["live", "file, frame", "file, parquet"])
def test_categories_that_xgboost_tears_are_told_by_a_frame(way: str, tmp_path: Path) -> None:
    table, trained, names = _torn()
    model: Any = trained
    rows: Any = table
    if way != "live":
        model = tmp_path / "m.json"
        trained.save_model(model)
    if way == "file, parquet":
        rows = tmp_path / "rows.parquet"
        table.to_parquet(rows)
    report = _package(model, tmp_path / "bundle", background=rows)
    assert report.bundle.signature.features[2].categories == tuple(names)
    np.testing.assert_allclose(
        _predict(report.bundle, table).outputs["probabilities"], trained.predict_proba(table), atol=1e-6
    )


def test_categories_that_xgboost_tears_are_asked_for(tmp_path: Path) -> None:
    table, trained, names = _torn()
    others = table.assign(carrier=table.carrier.cat.reorder_categories(names[::-1]))
    for rows in (table.assign(carrier=0.0).to_numpy(), others):
        with pytest.raises(ConfigError, match="feature carrier is a category with names beyond ASCII"):
            _package(trained, tmp_path / "bundle", background=rows)
    features = [{"name": "carrier", "categories": names, "field": "flight.carrier", "unseen": "reject"}]
    report = _package(trained, tmp_path / "bundle", background=table, rows=table, features=features)
    carrier = report.bundle.signature.features[2]
    assert (carrier.categories, carrier.field, carrier.unseen) == (tuple(names), "flight.carrier", "reject")
    features[0]["categories"] = names[::-1]
    with pytest.raises(ConfigError, match="the categories of carrier in --features are not those"):
        _package(trained, tmp_path / "bundle", background=table, features=features)


def test_numbers_that_lightgbm_takes_for_zero_go_where_it_sends_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = np.where(random.random((count, 2)) < 0.5, 0.0, random.normal(size=(count, 2)))
    trained = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1).fit(
        rows, (rows[:, 0] >= 0) ^ (rows[:, 1] > 0)
    )
    tiny = np.float32(1e-35)
    corners = [-tiny, tiny, np.nextafter(-tiny, np.float32(-1)), np.nextafter(tiny, np.float32(1)), -0.0, 0.0]
    grid = np.array([[a, b] for a in corners for b in corners], dtype=np.float64)
    converted = convert(trained, PackageOptions())
    assert converted.forest is not None
    margin = converted.forest.raw_scores(as_fed(grid, converted.signature).astype(np.float32))[:, 0]
    np.testing.assert_allclose(margin, trained.predict(grid, raw_score=True), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: _lightgbm(_minutes, objective="regression", reg_sqrt=True), "objective"),
        (lambda: lightgbm.LGBMRegressor(linear_tree=True, n_estimators=2, verbose=-1).fit(
            np.arange(200.0).reshape(-1, 1), np.arange(200.0)), "linear trees"),
        (lambda: xgboost.XGBClassifier(objective="binary:hinge", n_estimators=2).fit(np.eye(4), [0, 1, 0, 1]),
         "binary:hinge"),
        (lambda: GradientBoostingRegressor(init=Ridge(), n_estimators=2).fit(np.eye(4), np.arange(4.0)), "starts from"),
        (lambda: object(), "cannot be packaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_exactly_is_refused_by_name(
    model: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        package(model(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_lightgbm_with_zeros_as_missing_is_refused_where_one_test_cannot_say_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="zero_as_missing"):
        package(_lightgbm(zero_as_missing=True), tmp_path / "bundle")


def test_twin_category_tests_become_one_and_score_alike() -> None:
    # x in {1}: 5, else x in {0, 3}: 5, else x in {2}: 7, else -1; NaN goes to the second 5.
    tree = Tree(
        feature=np.array([0, -1, 0, -1, 0, -1, -1]),
        threshold=np.zeros(7, dtype=np.float32),
        yes=np.array([1, -1, 3, -1, 5, -1, -1]),
        no=np.array([2, -1, 4, -1, 6, -1, -1]),
        missing_yes=np.array([False, False, True, False, False, False, False]),
        cover=np.array([10.0, 1, 9, 2, 7, 3, 4]),
        values=np.array([0.0, 5, 0, 5, 0, 7, -1]),
        sets={
            node: np.array(members, dtype=np.float32) for node, members in ((0, [1]), (2, [0, 3]), (4, [2]))
        },
    )
    forest = one_value([tree], features=1)
    rows = np.array([[0], [1], [2], [3], [4], [np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(forest.raw_scores(rows)[:, 0], [5, 5, 7, 5, -1, 5])
    assert forest.nodes == 5
    assert forest.cover is not None
    np.testing.assert_array_equal(forest.cover, [10, 3, 7, 3, 4])


@pytest.mark.parametrize(
    "text", ["", "tree\n", "tree\nnum_class=1\nTree=0\n", "tree\n\nTree=0\nnum_leaves=2\n"]
)
def test_a_broken_lightgbm_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(ConfigError):
        package(tmp_path / "m.txt", tmp_path / "bundle")


def test_a_converter_that_goes_wrong_is_caught(tmp_path: Path) -> None:
    converted = convert(_lightgbm(), PackageOptions())
    rows = rows_of_table(_flights(), converted.signature, origin="")
    nothing = np.empty((0, 4))

    def runner(model: bytes) -> OnnxModel:
        return OnnxModel(
            model=model,
            signature=converted.signature,
            outputs=converted.outputs,
            labels=converted.labels,
            device=Device(),
            threads=1,
            batch_rows_max=64,
        )

    good = prove_parity(converted, runner(converted.model), given=rows, made_up=nothing, tolerance=1e-5)
    assert good.difference_max <= 1e-6
    forgetful = onnx.load_from_string(converted.model)
    for node in forgetful.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_missing_value_tracks_true":
                attribute.ints[:] = [0] * len(attribute.ints)
    model = runner(forgetful.SerializeToString())
    with pytest.raises(ParityError, match="differs from the original"):
        prove_parity(converted, model, given=rows, made_up=nothing, tolerance=1e-5)
    inverted = replace(
        converted, score_labels=lambda rows: 1 - converted.score(rows)["probabilities"].argmax(axis=1)
    )
    with pytest.raises(ParityError, match="another class"):
        prove_parity(inverted, runner(converted.model), given=rows, made_up=nothing, tolerance=1e-5)


def test_rows_that_the_original_scores_otherwise_once_narrowed_are_scored_as_they_come(
    tmp_path: Path,
) -> None:
    rows = np.linspace(0.1, 0.9, 9).reshape(-1, 1)  # no float32 among them
    trained = HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=1, learning_rate=1.0).fit(
        np.repeat(rows, 5, axis=0), np.repeat(np.arange(9.0), 5)
    )
    # Between two training values there is a threshold; these rows sit just below it and round to just above.
    wide = np.array([np.nextafter((a + b) / 2, 0) for a, b in zip(rows[:-1, 0], rows[1:, 0], strict=True)])
    report = package(trained, tmp_path / "bundle", rows=wide.reshape(-1, 1))
    moved = trained.predict(wide.reshape(-1, 1)) != trained.predict(wide.astype(np.float32).reshape(-1, 1))
    assert moved.sum() > 0
    model = open_model(report.bundle, device="cpu", batch_rows_max=8, clock=SystemClock())
    found = model.predict(as_fed(wide.reshape(-1, 1), report.bundle.signature)).outputs["value"]
    np.testing.assert_allclose(found[:, 0], trained.predict(wide.reshape(-1, 1)), atol=1e-6)


def _zip_map_model() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["shares"], axis=1),
        helper.make_node("ArgMax", ["shares"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["shares"], ["scores"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    outputs = [tensor("label", ["N"], TensorProto.INT64), helper.make_value_info("scores", kind)]
    weights = np.array([[1.0, -1.0], [0.5, 2.0], [-2.0, 0.25]], dtype=np.float32)
    return graph_bytes(nodes, [tensor("x", ["N", 3])], outputs, [constant("w", weights)])


def test_a_zip_map_is_taken_out_of_a_graph_that_imports_no_other_operators(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(_zip_map_model())
    del model.graph.node[:3]
    scores = helper.make_node(
        "LinearClassifier", ["x"], ["label", "shares"], domain="ai.onnx.ml", classlabels_ints=[0, 1],
        coefficients=[1.0, 0.5, -2.0, -1.0, 2.0, 0.25], intercepts=[0.0, 0.1], post_transform="SOFTMAX",
    )  # fmt: skip
    model.graph.node.insert(0, scores)
    model.graph.ClearField("initializer")
    model.ClearField("opset_import")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    report = package(tmp_path / "model.onnx", tmp_path / "bundle")
    assert report.bundle.outputs[0].width == 2
    assert report.bundle.classes == ("0", "1")


def test_an_onnx_model_loses_its_zip_map_and_keeps_its_scores(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(_zip_map_model())
    report = package(tmp_path / "model.onnx", tmp_path / "bundle", feature_names=["a", "b", "c"])
    assert report.parity.difference_max == 0
    assert report.bundle.classes == ("0", "1")
    assert report.bundle.signature.columns == ("a", "b", "c")
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model = open_model(report.bundle, device="cpu", batch_rows_max=8, clock=SystemClock())
    np.testing.assert_allclose(model.predict(rows).outputs["scores"], linear_scores(rows), atol=1e-6)


def test_a_network_with_class_names_answers_the_highest(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model())
    report = package(tmp_path / "model.onnx", tmp_path / "bundle", classes=["cat", "dog"])
    assert report.bundle.classes == ("cat", "dog")
    assert not report.bundle.trees
    assert any("cannot be explained" in note for note in report.notes)
    with pytest.raises(ConfigError, match="3 classes"):
        package(tmp_path / "model.onnx", tmp_path / "other", classes=["cat", "dog", "cow"])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"name": "carrier", "categories": ["AA"], "kind": "number"}], "category table"),
        ([{"name": "a"}, {"name": "b"}], "make 2 columns, the model takes 4"),
        ([{"name": "v", "kind": "vector", "width": 4}], "column 2"),
        ([{"name": "hour"}, {"name": "hour"}], "each name once"),
        ([{"kind": "number"}], "a name for each"),
        ([{"name": "hour", "colour": "red"}], "a feature is"),
    ],
)
def test_features_that_do_not_fit_the_model_are_refused(
    features: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        package(_lightgbm(n_estimators=2), tmp_path / "bundle", features=features)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_rows_are_read_from_files(kind: str, tmp_path: Path) -> None:
    signature = convert(_lightgbm(n_estimators=2), PackageOptions()).signature
    table = _flights()
    expected = rows_of_table(table, signature, origin="")
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        np.save(path, expected)
    np.testing.assert_array_equal(read_rows(path, signature), expected)
    assert np.isnan(expected[13, 2])
    assert expected[1, 2] == carriers.index(table.carrier[1])


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    trained = _lightgbm(n_estimators=2)
    for rows, message in (
        (np.zeros((3, 2)), "4 columns"),
        (np.full((1, 4), 9.0), "not in its table"),
        (_flights().drop(columns="wind"), "no column wind"),
        (tmp_path / "rows.xlsx", "cannot read|neither"),
    ):
        with pytest.raises(ConfigError, match=message):
            package(trained, tmp_path / "bundle", rows=rows)


def test_the_command_packages_reports_and_checks_the_input_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _lightgbm().booster_.save_model(tmp_path / "m.txt")
    fields = [{"name": name, "type": ["null", "double"]} for name in ("delay", "hour", "wind")]
    fields.append({"name": "carrier", "type": ["null", "string"]})
    for name, chosen in (("good", fields), ("bad", fields[1:])):
        schema = {"type": "record", "name": "Flight", "fields": chosen}
        (tmp_path / f"{name}.avsc").write_text(json.dumps(schema))
    words = ["package", str(tmp_path / "m.txt"), "--out", str(tmp_path / "bundle"), "--json"]
    assert main([*words, "--input-schema", str(tmp_path / "bad.avsc")]) == 2
    assert "field delay is missing" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
    assert main([*words, "--input-schema", str(tmp_path / "good.avsc"), "--classes", "no,yes"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == ["no", "yes"]
    assert report["digest"] == Bundle.load(tmp_path / "bundle").digest
    assert report["parity"]["difference_max"] <= 1e-6


@pytest.mark.parametrize("given", ["background", "rows"])
@pytest.mark.parametrize("as_file", [True, False])
def test_times_given_in_other_units_than_the_stream_has_are_refused(
    given: str, as_file: bool, tmp_path: Path
) -> None:
    """A thousand times as large, they would have made a background that no record is like, in silence."""
    seen = pd.DataFrame({"at": pd.date_range("2026-11-01", periods=200, freq="h"), "x": np.arange(200.0)})
    trained_on = seen.assign(at=seen["at"].astype("datetime64[ms]").astype(np.int64).astype(float))
    booster = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(trained_on, seen["x"] > 100).booster_
    booster.save_model(tmp_path / "m.txt")
    fields = [
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "x", "type": "double"},
    ]
    schema = tmp_path / "in.avsc"
    schema.write_text(json.dumps({"type": "record", "name": "Seen", "fields": fields}))

    def as_given(unit: str) -> Any:
        frame = seen.assign(at=seen["at"].astype(f"datetime64[{unit}]"))
        if as_file:
            frame.to_parquet(tmp_path / f"{unit}.parquet")
        return tmp_path / f"{unit}.parquet" if as_file else frame

    def packaged(unit: str, out: str) -> PackageReport:
        return package(tmp_path / "m.txt", tmp_path / out, input_schema=schema, **{given: as_given(unit)})

    with pytest.raises(
        ConfigError, match=r"column at holds times in microseconds, .* has them in milliseconds"
    ):
        packaged("us", "refused")
    assert not (tmp_path / "refused").exists()
    kept = packaged("ms", "bundle").bundle.background
    if given == "background":
        assert kept is not None
        np.testing.assert_array_equal(kept[:, 0], trained_on["at"].astype(np.float32))


@pytest.mark.parametrize(
    "kind", ["lightgbm multi-class", "lightgbm poisson", "xgboost binary", "xgboost partitions"]
)
def test_trees_are_proved_equal_on_the_native_kernel(kind: str, tmp_path: Path) -> None:
    report = _package(models[kind](), tmp_path / "bundle")
    proof = report.bundle.manifest.runtime.native
    assert proof.equal, proof.reason
    assert proof.tests_hit == proof.tests
    assert proof.rows > count + 2 * proof.tests
    assert [each.rows for each in report.compared] == [1, 16, 256, 1024]
    model = open_model(report.bundle, device="cpu", runtime="native", batch_rows_max=64, clock=SystemClock())
    table = _flights()
    matrix = rows_of_table(table, report.bundle.signature, origin="").astype(np.float32)
    found, expected = model.predict(matrix), _predict(report.bundle, table)
    for name, scores in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], scores, atol=1e-6 * np.abs(scores).max(), rtol=0)


def test_an_onnx_classifier_of_trees_is_proved_with_its_labels(tmp_path: Path) -> None:
    packaged = _package(_xgboost(), tmp_path / "first").bundle
    graph = onnx.load_from_string(packaged.model)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    features = [{"name": feature.name, "kind": feature.kind} | (
        {"categories": list(feature.categories)} if feature.categories else {}
    ) for feature in packaged.signature.features]  # fmt: skip
    report = _package(tmp_path / "model.onnx", tmp_path / "second", features=features)
    assert report.bundle.labels is not None
    assert report.bundle.labels.values == (0, 1)
    assert report.bundle.manifest.runtime.native.equal


def test_what_is_no_tree_ensemble_says_why_it_is_not_native(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model())
    words = ["package", str(tmp_path / "model.onnx"), "--out", str(tmp_path / "bundle")]
    assert main(words) == 1
    assert "not compared with the original: scores" in capsys.readouterr().out
    assert main([*words, "--unproved"]) == 0
    assert "no: our tree kernel takes tree ensembles only" in capsys.readouterr().out
    _lightgbm(n_estimators=2).booster_.save_model(tmp_path / "m.txt")
    assert main(["package", str(tmp_path / "m.txt"), "--out", str(tmp_path / "trees"), "--json"]) == 0
    runtime = json.loads(capsys.readouterr().out)["runtime"]
    assert runtime["native"]["equal"]
    assert [each["rows"] for each in runtime["compared"]] == [1, 16, 256, 1024]
