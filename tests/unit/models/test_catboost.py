"""CatBoost models with categories: what the bundle answers to a record is what CatBoost answers, whatever its tests combine."""

import json
import os
import random
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from penstock.engine.cli.main import main
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.features.policies import unseen_code
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.native_trees import NativeModel
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.readers.catboost import read_catboost, read_columns
from penstock.schemas.errors import ConfigError

letters = list("abcdef")
tables = {"c0": letters, "c1": letters[::-1], "few": ["x", "y"]}
features = [{"name": name, "categories": table} for name, table in tables.items()]
losses = {
    "Logloss": "Probability",
    "MultiClass": "Probability",
    "MultiClassOneVsAll": "Probability",
    "RMSE": "RawFormulaVal",
    "Quantile:alpha=0.3": "RawFormulaVal",
    "Poisson": "Exponent",
}
ways: dict[str, dict[str, Any]] = {
    "as it is by default": {},
    "statistics of all kinds": {
        "simple_ctr": ["BinarizedTargetMeanValue", "Counter", "Buckets", "Borders"],
        "combinations_ctr": ["Buckets", "Counter", "BinarizedTargetMeanValue", "Borders"],
        "model_size_reg": 0,
        "max_ctr_complexity": 4,
        "boosting_type": "Plain",
    },
    "combinations": {"model_size_reg": 0, "max_ctr_complexity": 4, "boosting_type": "Plain", "depth": 6},
    "lossguide": {"grow_policy": "Lossguide"},
    "depthwise": {"grow_policy": "Depthwise"},
    "one-hot": {"one_hot_max_size": 10},
    "missing numbers high": {"nan_mode": "Max"},
    "no combinations": {"max_ctr_complexity": 1},
    "deep": {"depth": 7, "iterations": 15},
}


def frame_of(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n0": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows).round(2)),
            "n1": rng.uniform(1e7, 2e7, rows).round(0),
            "c0": rng.choice(letters, rows),
            "c1": rng.choice(letters, rows),
            "few": rng.choice(["x", "y"], rows),
        }
    )


def trained(loss: str, seed: int = 0, rows: int = 700, **more: Any) -> tuple[Any, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    table = frame_of(rng, rows)
    # A category counts, and the pair counts more: so combinations are worth a test.
    pairs = rng.integers(0, 3, (6, 6)) + 2 * (np.arange(6)[:, None] > 2)
    codes = [table[name].map({each: at for at, each in enumerate(letters)}) for name in ("c0", "c1")]
    y = pairs[codes[0], codes[1]]
    y = np.where((table["n0"] > 0.3) & (table["few"] == "x"), 4 - y, y)
    settings: dict[str, Any] = {
        "iterations": 25,
        "depth": 4,
        "verbose": 0,
        "allow_writing_files": False,
        "thread_count": 1,
    }
    settings |= {"loss_function": loss, "random_seed": seed, **more}
    model = catboost.CatBoost(settings)
    return model.fit(table, y > 1 if loss == "Logloss" else y, cat_features=list(tables)), table


def matrix_of(table: pd.DataFrame) -> NDArray[np.float32]:
    """As the stream makes it of records: a category that is not in its table is what an unseen one becomes, NaN."""
    columns = {
        name: table[name].map({each: at for at, each in enumerate(tables[name])})
        if name in tables
        else table[name]
        for name in table.columns
    }
    return pd.DataFrame(columns).to_numpy(dtype=np.float32)


def strange(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """With categories that training never saw, here and there."""
    rng = np.random.default_rng(seed)
    changed = table.copy()
    for name in tables:
        changed.loc[rng.random(len(table)) < 0.2, name] = "never seen"
    return changed


def combines(model: Any, tmp_path: Path) -> bool:
    model.save_model(str(tmp_path / "said.json"), format="json")
    ctrs = json.loads((tmp_path / "said.json").read_text())["features_info"].get("ctrs", [])
    return any(len(ctr["elements"]) > 1 for ctr in ctrs)


@pytest.mark.parametrize("way", list(ways))
@pytest.mark.parametrize("loss", list(losses))
def test_records_are_answered_as_catboost_answers_them(loss: str, way: str, tmp_path: Path) -> None:
    model, table = trained(loss, **ways[way])
    report = package(model, tmp_path / "bundle", features=features, background=table[:60])
    assert report.bundle.trees
    new = strange(frame_of(np.random.default_rng(5), 400), 6)
    expected = np.asarray(model.predict(new, prediction_type=losses[loss])).reshape(len(new), -1)
    found = NativeModel(report.bundle).predict(matrix_of(new))
    name = "probabilities" if losses[loss] == "Probability" else "value"
    assert np.abs(found.outputs[name] - expected).max() <= 1e-6 * max(1.0, float(np.abs(expected).max()))
    shap = TreeShap.from_bundle(report.bundle)
    values, scores = shap.contributions(matrix_of(new), precision="float64")
    assert np.abs(shap.base + values.sum(axis=1) - scores).max() < 1e-9


@pytest.mark.parametrize("boosting", ["Ordered", "Plain"])
@pytest.mark.parametrize("kind", ["Borders", "Buckets", "BinarizedTargetMeanValue", "Counter"])
def test_statistics_of_the_target_are_explained_relative_to_the_background(
    kind: str, boosting: str, tmp_path: Path
) -> None:
    """In training each row was sent by what the rows before it said, so that the weights of the leaves are of other rows."""
    more: dict[str, Any] = {
        "simple_ctr": [kind],
        "max_ctr_complexity": 1,
        "boosting_type": boosting,
        "model_size_reg": 0,
    }
    model, table = trained("RMSE", **more)
    background = table[:50]
    bundle = package(model, tmp_path / "bundle", features=features, background=background).bundle
    shap = TreeShap.from_bundle(bundle)
    values, scores = shap.contributions(matrix_of(table), precision="float64")
    np.testing.assert_allclose(shap.base + values.sum(axis=1), scores, atol=1e-9)
    if kind == "Counter":  # how often a category was met is one number, in training and in the model
        theirs = model.get_feature_importance(
            catboost.Pool(table, cat_features=list(tables)), type="ShapValues"
        )
        assert shap.method == "tree_path_dependent"
        np.testing.assert_allclose(values[:, :, 0], theirs[:, :-1], atol=1e-6)
        np.testing.assert_allclose(shap.base, theirs[0, -1], atol=1e-6)
        return
    assert shap.method == "tree_interventional"
    np.testing.assert_allclose(shap.base, model.predict(background).mean(), atol=1e-6)
    bare = package(model, tmp_path / "bare", features=features)
    with pytest.raises(ConfigError, match=r"neither covers nor background rows to explain by.*--background"):
        TreeShap.from_bundle(bare.bundle)


def test_combinations_of_features_are_explained_by_enumeration_over_the_original(tmp_path: Path) -> None:
    model, table = trained("RMSE", iterations=12, **ways["statistics of all kinds"])
    assert combines(model, tmp_path)
    background = table[:7]
    bundle = package(model, tmp_path / "bundle", features=features, background=background).bundle
    shap = TreeShap.from_bundle(bundle)
    assert shap.method == "tree_interventional"  # nobody knows the covers of a test that became several
    rows = frame_of(np.random.default_rng(9), 5)
    values, _ = shap.contributions(matrix_of(rows), precision="float64")
    names = list(rows.columns)
    for place in range(len(rows)):
        means = {}
        for coalition in range(1 << len(names)):
            mixed = background.copy()
            for bit, name in enumerate(names):
                if coalition >> bit & 1:
                    mixed[name] = rows[name].iloc[place]
            means[coalition] = float(model.predict(mixed).mean())
        for bit in range(len(names)):
            value = 0.0
            for coalition, mean in means.items():
                if coalition >> bit & 1:
                    size = bin(coalition).count("1")
                    weight = 1 / (len(names) * _choose(len(names) - 1, size - 1))
                    value += weight * (mean - means[coalition ^ 1 << bit])
            assert abs(values[place, bit, 0] - value) < 1e-6


def _choose(n: int, k: int) -> int:
    from math import comb

    return comb(n, k)


def test_where_tests_are_of_one_feature_the_covers_are_catboosts(tmp_path: Path) -> None:
    model, table = trained("RMSE", one_hot_max_size=10)
    bundle = package(model, tmp_path / "bundle", features=features).bundle
    assert bundle.covers
    pool = catboost.Pool(table, cat_features=list(tables))
    theirs = model.get_feature_importance(pool, type="ShapValues")
    shap = TreeShap.from_bundle(bundle)
    # Theirs asks the tests from the last to the first, so that values of one record differ; what they start from does not.
    assert np.abs(shap.base - theirs[:, -1]).max() < 1e-6
    ours, _ = shap.contributions(matrix_of(table), precision="float64")
    assert np.abs(ours[:, :, 0].sum(axis=1) - theirs[:, :-1].sum(axis=1)).max() < 1e-6


@pytest.mark.parametrize("suffix", ["cbm", "json"])
def test_a_file_is_packaged_with_its_categories(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, table = trained("Logloss")
    path = tmp_path / f"model.{suffix}"
    model.save_model(str(path), format=suffix)
    words = ["package", str(path), "--out", str(tmp_path / "bundle")]
    assert main(words) == 2
    assert "feature c0 is a category, and the model file does not keep its table" in capsys.readouterr().err
    (tmp_path / "features.json").write_text(json.dumps(features))
    table[:50].to_csv(tmp_path / "rows.csv", index=False)
    assert (
        main(
            [
                *words,
                "--features",
                str(tmp_path / "features.json"),
                "--background",
                str(tmp_path / "rows.csv"),
            ]
        )
        == 0
    )
    assert "exact tree SHAP" in capsys.readouterr().out
    bundle = Bundle.load(tmp_path / "bundle")
    expected = model.predict(table, prediction_type="Probability")
    found = NativeModel(bundle).predict(matrix_of(table)).outputs["probabilities"]
    assert np.abs(found - expected).max() < 1e-6
    (feature,) = [each for each in bundle.signature.features if each.name == "c0"]
    assert feature.missing == "reject"  # as CatBoost does
    assert unseen_code not in range(len(feature.categories))


def test_numbers_alone_need_no_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3)).round(2)
    rows[::7, 1] = np.nan
    model = catboost.CatBoostClassifier(iterations=20, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(rows, np.where(rows[:, 0] > 0, "yes", "no"))
    bundle = package(model, tmp_path / "bundle").bundle
    assert bundle.classes == ("no", "yes")
    assert bundle.covers
    new = rng.normal(size=(300, 3)).round(2)
    found = NativeModel(bundle).predict(new.astype(np.float32))
    assert np.abs(found.outputs["probabilities"] - model.predict_proba(new)).max() < 1e-6


def test_a_table_that_lacks_categories_of_the_training_is_refused(tmp_path: Path) -> None:
    model, _ = trained("RMSE", one_hot_max_size=1)
    short = [dict(item) for item in features]
    short[0] = {"name": "c0", "categories": letters[:-1]}
    with pytest.raises(ConfigError, match=r"trained on \d+ more values of c0"):
        package(model, tmp_path / "bundle", features=short)


def test_what_no_bundle_can_keep_is_refused_by_name(tmp_path: Path) -> None:
    model, table = trained("RMSEWithUncertainty", posterior_sampling=True)
    with pytest.raises(ConfigError, match="loss RMSEWithUncertainty has an output that no bundle can keep"):
        package(model, tmp_path / "bundle", features=features)
    classifier = catboost.CatBoostClassifier(
        iterations=3, verbose=0, allow_writing_files=False, thread_count=1
    )
    classifier.fit(table[["n1"]], table["few"] == "x")
    classifier.set_probability_threshold(0.3)
    with pytest.raises(ConfigError, match=r"from a probability of 0\.3 on"):
        package(classifier, tmp_path / "bundle")


@pytest.mark.parametrize("suffix", ["cbm", "json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "half a word"])
def test_damaged_files_are_refused_in_a_sentence(
    suffix: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = trained("RMSE", iterations=3)
    path = tmp_path / f"model.{suffix}"
    model.save_model(str(path), format=suffix)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "noise": b"\x00\xff" * 50, "half a word": data[:3]}[
            damage
        ]
    )
    (tmp_path / "features.json").write_text(json.dumps(features))
    words = [
        "package",
        str(path),
        "--out",
        str(tmp_path / "bundle"),
        "--features",
        str(tmp_path / "features.json"),
    ]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"model.{suffix}" in said


@pytest.mark.parametrize("way", ["combinations", "one-hot"])
def test_mutants_of_the_json_are_trees_or_refused(way: str, tmp_path: Path) -> None:
    model, _ = trained("MultiClass", **ways[way] | {"iterations": 3, "depth": 3})
    model.save_model(str(tmp_path / "m.json"), format="json")
    data = (tmp_path / "m.json").read_bytes()
    hashes = {column: np.arange(6 if column < 4 else 2, dtype=np.int32) for column in (2, 3, 4)}
    chance = random.Random(0)
    for _ in range(int(os.environ.get("PENSTOCK_SOAK_MUTANTS", "150"))):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(mutant))
            if chance.random() < 0.5:
                mutant[place] = chance.choice(b'0123456789-.e[]{},:"nulltrue')
            else:
                del mutant[place : place + chance.randint(1, 30)]
        try:
            forest = read_catboost(read_columns(bytes(mutant)), hashes).forest
        except ConfigError:
            continue
        assert isinstance(forest, Forest)


def test_categories_of_any_script_and_sign_are_found_by_their_hash(tmp_path: Path) -> None:
    strange = ["Zürich", "日本", 'a"b', "a\\b", "a}b", "tab\there", "\x01x", "ü1"]
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=300), "place": rng.choice(strange, 300)})
    trained = catboost.CatBoostRegressor(
        iterations=8, depth=3, verbose=0, allow_writing_files=False, thread_count=1, one_hot_max_size=2
    ).fit(rows, rows.x + rows.place.map(strange.index), cat_features=["place"])
    tables = [{"name": "place", "kind": "category", "categories": strange}]
    report = package(trained, tmp_path / "bundle", features=tables, rows=rows)
    assert report.parity.difference_max < 1e-6
    assert report.parity.rows_given == 300


@pytest.mark.parametrize("one_hot", [False, True], ids=["numbers", "one-hot"])
def test_attributions_are_those_of_catboost_itself(one_hot: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"a": rng.normal(size=400), "b": rng.normal(size=400), "c": rng.normal(size=400)})
    given: list[dict[str, Any]] = []
    if one_hot:
        rows["c"] = rng.choice(letters, 400)
        given = [{"name": "c", "kind": "category", "categories": letters}]
    answers = rows.a * rows.b + (rows.c == "a" if one_hot else rows.c)
    columns = ["c"] if one_hot else []
    trained = catboost.CatBoostRegressor(
        iterations=10, depth=4, verbose=0, allow_writing_files=False, thread_count=1, one_hot_max_size=10
    ).fit(rows, answers, cat_features=columns)
    bundle = package(trained, tmp_path / "bundle", features=given).bundle
    codes = rows[:50].copy()
    if one_hot:
        codes["c"] = [letters.index(letter) for letter in codes.c]
    values, base = TreeShap.from_bundle(bundle).shap_values(codes.to_numpy(dtype=np.float64))
    wanted = trained.get_feature_importance(catboost.Pool(rows[:50], cat_features=columns), type="ShapValues")
    np.testing.assert_allclose(values, wanted[:, :-1], atol=1e-5)
    np.testing.assert_allclose(base, wanted[0, -1], atol=1e-6)


def test_a_file_of_cross_entropy_names_no_classes_and_is_packaged(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    options = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
    trained = catboost.CatBoost({"loss_function": "CrossEntropy", "iterations": 3, **options})
    trained.fit(rows, 1 / (1 + np.exp(-rows[:, 0])))
    trained.save_model(str(tmp_path / "model.json"), format="json")
    report = package(tmp_path / "model.json", tmp_path / "bundle")
    assert report.bundle.classes == ("0", "1")
    assert report.parity.compared == {"probabilities": "predict, Probability"}
