"""Payloads to messages: under which key, with which headers, and whether their topic takes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.dead_letters.message import letter_key
from penstock.engine.native._avro import longest
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Headers, Outgoing, Records, Rejection

every_header: Final = "*"
letter_headers_bytes_max: Final = 8192
"""Carried headers of a letter; longer ones stay in its body, which has all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Topics:
    """Where the outcomes go."""

    predictions: str
    explanations: str | None
    dead_letters: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputLimits:
    """What the output topics take: bytes of value, key and headers of one message, and whether it must have a key."""

    predictions_bytes_max: int
    explanations_bytes_max: int
    dead_letters_bytes_max: int
    keyed: frozenset[str] = frozenset()
    """Topics, compacted ones, that refuse a message without a key."""

    @property
    def letter_bytes_max(self) -> int:
        """Value and key of a letter, beside the headers that it may carry."""
        return self.dead_letters_bytes_max - letter_headers_bytes_max


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMessages:
    """Makes messages of the payloads of one batch. Holds nothing between batches.

    Every message has its record's own key, and of its headers those that `headers` names.
    """

    topics: Topics
    limits: OutputLimits
    headers: frozenset[str]

    def carried(self, records: Records) -> Sequence[Headers] | None:
        """What each record hands on, (N,) in record order; None where no record has any of it, the usual case."""
        if not self.headers or not records.any_headers():
            return None
        every = every_header in self.headers
        found = [
            tuple(header for header in records.headers(index) if every or header[0] in self.headers)
            for index in range(len(records))
        ]
        return found if any(found) else None

    def unfit(
        self,
        records: Records,
        rows: NDArray[np.int64],
        predicted: list[bytes],
        explanations: Sequence[tuple[int, bytes]],
        headers: Sequence[Headers] | None,
    ) -> dict[int, Rejection]:
        """Places of `rows` of which a message would be refused by its topic, and why. `explanations` are by place."""
        found: dict[int, Rejection] = {}
        keys, limits, topics = records.keys, self.limits, self.topics
        beside = longest(keys)  # every message carries its record's key
        beside += max(map(_bytes, headers), default=0) if headers else 0

        def look(topic: str, bytes_max: int, payloads: Iterable[tuple[int, bytes]]) -> None:
            for place, payload in payloads:
                row = int(rows[place])
                length = len(payload) + len(keys[row] or b"") + (_bytes(headers[row]) if headers else 0)
                if length > bytes_max:
                    detail = (
                        f"a result, its key and its headers are longer than the {bytes_max} bytes of {topic}"
                    )
                    found[place] = _rejection(row, Reason.OUTPUT_TOO_LONG, detail)
                elif topic in limits.keyed and keys[row] is None:
                    detail = f"the record has no key, and topic {topic} is compacted"
                    found[place] = _rejection(row, Reason.NO_KEY, detail)

        without_key = bool(limits.keyed) and None in keys
        bytes_max = limits.predictions_bytes_max
        if without_key or longest(predicted) + beside > bytes_max:
            look(topics.predictions, bytes_max, enumerate(predicted))
        bytes_max = limits.explanations_bytes_max
        if topics.explanations and explanations:
            most = longest([payload for _, payload in explanations])
            if without_key or most + beside > bytes_max:
                look(topics.explanations, bytes_max, explanations)
        return found

    def results(
        self,
        topic: str,
        records: Records,
        rows: NDArray[np.int64],
        places: Sequence[int],
        payloads: Sequence[bytes],
        failed: set[int],
        headers: Sequence[Headers] | None,
    ) -> Outgoing:
        """Messages for the records `rows[places]`, less those at the failed places."""
        if failed:
            kept = [i for i, place in enumerate(places) if place not in failed]
            places, payloads = [places[i] for i in kept], [payloads[i] for i in kept]
        if places == range(len(records)):
            # Nothing was set aside: the usual case, without a copy per record.
            return Outgoing(
                topic=topic,
                keys=records.keys,
                values=list(payloads),
                partitions=records.partitions,
                headers=headers,
            )
        indices = rows[np.asarray(places, dtype=np.int64)]
        keys = records.keys
        return Outgoing(
            topic=topic,
            keys=[keys[i] for i in indices],
            values=list(payloads),
            partitions=records.partitions[indices],
            headers=None if headers is None else [headers[i] for i in indices],
        )

    def letters(
        self,
        records: Records,
        indices: NDArray[np.int64],
        payloads: Sequence[bytes],
        headers: Sequence[Headers] | None,
    ) -> Outgoing:
        """Letters for the records at these places."""
        places, bytes_max = indices.tolist(), self.limits.letter_bytes_max
        return Outgoing(
            topic=self.topics.dead_letters,
            keys=[letter_key(records.keys[place], bytes_max) for place in places],
            values=list(payloads),
            partitions=records.partitions[indices],
            headers=None if headers is None else [_short(headers[place]) for place in places],
        )


def _bytes(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") + 8 for name, value in headers)


def _short(headers: Headers) -> Headers:
    return headers if _bytes(headers) <= letter_headers_bytes_max else ()


def _rejection(index: int, reason: Reason, detail: str) -> Rejection:
    return Rejection(index=index, stage=Stage.ENCODE, reason=reason, detail=detail)
