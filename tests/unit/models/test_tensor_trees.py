"""Trees as a graph of tensors, against our kernel and ONNX Runtime; on the CPU here, and on a GPU where there is one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.io_binding import BoundModel
from penstock.engine.models.runtime.native_trees import NativeModel, check_rows, difference
from penstock.engine.models.runtime.session import choose_device
from penstock.engine.models.runtime.session_spec import Graph, Opening
from penstock.engine.models.runtime.tensor_trees import RawScores, TensorTrees, rows_at_once
from penstock.engine.models.runtime.tree_outputs import TreeAnswers
from penstock.engine.trees.forest import joined
from penstock.schemas.errors import ConfigError, ModelError
from tests.forests import random_forest, random_rows
from tests.unit.models.test_native_model import graph_of, kinds, onnx_model, rows_of

devices = [
    pytest.param(Device(), id="cpu"),
    pytest.param(
        Device(cuda=0),
        id="cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not cuda_devices(), reason="no GPU here")],
    ),
]


def tensors(graph: Graph, device: Device) -> TensorTrees:
    if device.cuda is not None:
        choose_device(device.name)  # makes the CUDA libraries known
    answers = TreeAnswers(graph)
    opening = Opening(device=device, threads=1, batch_rows_max=64)
    return TensorTrees(answers, opening.open(RawScores.of(answers.forest)))


@pytest.mark.parametrize("device", devices)
@pytest.mark.parametrize("kind", kinds, ids=lambda kind: "-".join(map(str, kind.values())))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sets=st.sampled_from([0, 7]))
def test_tensors_say_what_our_kernel_and_onnx_runtime_say(
    device: Device, kind: dict[str, Any], seed: int, sets: int
) -> None:
    graph = graph_of(random_forest(seed, depth=4, sets=sets, **kind))
    found = tensors(graph, device)
    for rows in (rows_of(seed, 150), random_rows(seed, 150)):  # codes as they should be, and anything
        against_kernel = difference(NativeModel(graph), found, rows)
        assert against_kernel.of_span < 1e-12
        assert against_kernel.labels == 0
    met = check_rows(graph, TreeAnswers(graph).forest, rows_of(seed, 20))
    assert difference(onnx_model(graph), found, met).reason == ""


@pytest.mark.parametrize("device", devices)
def test_deep_and_uneven_trees_are_walked_to_their_ends(device: Device) -> None:
    forest = random_forest(7, trees=9, depth=14, sets=3)
    lone = random_forest(8, trees=2, depth=0, sets=0)
    assert sum(1 for _ in forest.levels()) > 10
    for each in (forest, joined([forest, lone])):
        graph = graph_of(each)
        assert difference(NativeModel(graph), tensors(graph, device), random_rows(3, 200)).of_span < 1e-12


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "sklearn"])
def test_what_the_libraries_grow_is_walked_as_well(library: str, tmp_path: Path) -> None:
    """Categories and missing values where the library knows them, as its converter writes them."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({f"x{place}": random.normal(size=400).astype(np.float32) for place in range(4)})
    table["c"] = pd.Categorical(random.choice(list("abcdefghij"), 400))
    label = (table["x0"] + 2 * (table["c"].cat.codes % 3 == 1) > 0.5).astype(int)
    table.loc[random.random(400) < 0.1, "x1"] = np.nan
    if library == "xgboost":
        model = xgboost.XGBClassifier(n_estimators=9, max_depth=5, enable_categorical=True).fit(table, label)
    elif library == "lightgbm":
        model = lightgbm.LGBMClassifier(n_estimators=9, verbose=-1, n_jobs=1).fit(table, label)
    else:
        table = table.drop(columns=["x1", "c"])
        model = RandomForestClassifier(n_estimators=9, random_state=0).fit(table.to_numpy(), label)
    names = None if library != "sklearn" else list(table.columns)
    bundle = package(model, tmp_path / "bundle", background=table[:100], feature_names=names).bundle
    reference = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    forest = TreeAnswers(bundle).forest
    assert (forest.set_index >= 0).any() == (library != "sklearn")
    rows = check_rows(bundle, forest, bundle.golden.rows)
    assert difference(reference, tensors(bundle, Device()), rows).reason == ""


def test_batches_beyond_a_run_and_bound_runs_say_the_same() -> None:
    graph = graph_of(random_forest(5, trees=6, depth=4, sets=2, outputs=2))
    rows = random_rows(1, 100)
    expected = NativeModel(graph).predict(rows).outputs["scores"]
    answers = TreeAnswers(graph)
    session = Opening(device=Device(), threads=1, batch_rows_max=7).open(RawScores.of(answers.forest))
    for run in (session, BoundModel(session, rows, rows_max=20)):
        np.testing.assert_allclose(
            TensorTrees(answers, run).predict(rows).outputs["scores"], expected, atol=1e-12
        )
    with pytest.raises(ModelError, match="columns of float32"):
        TensorTrees(answers, session).predict(rows[:, :2])


def test_a_row_scores_the_same_bits_in_any_batch() -> None:
    graph = graph_of(random_forest(2, trees=50, depth=5, sets=0))
    rows = random_rows(2, 60)
    model = tensors(graph, Device())
    whole = model.predict(rows).outputs["scores"]
    alone = np.concatenate([model.predict(rows[place : place + 1]).outputs["scores"] for place in range(60)])
    np.testing.assert_array_equal(whole, alone)


def test_the_graph_is_made_of_standard_operators_only() -> None:
    model = onnx.load_from_string(RawScores.of(random_forest(1, sets=5)).model)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


def test_a_run_takes_no_more_rows_than_its_bound_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = random_forest(1, trees=10, sets=0)
    assert rows_at_once(forest, 4096) == 4096
    monkeypatch.setattr("penstock.engine.models.runtime.tensor_trees.run_bytes_max", 3200)
    assert rows_at_once(forest, 4096) == 6
    monkeypatch.setattr("penstock.engine.models.runtime.tensor_trees.run_bytes_max", 1)
    assert rows_at_once(forest, 4096) == 1


def test_what_the_graph_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = random_forest(1, trees=3, sets=5)
    with pytest.raises(ConfigError, match="not 0"):
        RawScores.of(random_forest(4, trees=3, depth=0, sets=0))
    with pytest.raises(ConfigError, match="codes from 0"):
        RawScores.of(replace(forest, set_values=forest.set_values + np.float32(0.5)))
    with pytest.raises(ConfigError, match="codes from 0"):
        RawScores.of(replace(forest, set_values=forest.set_values - np.float32(100)))
    monkeypatch.setattr("penstock.engine.models.runtime.tensor_trees.table_bytes_max", 1000)
    with pytest.raises(ConfigError, match="table"):
        RawScores.of(forest)
    with pytest.raises(ConfigError, match="MiB"):
        RawScores.of(random_forest(1, trees=90, depth=6, sets=0))
    monkeypatch.setattr("penstock.engine.models.runtime.tensor_trees.levels_max", 3)
    with pytest.raises(ConfigError, match="1 to 3 tests"):
        RawScores.of(random_forest(1, trees=3, depth=6, sets=0))
