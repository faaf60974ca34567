"""Dead letters in memory: a topic of them, where they go back to, and what was noted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.dead_letters.message import DeadLetterEncoder, ModelIdentity
from penstock.engine.dead_letters.replay import Message, replayed_header
from penstock.schemas.errors import UnavailableError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

topic = "departures"


@dataclass(frozen=True)
class Stored:
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass
class Log:
    """A topic in memory, with holes between offsets as markers and retention leave them."""

    messages: list[Stored] = field(default_factory=list)

    def read(self) -> Iterator[Stored]:
        yield from sorted(self.messages, key=lambda stored: (stored.partition, stored.offset))

    def partitions(self) -> range:
        return range(8)

    def one(self, partition: int, offset: int) -> Stored | None:
        return next((m for m in self.messages if (m.partition, m.offset) == (partition, offset)), None)


@dataclass
class Returns:
    """Where replays go; fails at the `fails_at`-th put, without any of it."""

    put_back: list[Message] = field(default_factory=list)
    committed: dict[int, tuple[int, str]] = field(default_factory=dict)
    fails_at: int | None = None
    claims: int = 0

    def claim(self) -> None:
        self.claims += 1

    def notes(self) -> Mapping[int, tuple[int, str]]:
        return self.committed

    def put(self, messages: Sequence[Message], notes: Mapping[int, tuple[int, str]]) -> Sequence[int]:
        if self.fails_at is not None:
            self.fails_at -= 1
            if self.fails_at < 0:
                raise UnavailableError("the broker is gone")
        self.put_back += messages
        self.committed.update(notes)
        return ()


def letter(
    place: int,
    *,
    reason: Reason = Reason.CORRUPT,
    value: bytes | None = b"payload",
    of: str = topic,
    message_bytes_max: int = 100_000,
    source_partition: int = 0,
) -> bytes:
    one = Records(
        topic=of,
        partitions=np.array([source_partition], dtype=np.int32),
        offsets=np.array([place], dtype=np.int64),
        timestamps_ms=np.array([5], dtype=np.int64),
        keys=[b"k"],
        values=[value],
        headers=lambda _: [("trace", b"1"), ("empty", None)],
    )
    rejection = Rejection(index=0, stage=Stage.DECODE, reason=reason, detail="as the test wants it")
    return encoder(message_bytes_max)(one, [rejection], at_ms=1000 + place)[0]


@cache
def encoder(message_bytes_max: int) -> DeadLetterEncoder:
    return DeadLetterEncoder(
        prefix=single_object_prefix(contract("dead_letter")),
        cluster="c",
        model=ModelIdentity(name="m", version="1", digest="d"),
        worker="w",
        message_bytes_max=message_bytes_max,
    )


def sources(returns: Returns) -> list[int]:
    return [
        int((dict(message.headers)[replayed_header] or b"").rpartition(b"/")[2])
        for message in returns.put_back
    ]
