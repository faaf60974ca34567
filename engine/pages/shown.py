"""Texts that somebody else chose, made fit to be shown: cut, with their length told."""

from typing import Any, Final

from penstock.engine.console.terminal import printable

characters_max: Final = 200
_long_max: Final = 4096


def cut(text: str, characters: int = characters_max) -> str:
    """The text with what is not printable written out, and its beginning only where it is long, with its length."""
    if len(text) <= characters:
        return printable(text)
    return f"{printable(text[:characters])}… ({len(text)} characters)"


def shown(text: str | None, *, masked: bool = False) -> dict[str, Any]:
    """A text of the `shown` form of the schema: at most 4,096 characters of it."""
    if masked or text is None:
        return {"text": None, "characters": 0, "masked": masked}
    return {"text": printable(text[:_long_max]), "characters": len(text), "masked": False}
