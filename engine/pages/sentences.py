"""Sentences that the API says: a code and the values it speaks of, with the text in English; pages say it in their language."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.engine.pages.told_texts import sets, static_folder, told_if_known, words

__all__ = ["filled", "reasons_sentence", "said", "sentence", "static_folder", "words"]

_named: Final = re.compile(r"\{([a-z_0-9]+)\}")
reasons_told: Final = 3
told_names: Final = frozenset({"because", "detail", "fault", "reason", "why"})
"""Values of these names are texts that the engine told elsewhere: sentences themselves, where they are its own."""

Value = str | float | int | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def sentence(code: str, **values: Value) -> dict[str, Any]:
    """The sentence of a code. A value that is missing or not known is said as a dash; one may be a sentence, or several."""
    values = {name: _nested(name, value) for name, value in values.items()}
    return {"code": code, "values": values, "text": filled(words("en")[code], values)}


def _nested(name: str, value: Value) -> Value:
    if name in told_names and isinstance(value, str):
        return told_if_known(value) or value
    return value


def filled(template: str, values: Mapping[str, Value]) -> str:
    """The template with each {name} replaced by its value."""
    known = words("en")

    def word(name: str) -> str:
        value = values.get(name)
        return known.get(f"{name}.{value}", value) if name in sets and isinstance(value, str) else said(value)

    return _named.sub(lambda match: word(match[1]), template)


def said(value: Value) -> str:
    """A value as a sentence says it: at most four digits that count, thousands apart."""
    if value is None or value != value:
        return "—"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    several = [value] if isinstance(value, Mapping) else value
    return words("en")["reason.between"].join(str(each["text"]) for each in several)


def reasons_sentence(
    reasons: Sequence[Mapping[str, Any]], *, output: str, base: float, total: float, space: str
) -> dict[str, Any]:
    """Why a record got its score: the strongest reasons in words."""
    strongest = sorted(reasons, key=lambda reason: -abs(reason["attribution"]))[:reasons_told]
    told = [
        sentence(
            _reason_code(reason),
            feature=reason["feature"],
            value=reason["value"],
            amount=abs(reason["attribution"]),
        )
        for reason in strongest
    ]
    return sentence("record.reasons", output=output, base=base, total=total, space=space, reasons=told)


def _reason_code(reason: Mapping[str, Any]) -> str:
    verb = "raised" if reason["attribution"] >= 0 else "lowered"
    if reason["masked"]:
        return f"reason.masked_{verb}"
    return f"reason.missing_{verb}" if reason["value"] is None else f"reason.{verb}"
