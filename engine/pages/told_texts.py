"""Texts in which the engine tells what happened, found again among the words: so that a page can say them in its language.

A log line, a reason in /status, the detail of a dead letter is one English text wherever it is read. Here its code and its
values are read off it again, by the templates `told.*` of the words.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

static_folder: Final = Path(__file__).parent / "static"
sets: Final = frozenset({"stage", "space", "bound", "rejection", "state"})
"""Values of these names are codes out of closed sets, which have words of their own."""
prefix: Final = "told."
as_it_is: Final = f"{prefix}as_it_is"
characters_max: Final = 3000
depth_max: Final = 5
telling_letters_min: Final = 4
"""A template with fewer letters of its own holds only where something between them is known as well."""
_named: Final = re.compile(r"\{([a-z_0-9]+)\}")
_number: Final = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")
numbers: Final = frozenset(
    {
        "allowed", "before", "byte", "bytes", "count", "id", "last", "most", "now", "of", "offset", "owned", "partition", "rate",
        "rows", "seconds", "status", "times", "worker",
    }
)  # fmt: skip
"""Values of these names are numbers."""

Sentence = dict[str, Any]


@cache
def words(language: str) -> Mapping[str, str]:
    """The words of a language, by code."""
    found: Mapping[str, str] = orjson.loads((static_folder / f"{language}.json").read_bytes())
    return found


def as_told(text: str) -> Sentence:
    """The sentence of a text: with a code and values where it is one of the engine's own, else as it is."""
    found = told_if_known(text)
    return {"code": as_it_is, "values": {"text": text}, "text": text} if found is None else found


def told_if_known(text: str) -> Sentence | None:
    """The sentence of a text of the engine's own; None for what somebody else wrote."""
    return _found(text) if len(text) <= characters_max else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Template:
    code: str
    literals: tuple[str, ...]  # one more than names
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        return sum(map(len, self.literals))

    @property
    def letters(self) -> int:
        return sum(each.isalpha() for literal in self.literals for each in literal)

    def values(self, text: str) -> list[str] | None:
        """What stands between the literals, each of these where it comes first: no text takes long, whoever wrote it."""
        first, *inner, last = self.literals
        if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
            return None
        end = len(text) - len(last)
        found, at = [], len(first)
        for literal in inner:
            place = text.find(literal, at, end)
            if place < 0:
                return None
            found.append(text[at:place])
            at = place + len(literal)
        found.append(text[at:end])
        return found if all(found) else None


@cache
def _templates() -> tuple[tuple[_Template, ...], Mapping[str, str]]:
    """Those with values, the longest first, and the codes of the texts without any."""
    plain: dict[str, str] = {}
    found = []
    for code, words_of in words("en").items():
        if not code.startswith(prefix) or code == as_it_is:
            continue
        parts = _named.split(words_of)
        if len(parts) == 1:
            plain[words_of] = code
        else:
            found.append(_Template(code=code, literals=tuple(parts[::2]), names=tuple(parts[1::2])))
    return tuple(sorted(found, key=lambda each: -each.length)), plain


@lru_cache(maxsize=2048)
def _found(text: str, depth: int = 0) -> Sentence | None:
    templates, plain = _templates()
    if text in plain:
        return {"code": plain[text], "values": {}, "text": text}
    for template in templates:
        values = template.values(text)
        if values is None:
            continue
        read = _read(template, values, depth)
        if read is not None:
            return {"code": template.code, "values": read, "text": text}
    return None


def _read(template: _Template, values: list[str], depth: int) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    known = template.letters >= telling_letters_min
    for name, value in zip(template.names, values, strict=True):
        if name in sets:
            if f"{name}.{value}" not in words("en"):
                return None
            known = True
            found[name] = value
        elif name in numbers:
            if not _number.fullmatch(value):
                return None
            found[name] = _as_number(value)
        else:
            inner = _found(value, depth + 1) if depth < depth_max else None
            known = known or inner is not None
            found[name] = value if inner is None else inner
    return found if known else None


def _as_number(text: str) -> float | int | str:
    """A number that was written for people to read; an offset, which is a name, stays as it is."""
    if "." in text:
        return float(text.replace(",", ""))
    return int(text.replace(",", "")) if "," in text or len(text) < 4 else text
