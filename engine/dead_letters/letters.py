"""The letters of a dead-letter topic: read, chosen, counted, one of them found."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from penstock.engine.dead_letters.message import DeadLetter, DeadLetterReader
from penstock.schemas.errors import RecordError

unreadable_named_max: Final = 10


class Stored(Protocol):
    """A message as it lies in a topic."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Log(Protocol):
    """A topic to read through, without a group."""

    def read(self) -> Iterator[Stored]:
        """Every committed message there is now, partition by partition, offsets ascending. Raises UnavailableError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A dead letter and where it lies."""

    partition: int
    offset: int
    key: bytes | None
    dead: DeadLetter


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterFilter:
    """Which letters are meant; what is empty or None does not narrow. Partition and offset are those of the source."""

    reasons: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    since_ms: int | None = None
    partition: int | None = None
    offset: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether it is one of them."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.stages or letter.stage in self.stages)
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.partition is None or letter.source.partition == self.partition)
            and (self.offset is None or letter.source.offset == self.offset)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A message in the topic that is not a dead letter: its place, and why it is refused."""

    partition: int
    offset: int
    why: str


@dataclass(kw_only=True)
class Summary:
    """What a look through the letters found."""

    letters: int = 0
    unreadable: int = 0  # messages in the topic that are no dead letters
    unreadable_first: list[Unreadable] = field(default_factory=list)  # the first few of them
    by_reason: Counter[tuple[str, str]] = field(default_factory=Counter)  # (stage, reason)
    by_partition: Counter[int] = field(default_factory=Counter)
    newest: dict[tuple[str, str], list[Letter]] = field(default_factory=dict)


def read_letters(
    log: Log, wanted: LetterFilter, unreadable: Callable[[Unreadable], None]
) -> Iterator[Letter]:
    """The letters meant, in log order; `unreadable` is called for each message that is no dead letter."""
    reader = DeadLetterReader()
    for stored in log.read():
        try:
            dead = reader.read(stored.value or b"")
        except RecordError as error:
            unreadable(Unreadable(partition=stored.partition, offset=stored.offset, why=error.detail))
            continue
        if wanted.matches(dead):
            yield Letter(partition=stored.partition, offset=stored.offset, key=stored.key, dead=dead)


def summarise(log: Log, wanted: LetterFilter, *, newest_max: int) -> Summary:
    """Counts, and the newest letters of each stage and reason."""
    summary = Summary()

    def unreadable(found: Unreadable) -> None:
        summary.unreadable += 1
        if len(summary.unreadable_first) < unreadable_named_max:
            summary.unreadable_first.append(found)

    for letter in read_letters(log, wanted, unreadable):
        kind = (letter.dead.stage, letter.dead.reason)
        summary.letters += 1
        summary.by_reason[kind] += 1
        summary.by_partition[letter.dead.source.partition] += 1
        newest = summary.newest.setdefault(kind, [])
        newest.append(letter)
        newest.sort(key=lambda each: each.dead.at_ms, reverse=True)
        del newest[newest_max:]
    return summary


def find_letter(log: Log, *, partition: int, offset: int) -> Letter | None:
    """The newest letter of the record that stood at this place of the input topic."""
    wanted = LetterFilter(partition=partition, offset=offset)
    letters = read_letters(log, wanted, lambda _: None)
    return max(letters, key=lambda letter: letter.dead.at_ms, default=None)
