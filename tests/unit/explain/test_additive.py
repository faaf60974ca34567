"""Models whose scores add up over the features: exact, relative to all background rows, and never for a score that does not.

The oracle is the definition: all coalitions of the columns, over the original pipeline.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock.engine.explain.additive.explainer import AdditiveExplainer
from penstock.engine.explain.factory import make_explainer
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.ports import Attributions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError
from tests.bundles import constant, graph_bytes, tensor
from tests.records_read import read_records
from tests.shapley_enumerated import enumerated
from tests.sklearn_cases import families
from tests.sklearn_tables import Kind, records_of, table


def _log_ratio(model: Any, frame: pd.DataFrame, number: int) -> NDArray[np.float64]:
    """Of two classes the log odds of the one, of several how far its log probability lies above their mean."""
    logs = np.log(model.predict_proba(frame))
    if logs.shape[1] == 2:
        return np.asarray(logs[:, number] - logs[:, 1 - number])
    return np.asarray(logs[:, number] - logs.mean(axis=1))


def _decision(model: Any, frame: pd.DataFrame, number: int) -> NDArray[np.float64]:
    found = np.asarray(model.decision_function(frame))
    return found[:, number] if found.ndim == 2 else found


def _predicted(model: Any, frame: pd.DataFrame, number: int) -> NDArray[np.float64]:
    return np.asarray(model.predict(frame))


Answer = Callable[[Any, pd.DataFrame, int], NDArray[np.float64]]
_families: dict[str, tuple[Answer, str]] = {
    "logistic of three classes": (_log_ratio, "log_odds"),
    "words, logistic": (_log_ratio, "log_odds"),
    "linear SVC of three classes": (_decision, "decision"),
    "power transformer, ridge": (_predicted, "value"),
    "Poisson regression": (lambda model, frame, _: np.log(model.predict(frame)), "log"),
    "logistic": (_log_ratio, "log_odds"),
    "naive Bayes": (_log_ratio, "log_odds"),
    "weighted words, complement naive Bayes": (_log_ratio, "log_odds"),
    "topics of words, ridge": (_predicted, "value"),
    "weighted vote of lines": (_predicted, "value"),
    "target by log1p, ridge": (lambda model, frame, _: np.log1p(model.predict(frame)), "log"),
}
_chosen = [*_families] if os.environ.get("PENSTOCK_MATRIX") == "all" else [*_families][:5]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", _chosen)
def test_parts_equal_enumeration_over_the_original_relative_to_all_background_rows(
    family: str, tmp_path: Path
) -> None:
    answer, space = _families[family]
    kind = Kind(name="nulls", nulls="words" not in family)
    build, target = families[family]
    training = table(kind, 120, 3, training=True)
    model = build(kind).fit(training, target(training))
    background = training[:17]
    bundle = package(model, tmp_path / "bundle", background=background, rows=training).bundle
    rows = table(kind, 2, 4, training=False)
    _, matrix = read_records(bundle, records_of(rows))
    explainer, found = _explained(bundle, matrix)
    assert explainer.background_rows == len(background)
    assert (found.method, found.space) == ("additive", space)
    assert found.sampling_error is None
    features = bundle.signature.features
    owner = np.repeat(np.arange(len(features)), [feature.width for feature in features])
    for place in range(len(rows)):
        number = int(found.output_index[place])

        def of(frame: pd.DataFrame, number: int = number) -> NDArray[np.float64]:
            return answer(model, frame, number)

        names = [feature.name for feature in features]
        wanted = enumerated(of, rows.iloc[[place]], background, names)[0]
        grouped = np.bincount(owner, weights=found.values[place], minlength=len(features))
        np.testing.assert_allclose(grouped, wanted, atol=1e-6)
        assert found.base[place] == pytest.approx(float(of(background).mean()), abs=1e-6)


def _explained(bundle: Bundle, matrix: NDArray[np.generic]) -> tuple[AdditiveExplainer, Attributions]:
    model = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    explainer = make_explainer(bundle, model, ExplainSettings())
    assert isinstance(explainer, AdditiveExplainer)
    return explainer, explainer.explain(matrix, model.predict(matrix))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
def test_an_onnx_classifier_of_another_exporter_is_explained_in_its_log_odds(
    classes: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(120, 6)).astype(np.float32)
    model = LogisticRegression(C=10.0).fit(
        rows, np.digitize(rows[:, 0] + rows[:, 1], [-0.5, 0.5][: classes - 1])
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, rows[:1]).SerializeToString())
    bundle = package(path, tmp_path / "bundle", background=rows[:50]).bundle
    _, found = _explained(bundle, rows[60:70])
    assert found.space == "log_odds"
    coef = model.coef_ if classes > 2 else np.concatenate((-model.coef_, model.coef_))
    wanted = coef[found.output_index] * (rows[60:70] - rows[:50].mean(axis=0))
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)


def _with_product(rare: float) -> bytes:
    """a + b + c, and where a lies above `rare` a product as well."""
    nodes = [
        helper.make_node("MatMul", ["x", "ones"], ["sum"]),
        helper.make_node("Gather", ["x", "first"], ["a"], axis=1),
        helper.make_node("Gather", ["x", "second"], ["b"], axis=1),
        helper.make_node("Greater", ["a", "rare"], ["is_rare"]),
        helper.make_node("Cast", ["is_rare"], ["flag"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["flag", "b"], ["product"]),
        helper.make_node("Add", ["sum", "product"], ["y"]),
    ]
    constants = [
        constant("ones", np.ones((3, 1), dtype=np.float32)),
        constant("first", np.array([0])),
        constant("second", np.array([1])),
        constant("rare", np.array([rare], dtype=np.float32)),
    ]
    return graph_bytes(nodes, [tensor("x", ["N", 3])], [tensor("y", ["N", 1])], constants)


def test_a_model_with_a_product_is_not_additive(tmp_path: Path) -> None:
    bundle = _packaged(_with_product(0.0), tmp_path)
    model = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    assert not isinstance(make_explainer(bundle, model, ExplainSettings()), AdditiveExplainer)
    with pytest.raises(ConfigError, match=r"explain\.method additive: its scores do not add up"):
        make_explainer(bundle, model, ExplainSettings(method="additive"))


def test_a_record_whose_score_is_not_the_sum_of_its_parts_is_not_explained(tmp_path: Path) -> None:
    """The product shows on no golden row and no background row: the record itself tells."""
    bundle = _packaged(_with_product(1e6), tmp_path)
    model = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    explainer = make_explainer(bundle, model, ExplainSettings(method="additive"))
    usual = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    assert explainer.explain(usual, model.predict(usual)).method == "additive"
    rare = np.array([[2e6, 5e5, 3.0]], dtype=np.float32)
    with pytest.raises(ModelError, match="not the sum of what its features say"):
        explainer.explain(rare, model.predict(rare))


def _packaged(model: bytes, folder: Path) -> Bundle:
    path = folder / "model.onnx"
    path.write_bytes(model)
    rows = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    bundle = package(path, folder / "bundle", background=rows[:30], rows=rows).bundle
    assert onnx.ModelProto.FromString(bundle.model).graph.node
    return bundle


def test_rows_are_explained_alike_alone_and_together_and_missing_values_are_equal(tmp_path: Path) -> None:
    kind = Kind(name="nulls", nulls=True)
    build, target = families["missing marks, ridge"]
    training = table(kind, 120, 3, training=True)
    model = build(kind).fit(training, target(training))
    bundle = package(model, tmp_path / "bundle", background=training[:30], rows=training).bundle
    matrix = bundle.golden.rows
    assert np.isnan(matrix.astype(np.float64)).any()
    explainer, together = _explained(bundle, matrix)
    opened = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    nobody = explainer.explain(matrix[:0], opened.predict(matrix[:0]))
    assert nobody.values.shape == (0, matrix.shape[1])
    for place in range(0, len(matrix), 7):
        alone = explainer.explain(matrix[[place]], opened.predict(matrix[[place]]))
        np.testing.assert_allclose(alone.values[0], together.values[place], atol=1e-12)


_scorecard_like = """<?xml version="1.0"?>
<PMML version="4.4" xmlns="http://www.dmg.org/PMML-4_4"><Header/>
<DataDictionary>
  <DataField name="amount" optype="continuous" dataType="double"/>
  <DataField name="age" optype="continuous" dataType="double"/>
  <DataField name="job" optype="categorical" dataType="string"><Value value="a"/><Value value="b"/><Value value="c"/></DataField>
  <DataField name="late" optype="categorical" dataType="string"><Value value="yes"/><Value value="no"/></DataField>
</DataDictionary>
<RegressionModel functionName="classification" normalizationMethod="logit">
  <MiningSchema>
    <MiningField name="amount"/><MiningField name="age"/><MiningField name="job"/>
    <MiningField name="late" usageType="target"/>
  </MiningSchema>
  <RegressionTable targetCategory="yes" intercept="-1">
    <NumericPredictor name="amount" coefficient="0.02"/><NumericPredictor name="age" exponent="2" coefficient="-0.0003"/>
    <CategoricalPredictor name="job" value="b" coefficient="0.7"/><CategoricalPredictor name="job" value="c" coefficient="-1.1"/>
  </RegressionTable>
  <RegressionTable targetCategory="no" intercept="0"/>
</RegressionModel></PMML>
"""


def test_a_pmml_regression_is_explained_by_its_coefficients(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    path = tmp_path / "model.pmml"
    path.write_text(_scorecard_like)
    frame = pd.DataFrame(
        {
            "amount": np.round(random.normal(50, 20, 40), 2),
            "age": random.integers(18, 90, 40).astype(float),
            "job": random.choice(["a", "b", "c"], 40),
        }
    )
    bundle = package(path, tmp_path / "bundle", background=frame[:30], rows=frame).bundle
    records = frame[30:].to_dict("records")
    _, matrix = read_records(bundle, records)
    _, found = _explained(bundle, matrix)
    assert found.space == "log_odds"
    job = {"a": 0.0, "b": 0.7, "c": -1.1}
    parts = np.stack(
        (0.02 * frame["amount"], -0.0003 * frame["age"] ** 2, frame["job"].map(job).astype(float)), axis=1
    )
    wanted = parts[30:] - parts[:30].mean(axis=0)
    is_yes = np.array([bundle.classes[number] == "yes" for number in found.output_index])
    place = [bundle.signature.columns.index(name) for name in ("amount", "age", "job")]
    np.testing.assert_allclose(
        found.values[:, place], wanted * np.where(is_yes, 1.0, -1.0)[:, None], atol=1e-6
    )
