"""A whole number that somebody wrote, of any length: what is no number that can be meant is none, and never an exception."""

from typing import Final

digits_max: Final = 18
"""A partition, an offset, a port or a time has no more."""


def whole_number(text: str) -> int | None:
    """The number in ASCII digits; None for anything else, and for more than `digits_max` of them, which Python may not even read."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits_max else None
