"""A trial as it is asked for over HTTP, and the document of what it found."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from penstock.engine.clock import Clock
from penstock.engine.pages.documents.trial import trial_document
from penstock.engine.pages.record_ring import RecordRing
from penstock.engine.pages.watch import Facts
from penstock.schemas.errors import ConfigError

members: Final = ("topic", "partition", "offset", "bundle", "column", "value")
text_max: Final = 1000
offset_max: Final = 1 << 62


class Trials(Protocol):
    """Where records are tried: no worker, and nothing that a worker waits for."""

    @property
    def bundles(self) -> tuple[str, ...]:
        """Names that can be asked for; the first is the one that is served."""

    def ask(self, bundle: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """A state and a fault, and what was found; waits for some seconds at most."""


class Trying:
    """Reads what is asked for, has it tried, and tells what came of it. Thread-safe."""

    def __init__(self, trials: Trials, facts: Facts, *, ring: Callable[[], RecordRing], clock: Clock) -> None:
        self._trials = trials
        self._facts = facts
        self._ring = ring
        self._clock = clock

    def target(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is asked for. Raises ConfigError for what cannot be."""
        for name in body:
            if name not in members:
                raise ConfigError(
                    f"the body holds a member that is not known here; known: {', '.join(members)}"
                )
        if body.get("topic") != self._facts.topic:
            raise ConfigError(f"topic has to be {self._facts.topic}, the one that is read here")
        bundle = body.get("bundle", self._trials.bundles[0])
        if bundle not in self._trials.bundles:
            raise ConfigError(
                f"bundle has to be one of {', '.join(self._trials.bundles)}; http.bundles names others"
            )
        found = {
            "topic": self._facts.topic,
            "partition": _number(body, "partition", 1 << 31),
            "offset": _number(body, "offset", offset_max),
            "bundle": bundle,
        }
        if ("column" in body) != ("value" in body):
            raise ConfigError(
                "column and value go together: the column of the model's matrix, and what shall stand there"
            )
        if "column" in body:
            found |= {"column": _number(body, "column", 1 << 20), "value": _value(body["value"])}
        return found

    @staticmethod
    def recorded(target: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an audit says of it: no value."""
        return {name: value for name, value in target.items() if name != "value"}

    def act(self, target: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema's `trial`."""
        asked = {name: value for name, value in target.items() if name not in ("topic", "bundle")}
        answer = self._trials.ask(target["bundle"], asked)
        held = self._ring().record((target["topic"], target["partition"], target["offset"]))
        return trial_document(
            self._clock.wall_ms(),
            answer,
            bundle=target["bundle"],
            bundles=self._trials.bundles,
            streamed=None if held is None else orjson.loads(held),
        )


def _number(body: Mapping[str, Any], name: str, limit: int) -> int:
    given = body.get(name)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < limit:
        raise ConfigError(f"{name} has to be a number from 0 on")
    return given


def _value(given: Any) -> float | int | bool | str | None:
    """What a record may hold for one column. Raises ConfigError."""
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, str) and len(given) <= text_max:
        return given
    if isinstance(given, int | float) and math.isfinite(given):
        return given
    raise ConfigError(
        f"value has to be a number, true, false, null, or a text of at most {text_max} characters"
    )
