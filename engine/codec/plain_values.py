"""Values of records as JSON can say them."""

from math import isfinite
from typing import Any, Final

from penstock.engine.features.values import Unreadable

shown_depth_max: Final = 100
"""How deep what is shown is nested; what is deeper is in the payload's bytes."""


def plain(value: Any, depth: int = 0) -> Any:
    """Values that JSON can say: bytes as hex; decimals, times and what is not finite as text, what could not be read in brackets; depth bounded."""
    if isinstance(value, dict | list) and depth == shown_depth_max:
        return f"[nested deeper than {shown_depth_max}]"
    if isinstance(value, dict):
        return {str(name): plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Unreadable):
        return f"({value.detail})"
    if value is None or isinstance(value, bool | str) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return value
    return str(value)
