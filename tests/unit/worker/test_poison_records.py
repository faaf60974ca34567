"""Which record is set aside for killing its worker."""

import signal
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.pipeline.scorer import Outcome
from penstock.engine.worker.poison_records import InFlightLog, Isolation, Quarantine, Range, read_note
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records


def records(offsets: list[int], partition: int = 0) -> Records:
    n = len(offsets)
    return Records(
        topic="t",
        partitions=np.full(n, partition, np.int32),
        offsets=np.array(offsets, np.int64),
        timestamps_ms=np.zeros(n, np.int64),
        keys=[None] * n,
        values=[b""] * n,
    )


def outcome(n: int) -> Outcome:
    return Outcome(
        outgoing=(), predicted=n, explained=0, skipped=0, rejections=(), bad=np.zeros(n, np.bool_), stage_s={}
    )


class Death(BaseException):
    """Stands for the process dying here."""


def live_through(
    folder: Path, offsets: list[int], poison: set[int], *, by: int, lives: int
) -> tuple[int, list[int]]:
    """Start workers until one survives the batch; how many died, and what the survivor set aside."""
    quarantine = Quarantine(folder / "verdicts.json")
    for died in range(lives):
        isolation = Isolation(note=InFlightLog(folder / "note"), verdicts=folder / "verdicts.json")

        def score(batch: Records, isolation: Isolation = isolation) -> Outcome:
            condemned = set(isolation.condemned(batch))
            if any(int(o) in poison for place, o in enumerate(batch.offsets) if place not in condemned):
                raise Death
            return outcome(len(batch))

        try:
            isolation.guard(score)(records(offsets))
        except Death:
            quarantine.worker_died(read_note(folder / "note"), by_signal=by)
        else:
            return died, [offsets[place] for place in isolation.condemned(records(offsets))]
    raise AssertionError("no worker survived")


def test_a_fault_in_company_and_once_alone_condemns_exactly_that_record(tmp_path: Path) -> None:
    died, aside = live_through(tmp_path, list(range(40)), {17}, by=signal.SIGSEGV, lives=5)
    assert (died, aside) == (2, [17])


def test_two_killers_in_one_batch_are_both_found(tmp_path: Path) -> None:
    _, aside = live_through(tmp_path, list(range(40)), {3, 31}, by=signal.SIGSEGV, lives=8)
    assert aside == [3, 31]


def test_sigkill_needs_two_deaths_alone(tmp_path: Path) -> None:
    died, aside = live_through(tmp_path, list(range(8)), {5}, by=signal.SIGKILL, lives=6)
    assert (died, aside) == (3, [5])


def test_a_kill_from_outside_condemns_nobody(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "verdicts.json")
    for first in (0, 100, 0):
        assert quarantine.worker_died([Range(partition=0, first=first, next=first + 100)], by_signal=9) == []
    isolation = Isolation(note=InFlightLog(tmp_path / "note"), verdicts=tmp_path / "verdicts.json")
    assert isolation.condemned(records(list(range(200)))) == ()
    assert isolation.guard(lambda batch: outcome(len(batch)))(records([1, 2])).predicted == 2
    assert read_note(tmp_path / "note") == []


def test_records_that_wait_for_something_remote_are_in_nobodys_hand(tmp_path: Path) -> None:
    """A worker that idles with them noted would be ended as hung, and they would be suspects."""
    isolation = Isolation(note=InFlightLog(tmp_path / "note"), verdicts=tmp_path / "verdicts.json")

    def score(batch: Records) -> Outcome:
        raise UnavailableError("no schema")

    with pytest.raises(UnavailableError):
        isolation.guard(score)(records([1, 2]))
    assert read_note(tmp_path / "note") == []
