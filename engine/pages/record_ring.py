"""The newest sampled records, bounded in number and in bytes: as text, so that wide records cost no more than they say."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from penstock.engine.pages.documents.outlines import outline
from penstock.engine.pages.told_texts import as_told

records_kept: Final = 500
bytes_kept: Final = 16 << 20
listed_max: Final = 100
same_key_max: Final = 20
examples_max: Final = 3

Place = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    text: bytes
    outline: dict[str, Any]
    key_id: str | None
    detail: str | None
    stops: dict[str, Any] | None


class RecordRing:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[Place, _Held] = OrderedDict()
        self._bytes = 0
        self._seen: dict[str, int] = {}
        self._seen_before = 0

    def add(self, slot: str, documents: Sequence[dict[str, Any]], *, seen: int) -> None:
        """What a worker sampled, the newest last; `seen`: how many it sampled since it started.

        A document has the schema's form `record` but for slot and same_key, and a `key_id`: equal for equal keys, null where
        the key may not be told.
        """
        with self._lock:
            if seen < self._seen.get(slot, 0):
                self._seen_before += self._seen[slot]
            self._seen[slot] = seen
            for document in documents:
                whole = {**document, "slot": slot}
                key_id = whole.pop("key_id")
                place = (whole["topic"], whole["partition"], whole["offset"])
                if (old := self._records.pop(place, None)) is not None:
                    self._bytes -= len(old.text)
                rejection = whole["rejection"]
                held = _Held(
                    text=orjson.dumps(whole),
                    outline=outline(whole),
                    key_id=key_id,
                    detail=None if rejection is None else rejection["detail"],
                    stops=whole["input_stops"],
                )
                self._records[place] = held
                self._bytes += len(held.text)
            while len(self._records) > records_kept or self._bytes > bytes_kept:
                _, gone = self._records.popitem(last=False)
                self._bytes -= len(gone.text)

    def newest(self, most: int = listed_max) -> list[dict[str, Any]]:
        """Outlines, the newest first."""
        with self._lock:
            return [each.outline for each in list(self._records.values())[: -most - 1 : -1]]

    def record(self, place: Place) -> bytes | None:
        """The whole of one, as JSON, with the outlines of the others of its key: the newest first, null where no key may be told."""
        with self._lock:
            found = self._records.get(place)
            if found is None:
                return None
            others = [
                each.outline
                for other, each in reversed(self._records.items())
                if each.key_id == found.key_id and other != place
            ]
        same_key = None if found.key_id is None else others[:same_key_max]
        return found.text[:-1] + b',"same_key":' + orjson.dumps(same_key) + b"}"

    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """By reason the newest records that were set aside for it, with their places and what was found wrong."""
        found: dict[str, list[dict[str, Any]]] = {}
        with self._lock:
            for each in reversed(self._records.values()):
                if each.detail is None:
                    continue
                some = found.setdefault(each.outline["reason"], [])
                if len(some) < examples_max:
                    place = {name: each.outline[name] for name in ("topic", "partition", "offset", "at_ms")}
                    some.append(
                        place | {"detail": each.detail, "said": as_told(each.detail), "stops": each.stops}
                    )
        return found

    def counts(self) -> tuple[int, int]:
        """How many records are held, and how many were sampled."""
        with self._lock:
            return len(self._records), self._seen_before + sum(self._seen.values())
