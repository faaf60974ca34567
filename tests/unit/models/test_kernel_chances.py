"""Kernel machines with probabilities: put together from pairs in turns that stop early, as LIBSVM does it, in double precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, NuSVC

import penstock
from penstock.engine.models.packaging.package import package

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn would rather have CalibratedClassifierCV
names = ["a", "b", "c"]


def rows(count: int, seed: int, reach: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(scale=reach, size=(count, 3)), columns=names)


def answers(frame: pd.DataFrame, classes: int) -> Any:
    score = frame["a"] + frame["b"] * frame["c"]
    return np.searchsorted(np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]), score)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(
    "machine",
    [
        SVC(probability=True, random_state=0),
        SVC(kernel="poly", probability=True, random_state=0, decision_function_shape="ovo"),
        SVC(kernel="linear", C=100.0, probability=True, break_ties=True, random_state=0),
        NuSVC(nu=0.1, kernel="sigmoid", probability=True, random_state=0),
    ],
    ids=lambda machine: f"{type(machine).__name__} {machine.kernel}",
)
def test_probabilities_and_classes_are_the_original_s(machine: Any, classes: int, tmp_path: Path) -> None:
    """On rows like those of training and far from them, where all turns are needed."""
    training = rows(150, 1)
    labels = np.array(["ab", "b", "c", "d", "e", "f"])[answers(training, classes)]
    model = make_pipeline(StandardScaler(), machine).fit(training, labels)
    report = package(model, tmp_path / "bundle", background=training[:20], rows=training)
    assert report.parity.not_compared == ()
    asked = pd.concat((rows(3000, 2), rows(1000, 3, reach=8.0)), ignore_index=True)
    found = penstock.load(tmp_path / "bundle", device="cpu").predict(asked)
    off = np.abs(found.outputs[report.bundle.outputs[0].name] - model.predict_proba(asked))
    assert off.max() <= 1e-7
    assert found.labels is not None
    assert list(found.labels) == model.predict(asked).tolist()


def test_it_may_be_a_member_of_a_vote(tmp_path: Path) -> None:
    training = rows(150, 1)
    vote = VotingClassifier(
        [("a", SVC(probability=True, random_state=0)), ("b", LogisticRegression())], voting="soft"
    )
    model = vote.fit(training, answers(training, 3))
    report = package(model, tmp_path / "bundle", background=training[:20], rows=training)
    asked = rows(1000, 2)
    found = penstock.load(tmp_path / "bundle", device="cpu").predict(asked)
    assert np.abs(found.outputs[report.bundle.outputs[0].name] - model.predict_proba(asked)).max() <= 1e-7
