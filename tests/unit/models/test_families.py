"""Every row of docs/models.md, proved: packaged, scored as the original on records it has not seen, and explained as said."""

import os
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.settings.model import ExplainSettings
from tests.family_rows import answers_of, made_rows, original_answers, shapes
from tests.model_families import Family, additive, exact_trees, families, onnx_forms, page, served

rows_count = 300
cases = [
    (family, shape)
    for place, family in enumerate(families)
    for turn, shape in enumerate(shapes)
    if "PENSTOCK_SOAK" in os.environ or turn == place % len(shapes)
]
"""Each family with one kind of numbers; with each kind in a long run."""


@pytest.mark.parametrize(
    ("family", "shape"), cases, ids=[f"{family.library}: {family.name}, {shape}" for family, shape in cases]
)
def test_a_family_is_packaged_proved_and_explained_as_the_page_says(
    family: Family, shape: str, tmp_path: Path
) -> None:
    train = made_rows(shape, 600, missing=family.takes_missing, seed=1)
    model = family.train(train, answers_of(train))
    report = package(model, tmp_path / "bundle", background=train[:50])
    bundle = report.bundle
    assert report.parity.compared[bundle.outputs[0].name] == family.method
    assert report.parity.not_compared == ()
    assert bundle.outputs[0].meaning == family.meaning
    unseen = made_rows(shape, rows_count, missing=family.takes_missing, seed=2)
    expected = original_answers(model, unseen, family)
    found = served(bundle, unseen)
    off = np.abs(found.outputs[bundle.outputs[0].name] - expected) / max(1.0, np.ptp(expected))
    assert off.max() <= 1e-6
    if family.meaning == "probability":
        np.testing.assert_array_equal(
            np.array(found.classes)[np.asarray(found.labels)],
            np.asarray(model.predict(unseen)).reshape(-1).astype(str),
        )
    served_model = open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())
    rows = bundle.golden.rows[:2]
    several = not bundle.classes and bundle.outputs[0].width > 1
    settings = ExplainSettings(output="0" if several else "predicted")
    explained = make_explainer(bundle, served_model, settings).explain(rows, served_model.predict(rows))
    assert explained.method.startswith("tree_") == (family.explained == exact_trees)
    assert (explained.method == "additive") == (family.explained == additive)
    assert np.abs(explained.additivity_error).max() < 1e-5


def test_the_page_is_written_from_the_cases() -> None:
    assert Path("docs/models.md").read_text() == page(), "make docs writes it"
    assert len({(family.library, family.name) for family in families}) == len(families)
    assert len(onnx_forms) > 5
