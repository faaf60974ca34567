"""What the suites of skl2onnx, onnxmltools, treelite and shap try is packaged and answers unseen records as the original does, and is
explained as shap explains it; or it is refused by name.

A sample of the cases; PENSTOCK_MATRIX=all runs every one.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.factory import make_explainer
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import PenstockError
from tests.records_read import read_records
from tests.suites.cases import Case, every, fitted, table_of, told
from tests.unit.models.test_sklearn_matrix import answers_of, class_said, of_both_classes, served

_asked = os.environ.get("PENSTOCK_MATRIX", "16")
_cases = [case for case in every() if not case.asks]
_order = np.random.default_rng(0).permutation(len(_cases)).tolist()
_chosen = _cases if _asked == "all" else [_cases[place] for place in sorted(_order[: 4 * int(_asked)])]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _chosen, ids=lambda case: case.name)
def test_a_case_of_another_suite_answers_as_the_original_does(case: Case, tmp_path: Path) -> None:
    table = table_of(case)
    model = fitted(case, table)
    try:
        report = package(model, tmp_path / "bundle", background=table.training[:50], rows=table.training)
    except PenstockError as error:
        said = str(error)
        assert "\n" not in said
        assert case.refused, said
        assert case.refused in said
        return
    assert not case.refused, "it is packaged by now"
    assert report.parity.not_compared == ()
    bundle, frame = report.bundle, table.unseen
    places, found = served(bundle, _records(frame))
    assert len(places) >= 0.5 * len(frame)
    output = bundle.outputs[0].name
    method = report.parity.compared[output]
    if not hasattr(model, method):  # of the file that it was read from
        method = "predict_proba" if bundle.outputs[0].meaning == "probability" else "predict"
    asked = frame.iloc[places]
    wanted = told(case, model, asked) if case.answers else answers_of(model, method, asked)
    scores = found.outputs[output]
    wanted = of_both_classes(wanted, scores)
    assert scores.shape == wanted.shape
    span = max(float(np.ptp(wanted)), 1.0)
    assert np.abs(scores - wanted).max() <= 1e-6 * span
    if found.labels is not None and hasattr(model, "classes_"):
        labels = [found.classes[label] for label in found.labels.tolist()]
        said_of = [
            class_said(each) for each in np.asarray(model.predict(frame.iloc[places])).reshape(-1).tolist()
        ]
        sorted_scores = np.sort(wanted, axis=1)
        for one, other, row in zip(labels, said_of, sorted_scores, strict=True):
            assert one == other or (len(row) > 1 and row[-1] - row[-2] <= 1e-6 * span)
    if case.shap:
        _explained_as_shap_does(bundle, model, frame.iloc[places].iloc[:20])


def _explained_as_shap_does(bundle: Bundle, model: Any, frame: pd.DataFrame) -> None:
    """Path-dependent tree SHAP of each output, to 1e-5 of the largest value."""
    import shap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = np.asarray(shap.TreeExplainer(model).shap_values(frame), dtype=np.float64)
    places, matrix = read_records(bundle, _records(frame))
    assert len(places) == len(frame)
    opened = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    for place, name in _outputs(bundle):
        settings = ExplainSettings(method="tree_path_dependent", output=name)
        explained = make_explainer(bundle, opened, settings).explain(matrix, opened.predict(matrix))
        wanted = _of_output(original, place, bundle)
        assert explained.values.shape == wanted.shape
        assert np.abs(explained.values - wanted).max() <= 1e-5 * max(float(np.abs(wanted).max()), 1e-3)


def _outputs(bundle: Bundle) -> list[tuple[int, str]]:
    if bundle.classes:
        return [
            (place, name)
            for place, name in enumerate(bundle.classes)
            if len(bundle.classes) > 2 or place == 1
        ]
    width = bundle.outputs[0].width
    return [(0, "predicted")] if width == 1 else [(place, str(place)) for place in range(width)]


def _of_output(values: NDArray[np.float64], place: int, bundle: Bundle) -> NDArray[np.float64]:
    """shap has (R, F), or (R, F, K)."""
    if values.ndim == 2:
        return values
    return values[:, :, place]


def test_each_of_their_tests_is_there_and_each_refusal_has_its_cure() -> None:
    for case in every():
        assert case.tests, case
        assert sum(map(bool, (case.model, case.step, case.asks))) == 1, case
        assert bool(case.refused) == bool(case.cure), case
        assert bool(case.data) == (not case.asks), case
