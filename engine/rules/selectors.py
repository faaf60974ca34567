"""Queries narrowed: every series of an expression asked for with more labels."""

import json
import re
from collections.abc import Mapping
from typing import Final

from penstock.schemas.errors import ConfigError

_label_name: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_series: Final = re.compile(
    r"(?<![\w:$])(penstock[_:][\w:]+|process_\w+|up)\b(?!\s*\()(?:\{([^}]*)\})?"
)  # as in `penstock_lag_seconds{topic="t"}`; a name before a parenthesis would be a function


def narrowed(expression: str, matchers: str) -> str:
    """The expression with every series asked for with these matchers, as in `release="a"`, as well."""
    if not matchers:
        return expression
    return _series.sub(
        lambda match: f"{match[1]}{{{matchers}{', ' + match[2] if match[2] else ''}}}", expression
    )


def matchers(labels: Mapping[str, str]) -> str:
    """Labels with their values, as matchers."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())


def parse_labels(pairs: list[str]) -> dict[str, str]:
    """`LABEL=VALUE`, each; raises ConfigError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _label_name.fullmatch(name) or not value or not value.isprintable():
            raise ConfigError(f"--select {pair!r}: write LABEL=VALUE, for example release=fraud")
        if found.setdefault(name, value) != value:
            raise ConfigError(f"--select names the label {name} twice")
    return found
