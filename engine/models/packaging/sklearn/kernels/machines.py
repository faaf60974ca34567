"""Kernel machines with probabilities (`SVC(probability=True)`)."""

from typing import Any, Final

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

classes_max: Final = 16
"""Their probabilities are put together in turns, of a score of nodes for each class."""


class KernelChances(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A kernel machine that answers probabilities, and the class that its decision function speaks for."""

    def __init__(self, machine: Any, classes_: NDArray[Any]) -> None:
        """A fitted SVC or NuSVC with probabilities; `classes_`: as the original calls them."""
        self.machine = machine
        self.classes_ = classes_
