"""Every estimator that scikit-learn has is packaged and answers as the original does, or is refused by name and reason.

A few of them; PENSTOCK_MATRIX=all runs every one.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.models.packaging.package import package
from penstock.schemas.errors import ConfigError
from tests.sklearn_every import built, every, refused
from tests.sklearn_tables import kinds, records_of, table
from tests.unit.models.test_sklearn_matrix import answers_of, of_both_classes, served

_every = [every()[place] for place in np.random.default_rng(0).permutation(len(every())).tolist()]
_asked = os.environ.get("PENSTOCK_MATRIX", "16")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "place"), _every if _asked == "all" else _every[: int(_asked)])
def test_it_answers_as_the_original_does_or_says_why_not(name: str, place: str, tmp_path: Path) -> None:
    training, records = (
        table(kinds[0], rows, seed, training=seed == 1) for rows, seed in ((120, 1), (100, 2))
    )
    model, rows = built(name, place, training)
    if (name, place) in refused:
        with pytest.raises(ConfigError) as refusal:
            package(model, tmp_path / "bundle", background=rows[:20], rows=rows)
        said = str(refusal.value)
        assert refused[name, place] in said
        assert name in said or "several targets" in said
        assert "\n" not in said
        return
    report = package(model, tmp_path / "bundle", background=rows[:20], rows=rows)
    given = records[[*rows.columns]]
    places, found = served(report.bundle, records_of(records))
    assert len(places) >= 0.9 * len(records)
    output = report.bundle.outputs[0].name
    wanted = answers_of(model, report.parity.compared[output], given.iloc[places])
    scores = found.outputs[output]
    wanted = of_both_classes(wanted, scores)
    span = max(float(np.ptp(wanted)), 1e-300)
    assert np.abs(scores - wanted).max() <= 1e-6 * max(span, 1.0)
    if found.labels is not None and hasattr(model, "classes_"):
        labels = [found.classes[label] for label in found.labels.tolist()]
        assert labels == [str(each) for each in np.asarray(model.predict(given.iloc[places])).tolist()]
