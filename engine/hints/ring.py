"""Ten minutes of samples, five seconds apart, and the hints that follow from them."""

from collections import deque
from typing import Final

from penstock.engine.hints.causes import Hints, hints
from penstock.engine.hints.sample import Sample

every_s: Final = 5.0
kept_s: Final = 600.0


class HintRing:
    """One thread adds; `found` may be read by any."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(kept_s / every_s) + 1)
        self.found = Hints()

    def due(self, at_s: float) -> bool:
        """Whether a sample of this moment would be kept."""
        return not self._samples or at_s - self._samples[-1].at_s >= every_s * 0.9

    def add(self, sample: Sample, *, max_age_s: float) -> Hints:
        """What is to be said now; a sample that is not due changes nothing."""
        if self.due(sample.at_s):
            self._samples.append(sample)
            self.found = hints(tuple(self._samples), max_age_s=max_age_s)
        return self.found
