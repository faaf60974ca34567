"""Large ensembles as tables of arrays: the same trees to the last bit, nothing broken is believed, and what a bundle of them does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

from penstock.engine.clock import SystemClock
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.memory import worker_bytes
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.native_trees import NativeModel
from penstock.engine.trees.forest import Forest, ordered
from penstock.engine.trees.table_file import (
    is_table,
    read_table,
    same_trees,
    table_nodes_min,
    with_output,
    write_table,
)
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest, random_rows

shapes = st.tuples(st.integers(0, 10_000), st.integers(0, 7), st.integers(1, 3), st.integers(0, 5))


def forest_of(shape: tuple[int, int, int, int]) -> Forest:
    seed, depth, outputs, sets = shape
    return random_forest(seed, trees=3, depth=depth, outputs=outputs, sets=sets)


def shuffled(forest: Forest, seed: int) -> Forest:
    """The same trees, their nodes in another order."""
    order = np.random.default_rng(seed).permutation(forest.nodes)
    number = np.empty(forest.nodes, dtype=np.int32)
    number[order] = np.arange(forest.nodes, dtype=np.int32)
    moved: dict[str, Any] = {
        name: np.where(getattr(forest, name)[order] < 0, -1, number[getattr(forest, name)[order]])
        for name in ("yes", "no")
    }
    rest: dict[str, Any] = {
        name: getattr(forest, name)[order]
        for name in ("feature", "threshold", "set_index", "missing_yes", "leaf", "cover")
    }
    return replace(
        forest, roots=number[forest.roots], **rest, **{k: v.astype(np.int32) for k, v in moved.items()}
    )


@given(shapes)
def test_a_table_reads_back_as_the_trees_that_were_written(shape: tuple[int, int, int, int]) -> None:
    forest = forest_of(shape)
    data = write_table(forest)
    assert is_table(data)
    assert same_trees(read_table(data), ordered(forest))
    assert data == write_table(forest)
    without = replace(forest, cover=None)
    assert read_table(write_table(without)).cover is None


@given(shapes, st.integers(0, 100))
def test_the_canonical_order_is_found_again_and_left_alone(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    forest = ordered(forest_of(shape))
    assert ordered(forest) is forest
    assert same_trees(ordered(shuffled(forest, seed)), forest)


@given(shapes)
def test_scores_and_attributions_are_those_of_the_trees(shape: tuple[int, int, int, int]) -> None:
    forest, rows = forest_of(shape), random_rows(shape[0], 30)
    back = read_table(write_table(forest))
    assert np.array_equal(back.raw_scores(rows), forest.raw_scores(rows))
    for background in (None, random_rows(1, 4)):
        one, two = (
            TreeShap(each, background=background).contributions(rows) for each in (ordered(forest), back)
        )
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


@settings(max_examples=300)
@given(shapes, st.integers(0, 1 << 30), st.integers(1, 255), st.booleans())
def test_a_damaged_table_is_refused_or_still_trees(
    shape: tuple[int, int, int, int], place: int, change: int, cut: bool
) -> None:
    data = bytearray(write_table(forest_of(shape)))
    if cut:
        del data[place % len(data) :]
    else:
        data[place % len(data)] ^= change
    try:
        forest = read_table(bytes(data))
    except ConfigError:
        return
    assert not cut
    runs(forest)


def runs(forest: Forest) -> None:
    """Whatever is read can be run: no index leads out of its arrays."""
    assert np.isfinite(forest.raw_scores(random_rows(0, 5, forest.features))).all()


@pytest.mark.parametrize(
    "member", ["features", "outputs", "labels", "mirror", "arrays", "output_name", "post_transform"]
)
@pytest.mark.parametrize("value", [None, -1, "x", [], {}, [["roots", "<i4", -5]], 1e300, True])
def test_a_header_of_other_types_is_refused(member: str, value: object) -> None:
    data = write_table(random_forest(3, trees=2, depth=3))
    start = data.index(b"{")
    length = int.from_bytes(data[start - 8 : start], "little")
    header = json.loads(data[start : start + length])
    if header[member] == value:
        return
    changed = json.dumps(header | {member: value}).encode()
    broken = data[: start - 8] + len(changed).to_bytes(8, "little") + changed + data[start + length :]
    with pytest.raises(ConfigError, match=r"table of trees|forest|tree ensemble"):
        read_table(broken)


def test_the_second_output_is_the_exponential() -> None:
    forest = replace(random_forest(3, trees=2, depth=3), output_name="log_value")
    data = write_table(forest, exponential="value")
    back = read_table(data)
    assert with_output(data, back, None) is back
    assert with_output(data, back, "log_value") is back
    assert with_output(data, back, "value").post_transform == "EXP"
    with pytest.raises(ConfigError, match="no output other"):
        with_output(data, back, "other")


def _models(seed: int = 0) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(400, 4)).round(2)
    two, three = (rows[:, 0] > 0).astype(int), np.digitize(rows[:, 1], [-0.5, 0.5])
    counts = rng.poisson(np.exp(rows[:, 2] / 2))
    few = {"n_estimators": 8, "max_depth": 4}
    return {
        "forest": RandomForestRegressor(8, random_state=0).fit(rows, rows[:, 0] * rows[:, 1]),
        "two classes": RandomForestClassifier(8, random_state=0).fit(rows, two),
        "three classes": RandomForestClassifier(8, random_state=0).fit(rows, three),
        "xgboost, two classes": xgboost.XGBClassifier(**few).fit(rows, two),
        "xgboost, three classes": xgboost.XGBClassifier(**few).fit(rows, three),
        "xgboost, counts": xgboost.XGBRegressor(**few, objective="count:poisson").fit(rows, counts),
        "lightgbm": lightgbm.LGBMRegressor(n_estimators=8, verbose=-1).fit(rows, rows[:, 0] * rows[:, 1]),
        "lightgbm, three classes": lightgbm.LGBMClassifier(n_estimators=8, verbose=-1).fit(rows, three),
    }


@pytest.mark.parametrize("name", list(_models()))
def test_every_kind_of_ensemble_answers_from_a_table_as_from_a_graph(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _models()[name]
    background = np.random.default_rng(1).normal(size=(20, 4)).round(2)
    graph = package(model, tmp_path / "graph", name="m", background=background).bundle
    monkeypatch.setattr("penstock.engine.models.packaging.stored_trees.table_nodes_min", 1)
    report = package(model, tmp_path / "table", name="m", background=background)
    table = report.bundle
    assert (table.table is not None, graph.table is not None) == (True, False)
    assert not report.parity.not_compared
    assert sorted(
        path.name for path in (tmp_path / "table").iterdir() if path.suffix in (".onnx", ".table")
    ) == ["trees.table"]
    rows = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    one, two = NativeModel(graph).predict(rows), NativeModel(table).predict(rows)
    for output, scores in one.outputs.items():
        assert np.abs(two.outputs[output] - scores).max() <= 1e-6 * max(1.0, float(np.abs(scores).max()))
    assert (one.labels is None) == (two.labels is None)
    first, second = (TreeShap.from_bundle(each) for each in (graph, table))
    assert first.forest.space == second.forest.space
    assert np.abs(first.contributions(rows)[0] - second.contributions(rows)[0]).max() < 1e-6


def test_a_forest_of_a_million_nodes_is_kept_as_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60_000, 5)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + rng.normal(size=len(rows))
    forest = ExtraTreesRegressor(9, max_features=1, random_state=0).fit(rows, target)
    report = package(forest, tmp_path / "bundle", background=rows[:50])
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.table is not None
    assert bundle.table.nodes > table_nodes_min
    assert any("kept as a table" in note for note in report.notes)
    assert worker_bytes(bundle) < 150 * bundle.table.nodes + (400 << 20)
    model = open_model(bundle, batch_rows_max=64, clock=SystemClock())
    assert model.runtime == "native"
    new = rng.normal(size=(64, 5)).astype(np.float32)
    expected = forest.predict(new)
    assert np.abs(model.predict(new).outputs["value"][:, 0] - expected).max() < 1e-6
    shap = TreeShap.from_bundle(bundle)
    values, scores = shap.contributions(new, precision="float64")
    assert np.abs(shap.base + values.sum(axis=1) - scores).max() < 1e-12
    assert np.abs(shap.contributions(new)[0] - values).max() < 1e-6
    assert np.abs(scores[:, 0] - expected).max() < 1e-12  # leaf values are doubles here
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"runtime": "onnxruntime"}, "runtime onnxruntime"),
        ({"device": "cuda"}, "device cuda"),
    )
    for asked, words in refused:
        with pytest.raises(
            ConfigError, match=f"as a table that our kernel reads, on the CPU, and model.{words}"
        ):
            open_model(bundle, batch_rows_max=64, clock=SystemClock(), **asked)


def test_a_folder_with_both_or_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _models()["forest"]
    package(model, tmp_path / "graph", name="m")
    monkeypatch.setattr("penstock.engine.models.packaging.stored_trees.table_nodes_min", 1)
    package(model, tmp_path / "table", name="m")
    with pytest.raises(ConfigError, match="leave --optimize out"):
        package(model, tmp_path / "other", name="m", optimize_within=1e-3)
    (tmp_path / "graph" / "trees.table").write_bytes((tmp_path / "table" / "trees.table").read_bytes())
    with pytest.raises(ConfigError, match=r"trees\.table does not belong there"):
        Bundle.load(tmp_path / "graph")
    (tmp_path / "table" / "trees.table").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx is missing"):
        Bundle.load(tmp_path / "table")
