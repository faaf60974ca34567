"""Why a settings tree is refused, as one sentence of ours: which setting, what it is, what it has to be. Quotes no text."""

import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from penstock.engine.settings.section import kinds_of, shown

_forms: Final = {
    r"^[a-zA-Z0-9._-]+$": "has to be the name of a topic: letters, digits, dots, hyphens and underscores",
    r"^[0-9a-f]{64}$": "has to be 64 hexadecimal digits, as penstock check prints them",
    r"^(auto|cpu|cuda(:\d+)?)$": "has to be auto, cpu, cuda, or cuda:0 for a GPU by its number",
    r"^https?://": "has to be an http or https address",
}
_numbers: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def refusal(error: ValidationError, root: type[BaseModel]) -> tuple[tuple[str, ...], str]:
    """Where the first fault is, and the sentence. A value is shown where it is a number or a flag, and never a secret."""
    faults: dict[tuple[str, ...], tuple[Any, list[Any]]] = {}
    for fault in error.errors():
        path, members = _place(fault["loc"], root)
        faults.setdefault(path, (fault, members))
    path, (fault, members) = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    where = ".".join(shown(part) for part in path)
    sentence = _sentence(fault, path, members, root)
    joint = " " if fault["type"] in ("extra_forbidden", "missing") else ": "
    return path, f"{where}{joint}{sentence}{more}" if where else f"{sentence}{more}"


def _sentence(
    fault: Mapping[str, Any], path: tuple[str, ...], members: list[Any], root: type[BaseModel]
) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1], root)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"is not a setting; {hint}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    now = _now(fault["input"], members)
    if kind in _numbers:
        name, words = _numbers[kind]
        return f"has to be {words} {context[name]:g}{now}"
    if kind == "string_pattern_mismatch":
        return _forms.get(context["pattern"], "has another form than it must have")
    if kind == "string_too_short":
        return "is empty"
    if kind in ("string_too_long", "too_long", "dict_too_long"):
        return f"is longer than {context['max_length']}"
    if kind == "string_type":
        return f"has to be a text, in quotes where it looks like something else{now}"
    return f"has to be {_wanted(members)}{now}"


def _wanted(members: list[Any]) -> str:
    """What a setting of these types may be."""
    choices = [
        str(value) for member in members if get_origin(member) is Literal for value in get_args(member)
    ]
    words = [f"one of {', '.join(choices)}"] if choices else []
    for member in members:
        kind = get_origin(member) or member
        if kind is int:
            words.append("a whole number")
        elif kind is float:
            words.append("a finite number")
        elif kind is bool:
            words.append("true or false")
        elif kind in (tuple, list, set, frozenset):
            words.append("a list")
        elif kind is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
            words.append("a section: keys, each with its value")
        elif kind is type(None):
            words.append("null")
        elif kind is not Literal:
            words.append("a text")
    return " or ".join(dict.fromkeys(words)) or "something else"


def _now(value: Any, members: list[Any]) -> str:
    """What it is, as far as that may be shown: a text may be a secret that stands in the wrong place."""
    if SecretStr in members:
        return ""
    if isinstance(value, bool):
        return f"; it is {str(value).lower()}"
    if isinstance(value, int | float):
        numeric = any(member in (int, float, bool) for member in members)
        return f"; it is {value:g}" if numeric and abs(value) < 1e300 else "; it is a number"
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "a section", type(None): "null"}
    found = next((words for kind, words in kinds.items() if isinstance(value, kind)), "something else")
    return f"; it is {found}"


def _place(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[tuple[str, ...], list[Any]]:
    """The path of the setting, and the types that it may have. Which member of a union was tried is no part of it."""
    path: list[str] = []
    members: list[Any] = [root]
    for part in location:
        section = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if section is not None:
            path.append(str(part))
            found = [info for name, info in section.model_fields.items() if part in (name, info.alias)]
            members = kinds_of(found[0].annotation) if found else []
            continue
        held = [m for m in members if get_origin(m) in (dict, tuple, list)]
        if not held:
            break
        path.append(str(part))
        members = [each for m in held for inner in get_args(m)[-1:] for each in kinds_of(inner)]
        if get_origin(held[0]) is tuple:
            members = kinds_of(get_args(held[0])[0])
    return tuple(path), members


def _keys_at(path: tuple[str, ...], root: type[BaseModel]) -> list[str]:
    _, members = _place(path, root)
    section = next(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    return [info.alias or name for name, info in section.model_fields.items()]
