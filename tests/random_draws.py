"""Choices from a seed."""

from typing import Any

import numpy as np


class Draw:
    """Choices from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one(self, choices: Any) -> Any:
        """One of them; a function among them is called."""
        found = choices[int(self.random.integers(0, len(choices)))]
        return found() if callable(found) and not isinstance(found, (type, np.ufunc)) else found

    def chance(self, share: float) -> bool:
        """True as often as the share."""
        return bool(self.random.random() < share)

    def some(self, choices: list[Any], least: int = 1) -> list[Any]:
        """Some of them, in a random order."""
        count = int(self.random.integers(least, len(choices) + 1))
        return [choices[place] for place in self.random.permutation(len(choices))[:count].tolist()]
