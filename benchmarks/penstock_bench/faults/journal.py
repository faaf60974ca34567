"""What a broker saw, in its order: all that the checker knows of a run."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Mode = Literal["exactly_once", "at_least_once"]
Start = Literal["earliest", "latest"]
Place = tuple[str, int, int]
"""The id of an input topic, a partition of it, an offset."""


class Kind(StrEnum):
    """What an input record is made to be."""

    GOOD = "good"
    CUT_OFF = "cut off"  # bytes that end too soon
    LACKING = "lacking"  # a field is missing that the model cannot do without
    EMPTY = "empty"  # no value at all
    THROWS = "throws"  # the model throws
    NAN = "nan"  # the model answers NaN
    DARK = "dark"  # the explainer throws


@dataclass(frozen=True, slots=True)
class Written:
    """A record came to stand in the input."""

    place: Place
    key: bytes | None
    kind: Kind
    number: int
    weight: int
    visible: bool  # False: inside a transaction that is still open


@dataclass(frozen=True, slots=True)
class Resolved:
    """A foreign producer's transaction on the input ended: these records can be read now, or never."""

    places: tuple[Place, ...]
    committed: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """A message came to stand in an output topic."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    transaction: int | None
    at: int  # place in the logs of all outputs, taken together
    at_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's transaction ended; offsets that went with it count when it was committed."""

    transaction: int
    committed: bool
    offsets: tuple[tuple[int, int], ...]
    topic_id: str | None


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """The group's offsets were set without a transaction."""

    offsets: tuple[tuple[int, int], ...]
    topic_id: str | None


@dataclass(frozen=True, slots=True)
class OffsetsReset:
    """A person set the group's offset of a partition, after a worker had said why."""

    topic_id: str
    partition: int
    offset: int
    said: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """Retention took what stands before this offset."""

    topic_id: str
    partition: int
    before: int


@dataclass(frozen=True, slots=True)
class Spoilt:
    """The bytes at this offset cannot be read by anybody from now on."""

    place: Place


@dataclass(frozen=True, slots=True)
class MadeAnew:
    """The input topic was deleted and made anew, with this id and so many partitions."""

    topic_id: str
    partitions: int
    at_s: float


Entry = (
    Written | Resolved | Sent | Ended | OffsetsCommitted | OffsetsReset | Deleted | Spoilt | MadeAnew
)  # fmt: skip


@dataclass(slots=True)
class Journal:
    """Entries in the order in which the broker saw them, and what the run was."""

    mode: Mode
    output_format: Literal["avro", "json"]
    start: Start
    topic_id: str  # of the input, at the beginning
    entries: list[Entry] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # warnings and errors of the workers, for a person
    calm: bool = True  # nothing happened after which a record may come twice at least once
    whole: bool = True  # no message was given up by its sender, to be sent again behind later ones
