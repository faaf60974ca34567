"""The dashboards by Grafana's own typed schema, as its foundation SDK has it: every member is known there, and of its type.

`make test-alerts` installs the SDK and runs this; that each query is read and returns data is tested beside it.
"""

import copy
import json
import os
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from types import UnionType
from typing import Any

import pytest

from penstock.engine.rules.files import dashboard_files
from tests.unit.rules.test_rules_in_prometheus import terms

pytestmark = pytest.mark.skipif(
    "PENSTOCK_ALERTS" not in os.environ, reason="make test-alerts, which installs Grafana's foundation SDK"
)
not_in_the_sdk = {"definition"}
"""What Grafana's own editor writes of a variable, and shows in its list; the schema of the SDK has it not."""
files = {name: json.loads(text) for name, text in dashboard_files(terms).items()}


def faults(dashboard: dict[str, Any]) -> list[str]:
    """Members that the typed schema does not know or that are of another type than it says, by their place."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    try:
        read = Dashboard.from_json(copy.deepcopy(dashboard))
        again = json.loads(JSONEncoder(sort_keys=True).encode(read))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [f"not read: {error}"]
    return [*_lost(dashboard, again, ""), *_mistyped(read, Dashboard, "")]


def _lost(ours: Any, theirs: Any, place: str) -> Iterator[str]:
    """What did not come back as it went in."""
    if isinstance(ours, dict):
        for name, each in ours.items():
            if not isinstance(theirs, dict) or name not in theirs:
                if name not in not_in_the_sdk:
                    yield f"{place}/{name} is not known"
            else:
                yield from _lost(each, theirs[name], f"{place}/{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(one, other, f"{place}/{number}")
    elif ours != theirs:
        yield f"{place} is {ours!r}, and read as {theirs!r}"


def _mistyped(value: Any, wanted: Any, place: str) -> Iterator[str]:
    """Where a value that was read is none of the type that its class declares."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (Any, object) or isinstance(wanted, typing.TypeVar):
        return
    if origin in (typing.Union, UnionType):
        tried = [list(_mistyped(value, each, place)) for each in arguments]
        if all(tried):
            yield max(
                (each[0] for each in tried), key=lambda each: each.split(" ")[0].count("/")
            )  # the deepest says most
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{place} is {value!r}, none of {arguments}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for number, each in enumerate(value):
            yield from _mistyped(each, arguments[0], f"{place}/{number}")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{place} is no mapping"
            return
        for name, each in value.items():
            yield from _mistyped(each, arguments[1], f"{place}/{name}")
    elif wanted is float or wanted is int:
        if isinstance(value, bool) or not isinstance(value, int if wanted is int else (int, float)):
            yield f"{place} is {value!r}, no {wanted.__name__}"
    elif issubclass(wanted, Enum):
        if value not in [each.value for each in wanted] and value not in list(wanted):
            yield f"{place} is {value!r}, none of {[each.value for each in wanted]}"
    elif not isinstance(value, wanted):
        yield f"{place} is {value!r}, no {wanted.__name__}"
    elif not isinstance(value, (str, bytes)) and hasattr(value, "__dict__"):
        hints = typing.get_type_hints(type(value))
        for name, each in vars(value).items():
            if name in hints:
                yield from _mistyped(each, hints[name], f"{place}/{name}")


@pytest.mark.parametrize("name", files)
def test_every_member_of_a_dashboard_is_known_and_of_its_type(name: str) -> None:
    assert faults(files[name]) == []


def _misspelt_expr(it: dict[str, Any]) -> None:
    it["panels"][1]["targets"][0]["exprr"] = it["panels"][1]["targets"][0].pop("expr")


def _number_for_expr(it: dict[str, Any]) -> None:
    it["panels"][1]["targets"][0]["expr"] = 3


def _text_for_height(it: dict[str, Any]) -> None:
    it["panels"][1]["gridPos"]["h"] = "tall"


def _misspelt_unit(it: dict[str, Any]) -> None:
    it["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"


def _misspelt_variable(it: dict[str, Any]) -> None:
    it["templating"]["list"][1]["includeAl"] = True


def _list_for_title(it: dict[str, Any]) -> None:
    it["title"] = ["Penstock"]


@pytest.mark.parametrize(
    "spoil", [_misspelt_expr, _number_for_expr, _text_for_height, _misspelt_unit, _misspelt_variable, _list_for_title]
)  # fmt: skip
def test_a_misspelt_member_and_a_wrong_type_are_found(spoil: Callable[[dict[str, Any]], None]) -> None:
    spoilt = copy.deepcopy(files["penstock.json"])
    spoil(spoilt)
    assert len(faults(spoilt)) >= 1
