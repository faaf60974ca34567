"""Of several targets, each is explained by its number, whatever the method; and what is explained is called by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penstock
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Attributions
from penstock.engine.settings.model import ExplainSettings, Settings
from penstock.engine.worker.startup.stages import open_explainer

_rows = np.random.default_rng(0).normal(size=(120, 2))
_targets = np.stack((_rows[:, 0] * 3, _rows[:, 1] - _rows[:, 0], np.abs(_rows[:, 1])), axis=1)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (LinearRegression(), "additive"),
        (make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "exact_enumeration"),
        (RandomForestRegressor(4, max_depth=4, random_state=0), "tree_path_dependent"),
    ],
    ids=["lines", "neighbours", "trees"],
)
def test_a_target_is_explained_by_its_number(model: Any, method: str, tmp_path: Path) -> None:
    penstock.package(model.fit(_rows, _targets), tmp_path / "bundle", background=_rows[:8])
    opened = penstock.load(tmp_path / "bundle")
    for target in range(3):
        found = opened.explain(_rows[:5], output=str(target))
        assert found.method == method
        assert found.output_names.tolist() == [f"value[{target}]"] * 5
        total = found.base_values + found.values.sum(axis=1)
        np.testing.assert_allclose(total, model.predict(_rows[:5])[:, target], atol=1e-5)
    with pytest.raises(penstock.ConfigError, match=r"explain\.output 3"):
        opened.explain(_rows[:5], output="3")


_three = [
    (LinearRegression(), "auto"),
    (make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "auto"),
    (make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "sampled"),
    (make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "lime"),
    ("net", "expected_gradients"),
    ("net", "deeplift_rescale"),
    (RandomForestRegressor(4, max_depth=4, random_state=0), "auto"),
    (RandomForestRegressor(4, max_depth=4, random_state=0), "lime"),
]


@pytest.mark.parametrize(
    ("model", "method"),
    _three,
    ids=[f"{m if isinstance(m, str) else type(m).__name__}-{way}" for m, way in _three],
)
def test_predicted_is_no_target_and_all_are_each_of_them(model: Any, method: str, tmp_path: Path) -> None:
    given = _net(tmp_path / "m.onnx") if model == "net" else model.fit(_rows, _targets)
    bundle = package(given, tmp_path / "bundle", background=_rows[:8]).bundle
    served = open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())

    def explained(output: str) -> Attributions:
        settings = ExplainSettings.model_validate({"output": output, "method": method})
        fed = _rows[:5].astype(bundle.signature.dtype)
        return make_explainer(bundle, served, settings).explain(fed, served.predict(fed))

    with pytest.raises(
        penstock.ConfigError, match=r"explain\.output predicted: the model has 3 targets .*all"
    ):
        explained("predicted")
    every = explained("all")
    assert every.output_index.tolist() == [0, 1, 2] * 5
    for target in range(3):
        for name in (str(target), f"value[{target}]"):
            one = explained(name)
            assert one.output_index.tolist() == [target] * 5
            np.testing.assert_allclose(one.values, every.values[target::3], atol=1e-12)
            np.testing.assert_allclose(one.base, every.base[target::3], atol=1e-12)
            np.testing.assert_allclose(one.additivity_error, every.additivity_error[target::3], atol=1e-12)


def _net(path: Path) -> Path:
    """A network of three targets."""
    random = np.random.default_rng(2)
    sizes = {"w1": (2, 5), "w2": (5, 3)}
    weights = [
        numpy_helper.from_array(random.normal(size=size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["X", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["value"]),
    ]
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])
    answers = helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph(nodes, "g", [given], [answers], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def heads(path: Path, *, labels: bool) -> Path:
    """A graph of three outputs: a vector, probabilities (with a label, on demand) and one number."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.normal(size=(2, width)).astype(np.float32), f"w{width}")
        for width in (3, 2, 1)
    ]
    nodes = [
        helper.make_node("MatMul", ["X", "w3"], ["embedding"]),
        helper.make_node("MatMul", ["X", "w2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        helper.make_node("MatMul", ["X", "w1"], ["risk"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
        for name, width in (("embedding", 3), ("probabilities", 2), ("risk", 1))
    ]
    if labels:
        outputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, [None]))
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(nodes if labels else [*nodes[:3], nodes[4]], "g", [given], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_of_several_outputs_one_is_named(tmp_path: Path) -> None:
    penstock.package(heads(tmp_path / "m.onnx", labels=False), tmp_path / "bundle", background=_rows[:8])
    opened = penstock.load(tmp_path / "bundle")
    for wanted in ("predicted", "all", "1"):
        with pytest.raises(penstock.ConfigError, match=r"risk|embedding\[0\] to embedding\[2\]"):
            opened.explain(_rows[:5], output=wanted)
    answers = opened.predict(_rows[:5]).outputs
    for wanted, column in (("risk", 0), ("embedding[2]", 2), ("probabilities[1]", 1)):
        found = opened.explain(_rows[:5], output=wanted)
        total = found.base_values + found.values.sum(axis=1)
        assert set(found.output_names) == {wanted}
        if found.space != "log_odds":
            np.testing.assert_allclose(total, answers[wanted.partition("[")[0]][:, column], atol=1e-5)


def test_predicted_is_of_the_classes_wherever_they_stand(tmp_path: Path) -> None:
    path = heads(tmp_path / "m.onnx", labels=True)
    penstock.package(path, tmp_path / "bundle", background=_rows[:8], classes=["no", "yes"])
    opened = penstock.load(tmp_path / "bundle")
    found = opened.explain(_rows[:20])
    labels = opened.predict(_rows[:20]).labels
    assert labels is not None
    assert found.output_names.tolist() == labels.tolist()
    assert opened.explain(_rows[:5], output="risk").output_names.tolist() == ["risk"] * 5


def test_the_report_and_the_start_say_that_a_target_is_to_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "rows.npy", _rows[:8])
    path = heads(tmp_path / "m.onnx", labels=False)
    words = ["package", str(path), "--out", str(tmp_path / "bundle"), "--unproved"]
    assert main([*words, "--background", str(tmp_path / "rows.npy")]) == 0
    assert "explain.output chooses one by its name" in " ".join(capsys.readouterr().out.split())
    bundle = Bundle.load(tmp_path / "bundle")
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9", "group": "g"},
            "input": {"topic": "in", "format": "json"},
            "output": {
                "format": "json",
                "predictions": "p",
                "explanations": "e",
                "dead_letters": "d",
                "status": "s",
            },
            "model": {"path": str(tmp_path / "bundle")},
            "explain": {"output": "risk", "policy": "score>=0.5"},
        }
    )
    served = open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())
    with pytest.raises(penstock.ConfigError, match=r"explain\.policy score>=0\.5: the model has several"):
        open_explainer(settings, bundle, served, SystemClock())
