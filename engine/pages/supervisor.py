"""The pages of a supervisor, put together."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from penstock.engine.clock import Clock
from penstock.engine.pages.documents.flow import flow_document
from penstock.engine.pages.documents.health import health_document
from penstock.engine.pages.documents.hints import hints_document
from penstock.engine.pages.documents.model import first_features
from penstock.engine.pages.documents.records import absent_record, records_document
from penstock.engine.pages.documents.scaling import scaling_document
from penstock.engine.pages.model_watch import ModelWatch
from penstock.engine.pages.serving.acting import Acting
from penstock.engine.pages.serving.live import Live
from penstock.engine.pages.serving.site import Site
from penstock.engine.pages.serving.streams import Streams
from penstock.engine.pages.trying import Trials, Trying
from penstock.engine.pages.watch import Facts, Picture, Watch
from penstock.engine.telemetry.ask_workers import ask_workers
from penstock.engine.telemetry.http_server import Reader

pages: Final = ("flow", "records", "model", "health", "scaling")
"""In the order of the navigation; the first one is `/`."""


class SupervisorContent:
    """The five pages, made of what the watch knows."""

    def __init__(self, watch: Watch, model: ModelWatch, facts: Facts) -> None:
        self._watch = watch
        self._model = model
        self._facts = facts

    @property
    def documents(self) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        made: Mapping[str, Callable[[Picture], Mapping[str, Any]]] = {
            "flow": flow_document,
            "records": records_document,
            "health": health_document,
            "scaling": scaling_document,
            "hints": hints_document,
        }
        return {name: partial(self._made, make) for name, make in made.items()} | {
            "model": self._model.document
        }

    def followed(self, page: str) -> Mapping[str, Any]:
        """The document of a page, as it is sent to who follows it."""
        document = self.documents[page]()
        return first_features(document) if page == "model" else document

    def _made(self, make: Callable[[Picture], Mapping[str, Any]]) -> Mapping[str, Any]:
        return make(self._watch.picture())

    def before(self, page: str) -> None:
        if page == "model":
            self._model.look()

    def record(self, topic: str, partition: int, offset: int) -> tuple[bytes | Mapping[str, Any], bool]:
        ring = self._watch.picture().ring
        found = ring.record((topic, partition, offset))
        if found is not None:
            return found, True
        return absent_record(ring, self._facts, topic, partition, offset), False

    def part(self, kind: str, number: int) -> bytes | Mapping[str, Any] | None:
        if kind == "trees":
            return self._model.tree(number)
        return self._model.dependence(number) if kind == "dependence" else self._model.graph()


@dataclass(frozen=True, kw_only=True, slots=True)
class Acts:
    """What the pages of a supervisor may do besides showing: None and False where they show only."""

    trials: Trials | None = None
    guarded: bool = False
    """The settings have an admin section."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorPages:
    """What was put together; works until the end."""

    reader: Reader
    """Answers the pages' paths, POSTs as well."""
    watch: Watch
    """Can be told what the supervisor knows."""
    acting: Acting
    """Is to be given the gate of the admin port."""
    trying: Trying | None


@contextmanager
def supervisor_pages(
    facts: Facts,
    *,
    ports: Callable[[], Mapping[str, int]],
    hosts: Collection[str],
    clock: Clock,
    acts: Acts = Acts(),
) -> Iterator[SupervisorPages]:
    """The pages, as long as it lasts."""

    def ask(path_of: Callable[[str], str | None]) -> Any:
        return ask_workers(ports(), path_of)

    def digests() -> dict[str, str]:
        told = watch.picture().told
        return {
            slot: each["status"]["model"]["digest"] for slot, each in told.items() if each["status"]["model"]
        }

    def watched() -> bool:
        topics = streams.watched
        if "model" in topics:
            model.look()
        return bool(topics)

    watch = Watch(facts, ask=ask, watched=lambda: watched(), clock=clock, turned=lambda: streams.wake())
    model = ModelWatch(ask, digests=digests, clock=clock)
    content = SupervisorContent(watch, model, facts)
    live = Live(content.followed, boot=f"{clock.wall_ms():x}{os.getpid():x}")
    streams = Streams(live, clock=clock)
    trying = None
    if acts.trials is not None:
        trying = Trying(acts.trials, facts, ring=lambda: watch.picture().ring, clock=clock)
    acting = Acting(trying, guarded=acts.guarded, clock=clock)
    site = Site(content, live, streams, pages=pages, hosts=hosts, clock=clock, acting=acting)
    watch.start()
    streams.start()
    try:
        yield SupervisorPages(reader=site.answer, watch=watch, acting=acting, trying=trying)
    finally:
        streams.close()
        watch.close()
