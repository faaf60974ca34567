"""How strong each feature is over the rows that the bundle was packaged with: what the strengths of late are held against."""

import threading
from typing import Any, Final

import numpy as np

from penstock.engine.clock import Clock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError, ModelError

rows_max: Final = 256
budget_s: Final = 2.0
"""Of explaining; a slow explainer gets through fewer rows."""
model_bytes_max: Final = 16 << 20
"""A larger model is not loaded a second time for a page: its explainer may take many times as much."""


class BackgroundStrengths:
    """Worked out once, with a model of its own on the CPU, by a thread of its own that the first question starts. Thread-safe."""

    def __init__(self, bundle: Bundle, settings: ExplainSettings, *, clock: Clock) -> None:
        self._bundle = bundle
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._told: dict[str, Any] = {"state": "working", "rows": 0, "sums": []}

    def told(self) -> dict[str, Any]:
        """`state`: working, known or none; `sums` of |attribution| by column over `rows` of the background. Nobody waits."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="page-background", daemon=True)
                self._thread.start()
        return self._told

    def _work(self) -> None:
        told: dict[str, Any] = {"state": "none", "rows": 0, "sums": []}
        try:
            told = self._strengths() or told
        except (ConfigError, ModelError):  # what cannot be explained has no strengths
            pass
        finally:
            self._told = told

    def _strengths(self) -> dict[str, Any] | None:
        from penstock.engine.explain.budget import explain_within  # late: most workers are never asked
        from penstock.engine.explain.factory import make_explainer
        from penstock.engine.models.runtime.loader import open_model

        bundle = self._bundle
        background = bundle.background
        if background is None or not len(background) or len(bundle.model) > model_bytes_max:
            return None
        if self._settings.policy == "none":
            return None
        places = np.unique(np.linspace(0, len(background) - 1, min(len(background), rows_max)).astype(int))
        rows = background[places]
        model = open_model(bundle, device="cpu", batch_rows_max=rows_max, clock=self._clock)
        explainer = make_explainer(bundle, model, self._settings)
        found = explain_within(
            explainer, rows, model.predict(rows), np.arange(len(rows)), budget_s=budget_s, clock=self._clock,
        )  # fmt: skip
        if not found.parts:
            return None
        values = np.concatenate([part.values for _, part in found.parts])
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            return None
        return {"state": "known", "rows": len(values), "sums": np.abs(values).sum(axis=0).tolist()}
