"""What was seen of a pipeline at one moment, each source by itself; what could not be seen is named, not taken for well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.engine.dead_letters.message import DeadLetter
from penstock.engine.scaling.lag import PartitionLag
from penstock.engine.settings.model import Settings
from penstock.engine.watch.told_hints import ToldHints
from penstock.schemas.records import Rejection


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A check of `penstock check` that did not hold."""

    what: str
    sentence: str
    passing: bool  # waiting may help: somebody did not answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A client in the consumer group."""

    name: str
    host: str
    partitions: int
    ours: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenWorker:
    """What a worker says of itself, on its port or on the status topic."""

    name: str
    state: str
    answers: bool = True
    busy_ratio: float = 0.0
    explain_share: float | None = (
        None  # of the time that its stages took; None where its metrics cannot be had
    )
    waits: tuple[tuple[int | None, str], ...] = ()  # partition (None: all of it), and for what
    report_age_s: float | None = None  # of a report on the status topic; None when it was asked directly


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenLetters:
    """The newest dead letters of one partition of the input, ascending by the record's offset."""

    offsets: tuple[int, ...]
    newest: DeadLetter
    reasons: Mapping[str, int]

    def run_before(self, committed: int) -> int:
        """How many records in a row, up to the committed offset, were set aside."""
        run, expected = 0, committed - 1
        for offset in reversed(self.offsets):
            if offset > expected:
                continue
            if offset != expected:
                break
            run, expected = run + 1, expected - 1
        return run

    def share_before(self, committed: int) -> float:
        """Which share was set aside of the records from the first of these to the committed offset."""
        span = committed - self.offsets[0]
        return len([offset for offset in self.offsets if offset < committed]) / span if span > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The newest records of the input, read and thrown away: how many, and which of them a worker would set aside."""

    records: int = 0
    rejections: tuple[Rejection, ...] = ()
    timestamps_ms: Mapping[int, Sequence[int]] = field(default_factory=dict)  # by partition, in log order


@dataclass(kw_only=True, slots=True)
class Evidence:
    """All of it. What is None or empty was not seen, and why not stands in `unseen`."""

    settings: Settings
    now_ms: int
    seen: list[tuple[str, str]] = field(default_factory=list)
    """What was looked at, and what was found."""
    unseen: list[tuple[str, str]] = field(default_factory=list)
    """What could not be looked at, and why not."""
    faults: list[Fault] = field(default_factory=list)
    partitions: Mapping[str, int] = field(default_factory=dict)  # by topic
    before: Sequence[PartitionLag] = ()
    lags: Sequence[PartitionLag] = ()  # a few seconds later, compared
    over_s: float = 0.0
    members: Sequence[Member] | None = None
    workers: Sequence[SeenWorker] = ()
    hints: Sequence[ToldHints] = ()  # of each supervisor that was asked
    letters: Mapping[int, SeenLetters] = field(default_factory=dict)  # by partition of the input
    sample: Sample = field(default_factory=Sample)
    free_bytes: Mapping[str, int] = field(default_factory=dict)  # by folder that a worker writes to
