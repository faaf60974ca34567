"""The newest sampled records, bounded in number and in bytes: as text, so that wide records cost no more than they say."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import orjson

from penstock.engine.pages.documents.outlines import outline

records_kept: Final = 500
bytes_kept: Final = 16 << 20
listed_max: Final = 100

Place = tuple[str, int, int]


class RecordRing:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[Place, tuple[bytes, dict[str, Any]]] = OrderedDict()
        self._bytes = 0
        self._seen: dict[str, int] = {}
        self._seen_before = 0

    def add(self, slot: str, documents: Sequence[dict[str, Any]], *, seen: int) -> None:
        """What a worker sampled, the newest last; `seen`: how many it sampled since it started."""
        with self._lock:
            if seen < self._seen.get(slot, 0):
                self._seen_before += self._seen[slot]
            self._seen[slot] = seen
            for document in documents:
                whole = {**document, "slot": slot}
                place = (whole["topic"], whole["partition"], whole["offset"])
                if (old := self._records.pop(place, None)) is not None:
                    self._bytes -= len(old[0])
                text = orjson.dumps(whole)
                self._records[place] = (text, outline(whole))
                self._bytes += len(text)
            while len(self._records) > records_kept or self._bytes > bytes_kept:
                _, (text, _) = self._records.popitem(last=False)
                self._bytes -= len(text)

    def newest(self, most: int = listed_max) -> list[dict[str, Any]]:
        """Outlines, the newest first."""
        with self._lock:
            return [brief for _, brief in list(self._records.values())[: -most - 1 : -1]]

    def record(self, place: Place) -> bytes | None:
        """The whole of one, as JSON."""
        with self._lock:
            found = self._records.get(place)
            return None if found is None else found[0]

    def counts(self) -> tuple[int, int]:
        """How many records are held, and how many were sampled."""
        with self._lock:
            return len(self._records), self._seen_before + sum(self._seen.values())
