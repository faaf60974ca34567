"""Families of scikit-learn models times kinds of data: the bundle answers a record as the original does, or is refused by name.

The oracle is the original, through its public methods, on the records as a data frame; the bundle reads them as the stream
does, from JSON. PENSTOCK_MATRIX=all runs every case, a number so many of them.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import KernelPCA
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock.engine.explain.additive.explainer import AdditiveExplainer
from penstock.engine.explain.chosen_output import usual_choice
from penstock.engine.explain.factory import make_explainer
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.ports import Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, PenstockError
from tests.records_read import read_records
from tests.sklearn_cases import additive, cases, families, is_explained_as_trees, refused_cases, sums
from tests.sklearn_refused import RefusedModel, refused_models
from tests.sklearn_tables import Kind, cost, kinds, records_of, table

_asked = os.environ.get("PENSTOCK_MATRIX", "16")
_every = [*cases()]
_chosen = _every if _asked == "all" else _every[: int(_asked)]


def served(bundle: Bundle, records: list[dict[str, Any]]) -> tuple[NDArray[np.int64], Predictions]:
    """Which records the stream takes, and what it predicts for them."""
    places, matrix = read_records(bundle, records)
    model = Opening(device=Device(), threads=1, batch_rows_max=256).open(bundle)
    return places, model.predict(matrix)


def original_answers(model: Any, method: str, frame: pd.DataFrame) -> NDArray[np.float64]:
    """The original on the records, (R, K)."""
    found = np.asarray(getattr(model, method)(frame), dtype=np.float64)
    return found.reshape(len(frame), -1)


def answers_of(model: Any, method: str, frame: pd.DataFrame) -> NDArray[np.float64]:
    """The same; of a vote by majority the share of the weights that each class has."""
    vote = model[-1] if isinstance(model, Pipeline) else model
    if method != "transform" or not isinstance(vote, VotingClassifier):
        return original_answers(model, method, frame)
    said = np.asarray(model.transform(frame))
    weights = np.ones(said.shape[1]) if vote.weights is None else np.asarray(vote.weights)
    votes = [np.where(said == place, weights, 0.0).sum(axis=1) for place in range(len(vote.classes_))]
    return np.stack(votes, axis=1) / weights.sum()


def of_both_classes(wanted: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The original's answers (R, K) as the bundle's are written: a decision between two classes for each of them."""
    if wanted.shape[1] == 1 and scores.shape[1] == 2:
        return np.concatenate((-wanted, wanted), axis=1)
    return wanted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "kind"), _chosen, ids=lambda value: getattr(value, "name", value))
def test_the_bundle_answers_a_record_as_the_original_does(family: str, kind: Kind, tmp_path: Path) -> None:
    build, target = families[family]
    training = table(kind, 160, 1, training=True)
    model = build(kind).fit(training, target(training))
    refused = ""
    try:
        report = package(model, tmp_path / "bundle", background=training[:20], rows=training)
    except PenstockError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert (family, kind.name) in refused_cases, refused
        assert "isotonic" not in family or "last digit of a sum decides" in refused
        pytest.xfail(f"refused: {refused}")
    assert report.bundle.trees == is_explained_as_trees(family)
    if not report.bundle.trees:
        assert _is_additive(report.bundle) == (family in additive)
    records = table(kind, 200, 2, training=False)
    given = records_of(records)
    places, found = served(report.bundle, given)
    output = report.bundle.outputs[0].name
    assert [each.name for each in report.bundle.outputs[1:] if not each.name.startswith("log_")] == [
        sums[family] for _ in range(family in sums)
    ]
    method = report.parity.compared[output]
    wanted = answers_of(model, method, records.iloc[places])
    scores = found.outputs[output]
    wanted = of_both_classes(wanted, scores)
    off = np.abs(scores - wanted) / np.maximum(1.0, np.abs(wanted))
    assert off.max(initial=0.0) <= 2e-5
    if found.labels is not None and hasattr(model, "classes_"):
        names = [found.classes[label] for label in found.labels.tolist()]
        said = [class_said(value) for value in np.asarray(model.predict(records.iloc[places])).tolist()]
        differ = [place for place, (one, other) in enumerate(zip(names, said, strict=True)) if one != other]
        ties = np.sort(wanted, axis=1)
        assert not [
            place for place in differ if wanted.shape[1] > 1 and ties[place, -1] - ties[place, -2] > 1e-5
        ]
    for place in sorted(set(range(len(records))) - set(places.tolist())):
        with pytest.raises(
            (ValueError, TypeError, AttributeError)
        ):  # what is set aside, the original refuses too
            answers_of(model, method, records.iloc[[place]])


def _is_additive(bundle: Bundle) -> bool:
    """Whether the explainer that runs by default explains the golden rows by a part for each feature, and they add up."""
    model = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    wanted = usual_choice(bundle.widths, bundle.classes, trees=bundle.trees)
    explainer = make_explainer(bundle, model, ExplainSettings(samples=16, output=wanted))
    if not isinstance(explainer, AdditiveExplainer):
        return False
    found = explainer.explain(bundle.golden.rows, model.predict(bundle.golden.rows))
    score = np.abs(found.base + found.values.sum(axis=1))
    return bool((np.abs(found.additivity_error) <= 1e-5 * np.maximum(1.0, score)).all())


@pytest.mark.filterwarnings("ignore")
def test_a_category_not_seen_is_no_missing_one_where_a_step_makes_nothing_of_either(tmp_path: Path) -> None:
    """Beside a usual row, which lies far from all rows of training here, so that nothing is like it."""
    training, records = (
        table(kinds[-1], rows, seed, training=seed == 1) for rows, seed in ((160, 1), (200, 2))
    )
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["amount"]), ("texts", filled, ["job"])], sparse_threshold=0
    )
    model = make_pipeline(columns, KernelPCA(4, kernel="rbf"), Ridge()).fit(training, cost(training))
    bundle = package(model, tmp_path / "bundle", background=training[:20], rows=training).bundle
    places, found = served(bundle, records_of(records))
    assert len(places) == len(records)
    assert np.abs(found.outputs["value"][:, 0] - model.predict(records)).max() <= 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", refused_models, ids=lambda model: model.name)
def test_what_cannot_be_packaged_is_refused_by_name(model: RefusedModel, tmp_path: Path) -> None:
    training = table(kinds[0], 80, 1, training=True)
    rows = training[[*model.columns]]
    with pytest.raises(ConfigError, match=model.says) as refusal:
        package(model.build().fit(rows, model.target(training)), tmp_path / "bundle", background=rows[:10])
    assert "\n" not in str(refusal.value)
    assert "shape calculator" not in str(refusal.value)


def class_said(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def test_the_matrix_has_its_size_and_few_refusals() -> None:
    assert len(_every) >= 400
    assert len(refused_cases) <= 0.05 * len(_every)
