"""A classifier whose graph has an output for each class is one of classes: explained by class, trees as trees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penstock

_rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
_kinds = np.digitize(_rows[:, 0] + _rows[:, 1], [-0.5, 0.5])


@pytest.mark.parametrize("classes", [["bad", "good", "so so"], [0, 1, 2], [-1, 4, 7]], ids=str)
@pytest.mark.parametrize(
    ("model", "method"),
    [
        (RandomForestClassifier(5, max_depth=4, random_state=0), "tree_path_dependent|tree_interventional"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "additive"),
        (MLPClassifier(hidden_layer_sizes=(4,), max_iter=60, random_state=0), "exact_enumeration"),
    ],
    ids=["forest", "line", "net"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_columns_of_classes_are_one_output(
    model: Any, method: str, classes: list[Any], tmp_path: Path
) -> None:
    model.fit(_rows, np.array(classes)[_kinds])
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    proto = convert_sklearn(
        model,
        initial_types=[("X", FloatTensorType([None, 3]))],
        options={id(last): {"zipmap": "columns"}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    assert len(proto.graph.output) == 4
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    penstock.package(tmp_path / "m.onnx", tmp_path / "bundle", background=_rows[:20])
    opened = penstock.load(tmp_path / "bundle")
    assert opened.classes == tuple(map(str, classes))
    found = opened.predict(_rows)
    wanted = model.predict_proba(_rows)
    np.testing.assert_allclose(found.outputs["probabilities"], wanted, atol=1e-5)
    assert list(found.outputs) == ["probabilities"]
    assert found.labels is not None
    assert found.labels.tolist() == [str(each) for each in model.predict(_rows)]
    explained = opened.explain(_rows[:10])
    assert explained.method in method.split("|")
    assert explained.output_names.tolist() == found.labels[:10].tolist()
    one = opened.explain(_rows[:10], output=str(classes[1]))
    assert set(one.output_names) == {str(classes[1])}


def test_outputs_that_are_no_columns_of_classes_stay_apart(tmp_path: Path) -> None:
    from tests.unit.explain.test_targets import heads

    penstock.package(heads(tmp_path / "m.onnx", labels=True), tmp_path / "bundle", classes=["no", "yes"])
    assert set(penstock.load(tmp_path / "bundle").bundle.widths) == {"embedding", "probabilities", "risk"}
