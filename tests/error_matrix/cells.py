"""The cells of the protocol error matrix: every place in an answer that can hold an error code, with every code."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from confluent_kafka import KafkaError

from tests.wire.proxy import Action, Exchange, Refuse, Say

Kind = Literal["exactly_once", "at_least_once", "consumer_protocol"]
Way = Literal["refused", "top", "inner"]

newest_code: Final = 133
"""Of Apache Kafka 4.1."""
duplicate_code: Final = 46
later_code: Final = 9999
codes: Final = (-1, *range(1, newest_code + 1), later_code)
"""Every code of the protocol, and one that a later version may bring."""


def _coordinates_groups(exchange: Exchange) -> bool:
    return bool(exchange.request().get("KeyType", 0) == 0)


def _coordinates_transactions(exchange: Exchange) -> bool:
    return bool(exchange.request().get("KeyType", 0) == 1)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where a code is said. `refused`: by a broker that did nothing; `top` and `inner`: by one that did what it was asked,
    at the top of its answer or of each topic, partition or group in it."""

    api: str
    way: Way
    kind: Kind = "exactly_once"
    note: str = ""
    about: Callable[[Exchange], bool] = lambda _: True
    fresh_group: bool = False
    """The API is only asked by a group without commits."""
    at_the_end: bool = False
    """The API is only asked by a worker that leaves."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.api, self.note, self.way, self.kind.replace("_", " "))))

    def action(self, code: int) -> Action:
        return Refuse(code=code) if self.way == "refused" else Say(code=code, level=self.way)


spots: Final = (
    Spot(api="Produce", way="refused"),
    Spot(api="Produce", way="inner"),
    Spot(api="Fetch", way="top"),
    Spot(api="Fetch", way="inner"),
    Spot(api="ListOffsets", way="inner", fresh_group=True),
    Spot(api="Metadata", way="top"),
    Spot(api="Metadata", way="inner"),
    Spot(api="OffsetFetch", way="top"),
    Spot(api="OffsetFetch", way="inner"),
    Spot(api="FindCoordinator", way="top", note="of the group", about=_coordinates_groups),
    Spot(api="FindCoordinator", way="top", note="of the transaction", about=_coordinates_transactions),
    Spot(api="JoinGroup", way="refused"),
    Spot(api="SyncGroup", way="refused"),
    Spot(api="Heartbeat", way="refused"),
    Spot(api="LeaveGroup", way="refused", at_the_end=True),
    Spot(api="InitProducerId", way="refused"),
    Spot(api="InitProducerId", way="top"),
    Spot(api="AddPartitionsToTxn", way="refused"),
    Spot(api="AddPartitionsToTxn", way="inner"),
    Spot(api="AddOffsetsToTxn", way="refused"),
    Spot(api="AddOffsetsToTxn", way="top"),
    Spot(api="TxnOffsetCommit", way="refused"),
    Spot(api="TxnOffsetCommit", way="inner"),
    Spot(api="EndTxn", way="refused"),
    Spot(api="EndTxn", way="top"),
    Spot(api="Produce", way="refused", kind="at_least_once"),
    Spot(api="OffsetCommit", way="refused", kind="at_least_once"),
    Spot(api="OffsetCommit", way="inner", kind="at_least_once"),
    Spot(api="ConsumerGroupHeartbeat", way="refused", kind="consumer_protocol"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One code in one place, once."""

    spot: Spot
    code: int

    def __str__(self) -> str:
        return f"{self.spot.name}: {code_name(self.code)}"


def code_name(code: int) -> str:
    """As Kafka writes it."""
    return str(KafkaError(code).name()) if code != later_code else "of a later version"


def is_possible(cell: Cell) -> bool:
    """Not a batch that is refused as stored before, when it was not: every client goes by that word. Said of one that is
    stored, it is a cell."""
    return (cell.spot.api, cell.spot.way, cell.code) != ("Produce", "refused", duplicate_code)


def every_cell() -> list[Cell]:
    """The whole matrix."""
    return [cell for spot in spots for code in codes if is_possible(cell := Cell(spot=spot, code=code))]


def sample(per_spot: int, seed: int, always: Sequence[tuple[str, int]] = ()) -> list[Cell]:
    """So many codes in each place, by chance, and `always` these (the place's name, the code)."""
    chance = random.Random(seed)
    chosen = {(spot.name, code) for spot in spots for code in chance.sample(codes, per_spot)}
    chosen |= set(always)
    return [cell for cell in every_cell() if (cell.spot.name, cell.code) in chosen]
