"""What classes are called."""

from collections.abc import Sequence
from typing import Any


def class_names(values: Sequence[Any]) -> tuple[str, ...]:
    """What a classifier's classes are called, whichever way the model comes: whole numbers without a decimal point."""
    return tuple(
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in values
    )
