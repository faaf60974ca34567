"""Documents that browsers follow: the whole once, then what changed, each change under an id from which one can go on."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from penstock.schemas.whole_number import whole_number

changes_kept: Final = 40
Document = Mapping[str, Any]


@dataclass(slots=True)
class _Topic:
    document: dict[str, Any] | None = None
    number: int = 0
    frames: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=changes_kept))


class Live:
    """The newest document of each topic, as those who follow it know it. Thread-safe."""

    def __init__(self, build: Callable[[str], Document], *, boot: str) -> None:
        """`build`: a topic's document now; `boot`: tells this process's ids from those of the one before."""
        self._build = build
        self._boot = boot
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.Lock()

    def change(self, topic: str) -> bytes | None:
        """The event of what changed since the last call; None where nothing did."""
        with self._lock:
            return self._change(topic)

    def begin(self, topic: str, last_id: str) -> tuple[bytes, bytes | None]:
        """For somebody new: what brings them up to the others, and what must then be sent to all others, if anything.

        `last_id`: the last event that they have; where what came after it is not held any more, the whole document.
        """
        with self._lock:
            for_others = self._change(topic)
            state = self._topics[topic]
            boot, _, number = last_id.rpartition("-")
            found = whole_number(number) if boot == self._boot else None
            known = -1 if found is None else found
            missed = [frame for at, frame in state.frames if at > known]
            if known >= 0 and known <= state.number and len(missed) == state.number - known:
                return b"".join(missed), for_others
            return self._frame("snapshot", state.number, state.document), for_others

    def _change(self, topic: str) -> bytes | None:
        new = dict(self._build(topic))
        state = self._topics.setdefault(topic, _Topic())
        old, state.document = state.document, new
        if old is None:
            return None
        changed = difference(old, new)
        if not any(changed.values()):
            return None
        state.number += 1
        frame = self._frame("change", state.number, changed)
        state.frames.append((state.number, frame))
        return frame

    def _frame(self, event: str, number: int, value: Any) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
            self._boot.encode(),
            number,
            event.encode(),
            orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS),
        )


def difference(old: Document, new: Document) -> dict[str, Any]:
    """What to set, what to append to the columns of `series` (points whose at_ms is past the last one known), and which
    records to put before those that are known.

    A change of the time alone is none.
    """
    prepend: list[Any] = []
    changed = {name: value for name, value in new.items() if name != "series" and value != old.get(name)}
    append: dict[str, list[Any]] = {}
    series, before = new.get("series"), old.get("series")
    if series is not None and before is not None and series["at_ms"]:
        last_ms = before["at_ms"][-1] if before["at_ms"] else -1
        first = next(
            (place for place, at_ms in enumerate(series["at_ms"]) if at_ms > last_ms), len(series["at_ms"])
        )
        if first < len(series["at_ms"]):
            append = {name: values[first:] for name, values in series.items()}
    if "records" in changed and old.get("records") and old["records"][0] in changed["records"]:
        prepend = changed.pop("records")
        prepend = prepend[: prepend.index(old["records"][0])]
    if set(changed) == {"at_ms"} and not append and not prepend:
        changed = {}
    return {"set": changed, "append": append, "prepend": prepend}
