"""The page `/scaling` as the scaler knows it: the number, every decision with its numbers, and what ran."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from penstock.engine.clock import Clock
from penstock.engine.pages.scaler_turns import Turn, came_true, forecasts_due
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.serving.live import Live
from penstock.engine.pages.serving.site import Site
from penstock.engine.pages.serving.streams import Streams
from penstock.engine.telemetry.http_server import Reader


def scaler_document(status: Mapping[str, Any], turns: Sequence[Turn], at_ms: int) -> dict[str, Any]:
    """The schema's `scaling`, of a loop's status and turns."""
    demand = status.get("demand") or {}
    plan = status.get("plan")
    capacity = demand.get("capacity")
    if plan is None:
        summary = [sentence("scaling.none_yet", reason=status["fault"] or status["reason"])]
    elif not status["trusted"]:
        summary = [sentence("scaling.held", reason=status["fault"] or status["reason"])]
    else:
        summary = [sentence("scaling.trusted", asked=status["required_replicas"], why=plan["why"])]
    if plan is not None and capacity is None:
        summary.append(sentence("scaling.unknown_capacity"))
    if (truth := came_true(turns)) is not None:
        summary.append(
            sentence(
                "scaling.came_true",
                minutes=max(round(truth.minutes), 1),
                exceeded=round(100 * truth.exceeded),
                ratio=round(truth.ratio, 2),
            )
        )
    return {
        "page": "scaling",
        "at_ms": at_ms,
        "role": "scaler",
        "summary": summary,
        "wanted": None if plan is None else plan["need"]["replicas"],
        "asked": None if plan is None else status["required_replicas"],
        "running": demand.get("replicas_now"),
        "trusted": status["trusted"],
        "demand": {
            name: demand.get(name)
            for name in ("arrival_records_per_s", "forecast_records_per_s", "backlog_records", "oldest_age_s")
        }
        | {"capacity_records_per_s": None if capacity is None else capacity["records_per_s"]},
        "decisions": [_decision(each) for each in status.get("decisions", ())],
        "series": {
            "at_ms": [each.at_ms for each in turns],
            "running": [each.running for each in turns],
            "wanted": [each.published for each in turns],
            "arrival_records_per_s": [_short(each.arrival_records_per_s) for each in turns],
            "forecast_records_per_s": [_short(each) for each in forecasts_due(turns)],
        },
        "workers": [],
    }


def _short(rate: float | None) -> float | None:
    return None if rate is None else float(f"{rate:.4g}")


def _decision(each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at_ms": each["at_ms"],
        "from": each["from"],
        "to": each["to"],
        "text": sentence(
            "scaling.decision",
            why=each["why"],
            bound=each["bound"],
            replicas=each["replicas_now"],
            arrivals=each["arrival_records_per_s"],
            backlog=each["backlog_records"],
            age_s=each["oldest_age_s"],
            capacity=each["capacity_records_per_s"],
        ),
    }


class Loop(Protocol):
    """The scaler's loop, as far as the page goes; answered from any thread."""

    def status(self) -> Mapping[str, Any]:
        """The newest decision, and what it was made from."""

    def turns(self) -> Sequence[Turn]:
        """Oldest first."""


class ScalerContent:
    """One page, and no records or parts of a model."""

    def __init__(self, loop: Loop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock

    @property
    def documents(self) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        return {
            "scaling": lambda: scaler_document(self._loop.status(), self._loop.turns(), self._clock.wall_ms())
        }

    def before(self, page: str) -> None:
        """Nothing has to be asked for."""

    def record(self, topic: str, partition: int, offset: int) -> tuple[bytes | Mapping[str, Any], bool]:
        return {
            "error": sentence("error.no_path", known="/api/v1/scaling, /api/v1/events, /api/v1/schema")
        }, False

    def part(self, kind: str, number: int) -> bytes | Mapping[str, Any] | None:
        return None


@contextmanager
def scaler_pages(loop: Loop, *, hosts: Collection[str], clock: Clock) -> Iterator[Reader]:
    """What answers the page's paths, until the end."""
    content = ScalerContent(loop, clock)
    live = Live(lambda page: content.documents[page](), boot=f"{clock.wall_ms():x}{os.getpid():x}")
    streams = Streams(live, clock=clock)
    streams.start()
    try:
        yield Site(content, live, streams, pages=tuple(content.documents), hosts=hosts, clock=clock).answer
    finally:
        streams.close()
