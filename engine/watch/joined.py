"""Predictions with their reasons: two topics joined by the input record they speak of."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.engine.watch.messages import ExplanationMessage, Place, PredictionMessage


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One record's prediction, and why where that is known."""

    prediction: PredictionMessage
    explanation: ExplanationMessage | None


class Joiner:
    """Holds a prediction until its explanation is there, for at most `patience_s`; never more than `held_max` of either.

    A transaction writes both, so that they are visible at once, and arrive by two readers, one a little later than the other.
    """

    def __init__(self, *, explained: bool, patience_s: float = 2.0, held_max: int = 10_000) -> None:
        """`explained`: whether there is an explanations topic at all."""
        self._patience_s = patience_s if explained else 0.0
        self._held_max = held_max
        self._predictions: OrderedDict[Place, tuple[float, PredictionMessage]] = OrderedDict()
        self._explanations: OrderedDict[Place, ExplanationMessage] = OrderedDict()

    def predicted(self, message: PredictionMessage, *, now_s: float) -> Result | None:
        """The result, when it is whole."""
        explanation = self._explanations.pop(message.place, None)
        if explanation is not None:
            return Result(prediction=message, explanation=explanation)
        self._predictions[message.place] = (now_s, message)
        return None

    def explained(self, message: ExplanationMessage) -> Result | None:
        """Likewise."""
        found = self._predictions.pop(message.place, None)
        if found is not None:
            return Result(prediction=found[1], explanation=message)
        self._explanations[message.place] = message
        if len(self._explanations) > self._held_max:
            self._explanations.popitem(last=False)
        return None

    def due(self, *, now_s: float) -> Iterator[Result]:
        """Those whose explanation did not come: the policy passed them over, the budget was spent, or it comes too late."""
        while self._predictions:
            since_s, message = next(iter(self._predictions.values()))
            if now_s - since_s < self._patience_s and len(self._predictions) <= self._held_max:
                return
            self._predictions.popitem(last=False)
            yield Result(prediction=message, explanation=None)
