"""Sentences that the API says: a code and the values it speaks of, with the text in English; pages say it in their language."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

static_folder: Final = Path(__file__).parent / "static"
_named: Final = re.compile(r"\{([a-z_0-9]+)\}")
reasons_told: Final = 3
sets: Final = frozenset({"stage", "space", "bound", "rejection"})
"""Values of these names are codes out of closed sets, which have words of their own."""

Value = str | float | int | None


@cache
def words(language: str) -> Mapping[str, str]:
    """The words of a language, by code."""
    found: Mapping[str, str] = orjson.loads((static_folder / f"{language}.json").read_bytes())
    return found


def sentence(code: str, **values: Value) -> dict[str, Any]:
    """The sentence of a code. A value that is missing or not known is said as a dash."""
    return {"code": code, "values": values, "text": filled(words("en")[code], values)}


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
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
        )["text"]
        for reason in strongest
    ]
    return sentence(
        "record.reasons", output=output, base=base, total=total, space=words("en")[f"space.{space}"], reasons="; ".join(told)
    )  # fmt: skip


def _reason_code(reason: Mapping[str, Any]) -> str:
    verb = "raised" if reason["attribution"] >= 0 else "lowered"
    if reason["masked"]:
        return f"reason.masked_{verb}"
    return f"reason.missing_{verb}" if reason["value"] is None else f"reason.{verb}"
