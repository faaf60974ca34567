"""The autoscaler's arithmetic: tolerance, policies per period, and the window on the way down; many settings at once."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
sync_s: Final = 15
"""Between two looks, unless Kubernetes is told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Of the autoscaler; `down_window_s`: one for each setting, or one for all."""

    down_window_s: Array = field(default_factory=lambda: np.array([300.0]))
    up_share: float = 1.0
    up_pods: int = 4
    up_period_s: float = 15.0
    down_share: float = 1.0
    down_period_s: float = 15.0
    tolerance: float = 0.1


class Autoscaler:
    """As Kubernetes reckons: tolerance, policies per period, the highest recommendation of the window on the way down."""

    def __init__(self, behaviour: Behaviour, settings: int, *, replicas_max: int) -> None:
        """One for each of the settings; between 1 and `replicas_max` replicas, since zero is KEDA's business."""
        self._replicas_max = replicas_max
        self._behaviour = behaviour
        self._window = np.broadcast_to(behaviour.down_window_s, (settings,))
        self._recommended: list[tuple[float, NDArray[np.int64]]] = []
        self._history: list[tuple[float, NDArray[np.int64]]] = []

    def sync(self, value: Array, replicas: NDArray[np.int64], second: float) -> NDArray[np.int64]:
        """Replicas for the next period, from the metric over its target; where there is none (NaN) they stay."""
        b = self._behaviour
        known = np.isfinite(value)
        value = np.where(known, value, replicas)
        ratio = value / np.maximum(replicas, 1)
        inside = (ratio >= 1.0 - b.tolerance) & (ratio <= 1.0 + b.tolerance)
        wanted = np.where(inside, replicas, np.ceil(value - 1e-9)).astype(np.int64)
        wanted = np.clip(wanted, 1, self._replicas_max)
        self._recommended.append((second, np.where(known, wanted, 0)))
        self._recommended = [
            (at, r) for at, r in self._recommended if at > second - max(self._window.max(), sync_s)
        ]
        if not self._history:
            self._history.append((-1_000_000, replicas))
        highest = replicas * 0
        for at, recommended in self._recommended:
            highest = np.maximum(highest, np.where(at > second - self._window, recommended, 0))
        wanted = np.where(wanted < replicas, np.minimum(np.maximum(wanted, highest), replicas), wanted)
        # What a period began with: changes made within it count against what it allows.
        before_up, before_down = (
            [r for at, r in self._history if at <= second - period_s][-1]
            for period_s in (b.up_period_s, b.down_period_s)
        )
        ceiling = np.maximum(np.ceil(before_up * (1 + b.up_share)), before_up + b.up_pods).astype(np.int64)
        floor = np.floor(before_down * (1 - b.down_share)).astype(np.int64)
        decided = np.where(
            known, np.clip(wanted, np.minimum(floor, replicas), np.maximum(ceiling, replicas)), replicas
        )
        self._history.append((second, decided))
        oldest_s = second - max(b.up_period_s, b.down_period_s)
        while len(self._history) > 1 and self._history[1][0] <= oldest_s:
            self._history.pop(0)
        return decided
