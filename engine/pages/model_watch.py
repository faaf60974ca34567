"""What the workers say of their model, asked for while somebody looks at it."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from penstock.engine.clock import Clock
from penstock.engine.pages.documents.dependence import dependence_document
from penstock.engine.pages.documents.model import model_document
from penstock.engine.telemetry.ask_workers import Reply

fresh_s: Final = 2.0

Ask = Callable[[Callable[[str], str | None]], Mapping[str, Reply]]


class ModelWatch:
    """Thread-safe. `look` asks, `document` does not."""

    def __init__(self, ask: Ask, *, digests: Callable[[], Mapping[str, str]], clock: Clock) -> None:
        """`digests`: of the model of each worker that is known to serve one."""
        self._ask = ask
        self._digests = digests
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_s: float | None = None
        self._described: dict[str, Mapping[str, Any]] = {}
        self._reasons: tuple[str | None, list[Mapping[str, Any]]] = (None, [])
        """Of which model, and what each worker that serves it counted."""
        self._backgrounds: dict[str, Mapping[str, Any]] = {}

    def look(self) -> None:
        """Ask the workers, where it is long enough ago; waits for their answers."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            if self._looked_s is not None and now_s - self._looked_s < fresh_s:
                return
            self._looked_s = now_s
            known = {digest for digest, each in self._described.items() if each["complete"]}
            held = {
                digest for digest, each in self._backgrounds.items() if each.get("state") in ("known", "none")
            }
        digests = self._digests()
        most = _most(digests)
        asked = self._ask(lambda slot: "/pages/reasons" if digests.get(slot) == most else None)
        reasons = [_read(reply) for reply in asked.values()]
        described = {}
        if wanted := {digest: slot for slot, digest in digests.items() if digest not in known}:
            described = self._asked_once("/pages/model", wanted)
        backgrounds = {}
        if wanted := {digest: slot for slot, digest in digests.items() if digest not in held}:
            backgrounds = self._asked_once("/pages/background", wanted)
        with self._lock:
            self._reasons = (most, [each for each in reasons if each])
            self._described, self._backgrounds = (
                {digest: each for digest, each in told.items() if digest in digests.values()}
                for told in (self._described | described, self._backgrounds | backgrounds)
            )

    def _asked_once(self, path: str, slots: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
        """What one worker of each model answers: `slots` by digest."""
        replies = self._ask(lambda slot: path if slot in slots.values() else None)
        return {digest: found for digest, slot in slots.items() if (found := _read(replies.get(slot)))}

    def document(self) -> dict[str, Any]:
        """The schema's `model`, of the model that most workers serve."""
        digests = list(self._digests().values())
        with self._lock:
            described, (counted, reasons) = dict(self._described), self._reasons
            backgrounds = dict(self._backgrounds)
        most = max(described, key=lambda each: (digests.count(each), each), default=None)
        return model_document(
            self._clock.wall_ms(),
            None if most is None else described[most],
            reasons if counted == most else [],
            digests,
            {} if most is None else backgrounds.get(most, {}),
        )

    def dependence(self, column: int) -> dict[str, Any] | None:
        """The schema's `dependence`, of the records of all workers that serve what most do; None where it has no such column."""
        digests = self._digests()
        most = _most(digests)
        path = f"/pages/dependence?number={column}"
        replies = self._ask(lambda slot: path if digests.get(slot) == most else None).values()
        told = [found for reply in replies if (found := _read(reply))]
        return dependence_document(self._clock.wall_ms(), column, told) if told else None

    def graph(self) -> bytes | None:
        """The schema's `graph` as JSON; None where no worker has one."""
        replies = self._ask(lambda _: "/pages/graph").values()
        return next((reply.body for reply in replies if reply.status == 200), None)

    def tree(self, number: int) -> bytes | None:
        """The schema's `tree` as JSON; None where no worker has it."""
        replies = self._ask(lambda _: f"/pages/tree?number={number}").values()
        return next((reply.body for reply in replies if reply.status == 200), None)


def _most(digests: Mapping[str, str]) -> str | None:
    """Of the models that are served, what most workers serve: columns of another one are other features."""
    served = list(digests.values())
    return max(served, key=lambda each: (served.count(each), each), default=None)


def _read(reply: Reply | None) -> Mapping[str, Any]:
    if reply is None or reply.status != 200 or not reply.body:
        return {}
    found: Mapping[str, Any] = orjson.loads(reply.body)
    return found
