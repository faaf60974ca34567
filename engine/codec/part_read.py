"""A record that cannot be read, read as far as it can be: the fields before the fault, and the byte at which it lies."""

import json
from dataclasses import dataclass
from typing import Any, Final

depth_max: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRead:
    """What could be read of a value."""

    fields: tuple[tuple[str, Any], ...]
    """Dotted path and value of each field before the fault, in the order of the value."""
    field: str
    """The dotted path of the one that could not be read; empty where the value as a whole is none, or more follows it."""
    byte: int
    """Where, counted from the value's first byte."""


class _FaultError(Exception):
    """The text is no JSON from this character on."""

    def __init__(self, path: str, at: int) -> None:
        super().__init__(path)
        self.path = path
        self.at = at


class JsonPart:
    """Reads JSON texts as far as they go. Holds nothing between calls."""

    def __init__(self, *, skip: int) -> None:
        """`skip`: bytes before the text."""
        self._skip = skip

    def read(self, value: bytes) -> PartRead | None:
        """None where nothing is wrong with the text."""
        body = value[self._skip :]
        text, valid = body, len(body)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            valid = error.start
        whole = body[:valid].decode()
        found: list[tuple[str, Any]] = []
        try:
            end = _space(whole, _value(whole, _space(whole, 0), "", found, 0))
            if end == len(whole) and valid == len(body):
                return None
            path, at = "", end
        except _FaultError as fault:
            path, at = fault.path, fault.at
        except RecursionError:
            path, at = "", 0
        if at >= len(whole) or (valid < len(body) and not whole[at:].strip()):
            at = len(whole)
        return PartRead(fields=tuple(found), field=path, byte=self._skip + len(whole[:at].encode()))


def _refused(literal: str) -> float:
    raise ValueError(literal)


_decoder: Final = json.JSONDecoder(parse_constant=_refused)


def _value(text: str, at: int, path: str, found: list[tuple[str, Any]], depth: int) -> int:
    """Read the value at this character; the one behind it. Raises _FaultError."""
    if text[at : at + 1] == "{" and depth < depth_max:
        return _object(text, at, path, found, depth)
    try:
        value, end = _decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _FaultError(path, error.pos) from error
    except (ValueError, RecursionError) as error:
        raise _FaultError(path, at) from error
    found.append((path, value))
    return end


def _object(text: str, at: int, path: str, found: list[tuple[str, Any]], depth: int) -> int:
    at = _space(text, at + 1)
    if text[at : at + 1] == "}":
        found.append((path, {}))
        return at + 1
    while True:
        if text[at : at + 1] != '"':
            raise _FaultError(path, at)
        try:
            name, end = _decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _FaultError(path, error.pos) from error
        member = f"{path}.{name}" if path else str(name)
        at = _space(text, end)
        if text[at : at + 1] != ":":
            raise _FaultError(member, at)
        end = _value(text, _space(text, at + 1), member, found, depth + 1)
        at = _space(text, end)
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            if at == end < len(text) and found[-1][0] == member:  # 12x is no 12
                found.pop()
                raise _FaultError(member, at)
            raise _FaultError(path, at)
        at = _space(text, at + 1)


def _space(text: str, at: int) -> int:
    """The first character from here on that is no white space of JSON's."""
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at
