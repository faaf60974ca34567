"""Whether a model says what it said before: at every start, and however it is run."""

import numpy as np

from penstock.engine.models.bundle.bundle import Golden
from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import ConfigError, InvariantError, ModelError

golden_relative_tolerance = 1e-4
golden_absolute_tolerance = 1e-6


def check_golden(model: Model, golden: Golden, where: str, *, slack: float = 0.0) -> None:
    """Compare with what the model said when it was packaged. Raises ConfigError when it says something else now.

    `slack`: what scores may wander by more than rounding; then classes may change where scores are close.
    """
    try:
        found = model.predict(golden.rows)
    except (ModelError, InvariantError) as error:
        raise ConfigError(f"the model cannot run its golden batch: {error}") from error
    expected = Predictions(outputs=golden.outputs, labels=golden.labels, classes=found.classes)
    if fault := disagreement(expected, found, slack=slack):
        raise ConfigError(
            f"on {where} the model does not say what it said when it was packaged: golden {fault}"
        )


def disagreement(expected: Predictions, found: Predictions, *, slack: float = 0.0) -> str:
    """The first row on which two predictions of the same rows are further apart than rounding, in words; else empty."""
    for name, scores in expected.outputs.items():
        other = found.outputs[name]
        with np.errstate(invalid="ignore"):
            difference = np.abs(other - scores)
        scale = np.abs(np.where(np.isfinite(scores), scores, 0.0)).max(axis=0, initial=0.0)
        allowed = golden_absolute_tolerance + golden_relative_tolerance * scale
        allowed += slack * np.maximum(1.0, scale)
        same = (other == scores) | (np.isnan(other) & np.isnan(scores))
        off = ~((difference <= allowed) | same).all(axis=1)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            return f"row {row} differs by {difference[row].max():.3g} in output {name}"
    if expected.labels is not None and found.labels is not None and not slack:
        changed = np.flatnonzero(found.labels != expected.labels)
        if len(changed):
            return f"row {changed[0]} gets another class"
    return ""
