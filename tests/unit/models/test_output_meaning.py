"""What an output is called: a margin is no probability, in the manifest, in explanations and in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from penstock.engine.cli.main import main
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package

random = np.random.default_rng(0)
rows = random.normal(size=(300, 3)).astype(np.float32).astype(np.float64)
binary = (rows[:, 0] + rows[:, 1] > 0.2).astype(int)
ternary = binary + (rows[:, 2] > 0.5)

models: dict[str, tuple[Callable[[], Any], str]] = {
    "logistic regression": (lambda: LogisticRegression().fit(rows, binary), "probability"),
    "logistic regression of three": (lambda: LogisticRegression().fit(rows, ternary), "probability"),
    "linear svc": (lambda: LinearSVC().fit(rows, binary), "decision"),
    "linear svc of three": (lambda: LinearSVC().fit(rows, ternary), "decision"),
    "perceptron": (lambda: Perceptron().fit(rows, binary), "decision"),
    "sgd with hinge loss": (lambda: SGDClassifier(random_state=0).fit(rows, binary), "decision"),
    "sgd with log loss": (lambda: SGDClassifier(loss="log_loss", random_state=0).fit(rows, binary), "probability"),
    "svc of three": (lambda: SVC(decision_function_shape="ovr").fit(rows, ternary), "decision"),
    "naive Bayes": (lambda: GaussianNB().fit(rows, ternary), "probability"),
    "neighbours": (lambda: KNeighborsClassifier(3).fit(rows, ternary), "probability"),
    "perceptrons in layers": (
        lambda: MLPClassifier((4,), max_iter=20, random_state=0, tol=1).fit(rows, binary), "probability"),
    "forest behind a scaler": (
        lambda: make_pipeline(StandardScaler(), RandomForestClassifier(4, random_state=0)).fit(rows, ternary),
        "probability"),
    "ridge": (lambda: Ridge().fit(rows, rows[:, 0]), "value"),
    "boosted trees": (lambda: xgboost.XGBClassifier(n_estimators=3).fit(rows, binary), "probability"),
    "boosted trees of three": (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, ternary),
                               "probability"),
    "log odds": (lambda: xgboost.train({"objective": "binary:logitraw"}, xgboost.DMatrix(rows, binary), 3),
                 "log_odds"),
    "a rank": (lambda: xgboost.XGBRanker(n_estimators=3).fit(rows, binary, group=[100, 200]), "rank"),
    "a rank of LightGBM": (
        lambda: lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(rows, binary, group=[100, 200]), "rank"),
    "counts": (lambda: xgboost.XGBRegressor(n_estimators=3, objective="count:poisson").fit(rows, ternary), "value"),
}  # fmt: skip


@pytest.mark.parametrize("kind", models)
def test_an_output_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    make, meaning = models[kind]
    bundle = package(make(), tmp_path / "bundle", background=rows[:50]).bundle
    assert bundle.outputs[0].meaning == meaning
    assert Bundle.load(tmp_path / "bundle").outputs == bundle.outputs
    if kind == "counts":
        assert [output.meaning for output in bundle.outputs] == ["value", "log"]


def test_a_margin_is_explained_as_the_decision_of_the_second_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = LinearSVC().fit(rows, np.where(binary, "fraud", "honest"))
    package(trained, tmp_path / "bundle", background=rows[:50])
    record = tmp_path / "row.json"
    record.write_text(json.dumps(dict(zip(("f0", "f1", "f2"), rows[0].tolist(), strict=True))))
    assert main(["explain", str(tmp_path / "bundle"), "--row", str(record)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "decision of" in said
    assert "probability" not in said
    assert "%" not in said.split("usual")[0]
    assert main(["explain", str(tmp_path / "bundle"), "--row", str(record), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["records"][0]
    assert found["space"] == "decision"
    assert found["label"] == trained.predict(rows[:1])[0]


def test_an_onnx_file_tells_by_its_operators_and_by_its_numbers(tmp_path: Path) -> None:
    for kind, (make, meaning) in models.items():
        if kind not in ("linear svc", "logistic regression of three", "neighbours", "ridge"):
            continue
        package(make(), tmp_path / "first", background=rows[:50])
        (tmp_path / "model.onnx").write_bytes((tmp_path / "first" / "model.onnx").read_bytes())
        names = ["a", "b", "c"][: 3 if "three" in kind or kind == "neighbours" else 2]
        classes = None if meaning == "value" else names
        bundle = package(tmp_path / "model.onnx", tmp_path / "second", classes=classes).bundle
        assert bundle.outputs[0].meaning == meaning, kind
