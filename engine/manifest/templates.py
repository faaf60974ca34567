"""Helm's templates as far as the chart uses them: Go's text/template with variables, blocks and named templates, and the functions of a table.

Anything else is an InvariantError, since nothing would check it. Where Helm is found, the tests compare what both make of the chart.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from penstock.schemas.errors import InvariantError


class ChartError(Exception):
    """`fail` was called, with its sentences, one a line."""


def _require(met: bool, what: str) -> None:
    if not met:
        raise InvariantError(what)


class _Text(str):
    pass


class _Action(str):
    pass


Node = tuple[Any, ...]

_token = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|:=|\)\.\w[\w.]*|[()|=]|[^\s()|]+')


def _pieces(text: str) -> Iterator[_Text | _Action]:
    at = 0
    strip = False
    for match in re.finditer(
        r"\{\{(- )?(/\*.*?\*/|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^}\"`]|\}(?!\}))*?)( -)?\}\}", text, re.DOTALL
    ):
        plain = text[at : match.start()]
        plain = plain.lstrip() if strip else plain
        yield _Text(plain.rstrip() if match[1] else plain)
        strip, at = bool(match[3]), match.end()
        if not match[2].lstrip().startswith("/*"):
            yield _Action(match[2].strip())
    yield _Text(text[at:].lstrip() if strip else text[at:])


def _parse(pieces: Iterator[_Text | _Action], defined: dict[str, list[Node]]) -> tuple[list[Node], str]:
    """The nodes up to an `end` or `else` that belongs to the caller, and that action."""
    nodes: list[Node] = []
    for piece in pieces:
        if isinstance(piece, _Text):
            nodes.append(("text", str(piece)))
            continue
        word, _, rest = piece.partition(" ")
        if word == "end" or word == "else":
            return nodes, str(piece)
        if word == "define":
            body, _ = _parse(pieces, defined)
            defined[json.loads(rest)] = body
        elif word in ("if", "with", "range"):
            nodes.append(_block(word, rest, pieces, defined))
        else:
            nodes.append(("action", str(piece)))
    return nodes, ""


def _block(word: str, rest: str, pieces: Iterator[_Text | _Action], defined: dict[str, list[Node]]) -> Node:
    body, ended = _parse(pieces, defined)
    other: list[Node] = []
    if ended.startswith("else if "):
        other = [_block("if", ended[8:], pieces, defined)]
    elif ended == "else":
        other, ended = _parse(pieces, defined)
    return (word, rest, body, other)


class _Scope:
    """Variables, block by block."""

    def __init__(self, outer: "_Scope | None" = None) -> None:
        self.names: dict[str, Any] = {}
        self.outer = outer

    def find(self, name: str) -> dict[str, Any]:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names
            scope = scope.outer
        raise InvariantError(f"the chart uses {name}, which was not set")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, _Int64) and abs(value) >= 1_000_000:
        return f"{value:e}"  # a number of a values file is a float64 to Helm
    return str(value)


class _Int64(int):
    pass


def _int64(value: Any) -> _Int64:
    return _Int64(float(value) if value else 0)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _indent(width: int, text: str) -> str:
    return "\n".join(" " * width + line for line in text.split("\n"))


def _dict(*pairs: Any) -> dict[str, Any]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _dig(*path: Any) -> Any:
    *names, default, found = path
    for name in names:
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    return found


def _re2(pattern: str) -> str:
    return pattern.replace("\\z", "\\Z")


def _fail(text: str) -> str:
    raise ChartError(text)


def _printf(form: str, *values: Any) -> str:
    return re.sub(r"%[sdv]", "%s", form) % tuple(_shown(value) for value in values)


functions: dict[str, Callable[..., Any]] = {
    "add": lambda *values: _Int64(sum(int(value) for value in values)),
    "append": lambda items, item: [*items, item],
    "ceil": lambda value: float(math.ceil(float(value))),
    "concat": lambda *lists: [item for items in lists for item in items],
    "contains": lambda part, text: part in text,
    "default": lambda fallback, value=None: value if value else fallback,
    "dict": _dict,
    "dig": _dig,
    "eq": lambda first, *others: first in others,
    "fail": _fail,
    "float64": float,
    "fromYaml": yaml.safe_load,
    "get": lambda mapping, name: mapping.get(name, ""),
    "gt": lambda one, other: one > other,
    "has": lambda item, items: item in items,
    "hasKey": lambda mapping, name: name in mapping,
    "hasPrefix": lambda part, text: text.startswith(part),
    "hasSuffix": lambda part, text: text.endswith(part),
    "index": lambda found, *path: _dig(*path, None, found) if isinstance(found, dict) else found[path[0]],
    "int64": _int64,
    "join": lambda between, items: between.join(map(_shown, items)),
    "kindIs": lambda kind, value: kind == {str: "string", dict: "map", list: "slice", bool: "bool"}.get(type(value), "float64"),
    "le": lambda one, other: one <= other,
    "len": len,
    "list": lambda *items: list(items),
    "lookup": lambda *_: {},
    "lower": str.lower,
    "lt": lambda one, other: one < other,
    "mul": lambda *values: _Int64(math.prod(int(value) for value in values)),
    "ne": lambda one, other: one != other,
    "nindent": lambda width, text: "\n" + _indent(int(width), text),
    "not": lambda value: not value,
    "printf": _printf,
    "quote": lambda value: json.dumps(_shown(value), ensure_ascii=False),
    "regexMatch": lambda pattern, text: re.search(_re2(pattern), text) is not None,
    "regexReplaceAll": lambda pattern, text, new: re.sub(_re2(pattern), re.sub(r"\$\{(\d+)\}", r"\\\1", new), text),
    "replace": lambda old, new, text: text.replace(old, new),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "splitList": lambda between, text: text.split(between),
    "ternary": lambda yes, no, condition: yes if condition else no,
    "toJson": _json,
    "toString": _shown,
    "toYaml": lambda value: yaml.safe_dump(value, width=10_000, allow_unicode=True).removesuffix("...\n").rstrip("\n"),
    "trim": str.strip,
    "trimSuffix": lambda end, text: text.removesuffix(end),
    "upper": str.upper,
    "uniq": lambda items: list(dict.fromkeys(items)),
}  # fmt: skip


class Chart:
    """The templates of a chart's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.defined: dict[str, list[Node]] = {}
        self.files = {
            path.name: _parse(_pieces(path.read_text(encoding="utf-8")), self.defined)[0]
            for path in sorted((folder / "templates").iterdir())
        }

    def values(self, changes: dict[str, Any]) -> dict[str, Any]:
        """values.yaml with a user's values over it, as Helm merges them: a null takes a key away."""
        return _merged(yaml.safe_load((self.folder / "values.yaml").read_text(encoding="utf-8")), changes)

    def render(
        self,
        changes: dict[str, Any],
        *,
        release: str = "prod",
        namespace: str = "ns",
        revision: int = 1,
        service: str = "Helm",
    ) -> dict[str, str]:
        """File name to its text. `service`: what the objects say that they are managed by. Raises ChartError."""
        meta = yaml.safe_load((self.folder / "Chart.yaml").read_text(encoding="utf-8"))
        root = {
            "Values": self.values(changes),
            "Release": {"Name": release, "Namespace": namespace, "Service": service, "Revision": revision, "IsUpgrade": revision > 1},
            "Chart": {"Name": meta["name"], "Version": meta["version"], "AppVersion": meta["appVersion"]},
            "Files": {"Get": lambda name: (self.folder / name).read_text(encoding="utf-8")},
        }  # fmt: skip
        return {
            name: _Run(self, root).nodes(nodes, root, _Scope())
            for name, nodes in self.files.items()
            if not name.startswith("_")
        }


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict) and isinstance(made.get(name), dict):
            made[name] = _merged(made[name], value)
        else:
            made[name] = value
    return made


class _Run:
    """One rendering."""

    def __init__(self, chart: Chart, root: dict[str, Any]) -> None:
        self.chart = chart
        self.root = root

    def nodes(self, nodes: list[Node], dot: Any, outer: _Scope) -> str:
        scope = _Scope(outer)
        return "".join(self._node(node, dot, scope) for node in nodes)

    def _node(self, node: Node, dot: Any, scope: _Scope) -> str:
        if node[0] == "text":
            return str(node[1])
        if node[0] == "action":
            return self._action(node[1], dot, scope)
        word, given, body, other = node
        inner = _Scope(scope)
        names, _, expression = given.rpartition(" := ")
        value = self._expression(expression, dot, scope)
        if word == "range":
            key, _, item = names.replace(",", " ").rpartition(" ")
            pairs = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value or ()))
            if not pairs:
                return self.nodes(other, dot, inner)
            out = ""
            for position, one in pairs:
                inner.names |= {name: found for name, found in ((key.strip(), position), (item, one)) if name}
                out += self.nodes(body, one, inner)
            return out
        if names:
            inner.names[names] = value
        if not value:
            return self.nodes(other, dot, inner)
        return self.nodes(body, value if word == "with" else dot, inner)

    def _action(self, text: str, dot: Any, scope: _Scope) -> str:
        if match := re.match(r"(\$\w+) (:?=) (.*)", text, re.DOTALL):
            value = self._expression(match[3], dot, scope)
            (scope.names if match[2] == ":=" else scope.find(match[1]))[match[1]] = value
            return ""
        return _shown(self._expression(text, dot, scope))

    def _expression(self, text: str, dot: Any, scope: _Scope) -> Any:
        tokens = _token.findall(text)
        value = self._pipeline(tokens, dot, scope)
        _require(not tokens, f"{text}: {tokens} is left over")
        return value

    def _pipeline(self, tokens: list[str], dot: Any, scope: _Scope) -> Any:
        value = self._command(tokens, dot, scope, ())
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            value = self._command(tokens, dot, scope, (value,))
        return value

    def _command(self, tokens: list[str], dot: Any, scope: _Scope, last: tuple[Any, ...]) -> Any:
        first = tokens[0]
        if not re.match(r"[a-zA-Z]\w*$", first) or first in ("true", "false", "nil"):
            value = self._operand(tokens, dot, scope)
            if callable(value):
                return value(*self._operands(tokens, dot, scope), *last)
            return value
        name = tokens.pop(0)
        if name in ("and", "or"):
            return self._until(name == "or", tokens, dot, scope, last)
        arguments = (*self._operands(tokens, dot, scope), *last)
        if name == "include":
            return self.nodes(self.chart.defined[arguments[0]], arguments[1], self._top(arguments[1]))
        _require(name in functions, f"the chart uses {name}, which nothing checks")
        return functions[name](*arguments)

    def _until(self, wanted: bool, tokens: list[str], dot: Any, scope: _Scope, last: tuple[Any, ...]) -> Any:
        """`or` and `and`: the first value that settles it; what comes after it is not evaluated."""
        found: Any = None
        settled = False
        while tokens and tokens[0] != "|" and tokens[0][0] != ")":
            if settled:
                depth = 0
                while True:
                    token = tokens.pop(0)
                    depth += (token == "(") - (token[0] == ")")
                    if depth == 0:
                        break
                continue
            found = self._operand(tokens, dot, scope)
            settled = bool(found) == wanted
        return found if settled or not last else last[0]

    def _top(self, dot: Any) -> _Scope:
        scope = _Scope()
        scope.names["$"] = dot
        return scope

    def _operands(self, tokens: list[str], dot: Any, scope: _Scope) -> list[Any]:
        found = []
        while tokens and tokens[0] != "|" and tokens[0][0] != ")":
            found.append(self._operand(tokens, dot, scope))
        return found

    def _operand(self, tokens: list[str], dot: Any, scope: _Scope) -> Any:
        token = tokens.pop(0)
        if token == "(":
            value = self._pipeline(tokens, dot, scope)
            closing = tokens.pop(0)
            _require(closing[0] == ")", f"{closing} in the place of a bracket")
            return self._fields(value, closing[1:])
        if token[0] == '"':
            return json.loads(token)
        if token[0] == "`":
            return token[1:-1]
        if token in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[token]
        if re.match(r"-?\d", token):
            return float(token) if "." in token else _Int64(token)
        name, _, _ = token.partition(".")
        if name == "$":
            value = scope.find("$")["$"] if self._has_top(scope) else self.root
        elif name:
            _require(name.startswith("$"), f"the chart uses {token}, which nothing checks")
            value = scope.find(name)[name]
        else:
            value = dot
        return self._fields(value, token[len(name) :])

    def _has_top(self, scope: _Scope) -> bool:
        try:
            scope.find("$")
        except InvariantError:
            return False
        return True

    def _fields(self, value: Any, path: str) -> Any:
        for part in filter(None, path.split(".")):
            _require(isinstance(value, dict), f"{path} of {type(value).__name__}")
            value = value.get(part)
        return value
