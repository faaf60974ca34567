"""LIME of trees: in closed form, beside the `lime` package, which draws 5,000 perturbed records a row."""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.lime.trees import LimeTreeExplainer
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError
from penstock_bench.explain import outside as explain_outside
from penstock_bench.explain.outside import Outside
from penstock_bench.explain.trees import Plan, rates
from penstock_bench.explain.workload import workload

rival: Final = Outside(folder="lime", maker="coefficients")
_nothing: Final = Predictions(outputs={}, labels=None, classes=())
_batch, _sample_rows, _background_rows, _calls_max = 16, 16, 1_000, 20


def measured(trees: int, depth: int, plan: Plan) -> dict[str, Any]:
    """Rows per second of both in batches of 16, and how far their coefficients are apart; rows without missing values."""
    work = workload(trees, depth, rows=2_048, background=_background_rows, holes=False)
    names = [f"f{column}" for column in range(work.rows.shape[1])]
    signature = Signature(
        features=tuple(Feature(name=name, kind="number") for name in names),
        inputs=(ModelInput(name="X", dtype="float32", start=0, width=len(names)),),
    )
    explainer = LimeTreeExplainer(work.forest, signature, work.background, output="predicted")
    few = Plan(batches=(_batch,), seconds=plan.seconds, clock=plan.clock)
    sample = work.rows[:_sample_rows]
    ours = explainer.explain(sample, _nothing).values
    found = rates(lambda rows: explainer.explain(rows, _nothing).values, work.rows, few)
    result: dict[str, Any] = {"model": work.name, "batch": _batch, "penstock": found[str(_batch)]}
    python = plan.pythons.get(rival.environment, "not asked for")
    if isinstance(python, str):
        return result | {"lime": {"installed": False, "why": python}}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        explain_outside.write_task(
            folder, work, sample, batches=few.batches, seconds=plan.seconds, calls_max=_calls_max
        )
        try:
            said = explain_outside.measure(python, rival, folder)
        except ConfigError as error:
            return result | {"lime": {"installed": False, "why": str(error)}}
    theirs = {"installed": True, "version": said.version, "distance": _distance(said.values, ours)}
    return result | {"lime": theirs | said.batches[str(_batch)]}


def _distance(values: NDArray[np.float64], closed: NDArray[np.float64]) -> float:
    """The median row's distance from the closed form, over its length."""
    lengths = np.linalg.norm(values - closed, axis=1) / np.linalg.norm(closed, axis=1)
    return float(np.median(lengths))
