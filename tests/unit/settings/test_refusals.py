"""Whatever is wrong in whichever setting: one sentence of ours, with the path and the cure, and no text of the file in it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from penstock.engine.settings.model import Settings, parse_settings
from penstock.engine.settings.section import kinds_of
from penstock.schemas.errors import ConfigError

canary = "hunterCANARY7f3a"
foreign_words = re.compile(
    r"Input should|valid (integer|number|string|boolean|dictionary|list|tuple|path)|pydantic|\[type=|validation error|"
    r"unable to (parse|interpret)|Value error|\bstr\b|\bint\b|\bdict\b|\bNone\b|\btuple\b|instance of"
)
wrong_values: list[Any] = [
    True, False, 0, -1, 1, 10**12, -(10**30), 0.5, -2.5, math.nan, math.inf, canary, "", " ", "\0", "1", None, [], [1], [None],
    {}, {"x": canary}, {"": 1}, [canary, {}], {"a": {"b": []}},
]  # fmt: skip


def leaves(section: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of the tree, sections as well."""
    for name, info in section.model_fields.items():
        here = (*path, info.alias or name)
        yield here
        members = [info.annotation, *get_args(info.annotation)]
        below = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
        if below and get_origin(info.annotation) is not list:
            yield from leaves(below[0], here)


def tree() -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "registry": {"url": "http://localhost:8081"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "models/m"},
    }


def refusal(path: tuple[str, ...], value: Any) -> str | None:
    whole = tree()
    place = whole
    for part in path[:-1]:
        place = place.setdefault(part, {})
    place[path[-1]] = value
    try:
        parse_settings(whole, origin="penstock.yaml", folder=Path("/etc"))
    except ConfigError as error:
        return str(error)
    return None


def sound(path: tuple[str, ...], value: Any, said: str) -> None:
    assert said.startswith("penstock.yaml: "), said
    sections = [".".join(path[: end + 1]) for end in range(len(path))]
    together = "differ from each other" in said or "needs a registry" in said or "does not go with" in said
    assert together or "record_type chooses" in said or any(f" {each}" in said for each in sections), said
    assert not foreign_words.search(said), said
    assert canary not in said, said
    assert "\n" not in said
    if isinstance(value, int | float) and abs(value) > 1e6 and "password" in path[-1]:
        assert str(value) not in said


@pytest.mark.parametrize("path", list(leaves()), ids=".".join)
def test_a_wrong_value_of_any_type_is_one_sentence_of_ours(path: tuple[str, ...]) -> None:
    refused = 0
    for value in wrong_values:
        said = refusal(path, value)
        if said is not None:
            refused += 1
            sound(path, value, said)
    assert refused, "nothing at all is wrong there?"


def fields(section: type[BaseModel] = Settings) -> Iterator[tuple[type[BaseModel], str, list[Any]]]:
    """Every section with each of its keys, and the types that this may have."""
    for name, info in section.model_fields.items():
        kinds = kinds_of(info.annotation)
        yield section, info.alias or name, kinds
        for below in kinds:
            if isinstance(below, type) and issubclass(below, BaseModel):
                yield from fields(below)


numbers = [
    (section, key) for section, key, kinds in fields() if {int, float} & {*kinds} and bool not in kinds
]
flags = [(section, key) for section, key, kinds in fields() if bool in kinds and not {int, float} & {*kinds}]


def refused(section: type[BaseModel], key: str, value: Any) -> list[str]:
    """The kinds of faults of this one setting."""
    try:
        section.model_validate({key: value})
    except ValidationError as error:
        return [fault["type"] for fault in error.errors() if fault["loc"] == (key,)]
    return []


@pytest.mark.parametrize(("section", "key"), numbers)
def test_a_flag_is_no_number(section: type[BaseModel], key: str) -> None:
    assert refused(section, key, True) == refused(section, key, False) == ["other_kind"]


@pytest.mark.parametrize(("section", "key"), flags)
def test_a_number_is_no_flag(section: type[BaseModel], key: str) -> None:
    for value in (0, 1, 0.0, 1.0):
        assert refused(section, key, value) == ["other_kind"]
    assert refused(section, key, True) == refused(section, key, "true") == []  # a text, as a variable has it


def test_there_are_settings_of_both_kinds() -> None:
    assert len(numbers) >= 20
    assert flags


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@example_settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(list(leaves())), value=_json)
def test_so_is_whatever_else_yaml_can_hold(path: tuple[str, ...], value: Any) -> None:
    said = refusal(path, value)
    if said is not None:
        assert not foreign_words.search(said.replace(repr(value), "")), said
        assert said.startswith("penstock.yaml: ")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("workers", "three", "workers: has to be a whole number; it is a text"),
        ("workers", 0, "workers: has to be at least 1; it is 0"),
        ("workers", True, "workers: has to be a whole number; it is true"),
        ("model.batch_s_max", False, "model.batch_s_max: has to be a finite number or null; it is false"),
        ("workers", 2.5, "workers: has to be a whole number; it is 2.5"),
        ("kafka.drain_budget_s", 900, "kafka.drain_budget_s: has to be at most 300; it is 900"),
        ("kafka.start", "newest", "kafka.start: has to be one of earliest, latest, error; it is a text"),
        ("kafka.client", {"linger.ms": [1]}, "kafka.client.linger.ms: has to be"),
        ("kafka.security.password", 12345, "kafka.security.password: has to be a text, in quotes"),
        ("input.topic", "in put", "input.topic: has to be the name of a topic"),
        ("model.digest", "abc", "model.digest: has to be 64 hexadecimal digits"),
        ("output", [1], "output: has to be a section"),
        ("model.trust.keys", "key.pem", "model.trust.keys: has to be a list; it is a text"),
    ],
)
def test_the_sentence_says_what_it_has_to_be(path: str, value: Any, sentence: str) -> None:
    said = refusal(tuple(path.split(".")), value)
    assert said is not None
    assert sentence in said
    assert "12345" not in said
