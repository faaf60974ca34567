"""What evidence means, and how it is told: nothing of it well is nothing wrong, and the deepest cause comes first."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from penstock.engine.cli.commands.doctor import as_json, as_lines, columns
from penstock.engine.console.terminal import json_text
from penstock.engine.dead_letters.message import DeadLetter, ModelIdentity, Source
from penstock.engine.doctor.causes import causes
from penstock.engine.doctor.cures import cure_of_reason
from penstock.engine.doctor.evidence import Evidence, Fault, Member, Sample, SeenLetters, SeenWorker
from penstock.engine.doctor.wrong import Cause, Wrong
from penstock.engine.hints.causes import Cause as Hinted
from penstock.engine.scaling.lag import Movement, PartitionLag
from penstock.engine.settings.model import Settings, parse_settings
from penstock.engine.watch.told_hints import ToldCause, ToldHints
from penstock.schemas.reasons import Reason

root = Path(__file__).parents[3]
now_ms = 1_700_000_000_000
ours = Member(name="g-here-0", host="10.0.0.1", partitions=2, ours=True)


def settings() -> Settings:
    tree = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "models/m"},
    }
    return parse_settings(tree, origin="penstock.yaml", folder=Path("/etc"))


def lag(partition: int, records: int, movement: Movement, *, committed: int = 100) -> PartitionLag:
    return PartitionLag(
        partition=partition, committed=committed, end=committed + records, lag_records=records,
        lag_seconds=float(records), owner="g-here-0@10.0.0.1", movement=movement,
    )  # fmt: skip


def healthy() -> Evidence:
    lags = [lag(0, 0, Movement.CAUGHT_UP), lag(1, 5, Movement.MOVING)]
    return Evidence(
        settings=settings(), now_ms=now_ms, seen=[("kafka", "cluster c")], before=lags, lags=lags, over_s=3.0,
        partitions={"in": 2, "out": 2, "dead": 1}, members=[ours],
        workers=[SeenWorker(name="g-here-0", state="running", busy_ratio=0.97, explain_share=0.9)],
        sample=Sample(records=10, timestamps_ms={0: [now_ms - 10, now_ms - 5]}), free_bytes={"/tmp": 1 << 30},
    )  # fmt: skip


def letters(*offsets: int) -> SeenLetters:
    newest = DeadLetter(
        source=Source(cluster="c", topic="in", partition=0, offset=offsets[-1], timestamp_ms=0), stage="decode",
        reason="corrupt", detail="bytes", payload=b"x", headers=(), model=ModelIdentity(name="m", version="1", digest="d"),
        worker="w", at_ms=1,
    )  # fmt: skip
    return SeenLetters(offsets=offsets, newest=newest, reasons={"corrupt": len(offsets)})


def test_of_what_is_well_nothing_is_named() -> None:
    """A busy worker that keeps up is one, and so are a few old dead letters."""
    evidence = healthy()
    assert causes(evidence) == []
    evidence.letters = {0: letters(3, 4, 5), 1: letters(99)}
    assert causes(evidence) == []


def test_what_was_not_seen_is_not_wrong_and_not_well() -> None:
    evidence = Evidence(settings=settings(), now_ms=now_ms)
    evidence.unseen.append(("lag", "no permission"))
    assert causes(evidence) == []
    assert any("Not seen: lag: no permission" in line.plain for line in as_lines([], evidence))
    assert as_json([], evidence)["not_seen"] == [{"what": "lag", "why": "no permission"}]


def test_the_deepest_cause_comes_first() -> None:
    evidence = healthy()
    evidence.members = []
    evidence.workers = ()
    evidence.lags = [lag(0, 5000, Movement.UNOWNED)]
    evidence.faults = [
        Fault(what="registry", sentence="HTTP 500", passing=True),
        Fault(what="kafka", sentence="topic in does not exist", passing=False),
    ]
    assert [wrong.cause for wrong in causes(evidence)] == [
        Cause.TOPIC_MISSING,
        Cause.REGISTRY,
        Cause.NO_WORKER,
    ]


def told_hints(*causes: str, breach_s: tuple[float, float] | None = None) -> ToldHints:
    return ToldHints(
        forecast="Soon.", breach_s=breach_s, ruled_out=("The model takes as long as before.",),
        causes=tuple(ToldCause(cause=each, text="What it is", evidence="what shows it", command="c") for each in causes),
    )  # fmt: skip


def test_what_the_engine_says_of_its_future_stands_beside_what_was_seen() -> None:
    evidence = healthy()
    evidence.hints = [told_hints()]
    assert causes(evidence) == []
    evidence.hints = [told_hints("slow_worker", "of a later version", breach_s=(60.0, 90.0))]
    (wrong,) = causes(evidence)
    assert (wrong.cause, wrong.what) == (Cause.SLOW_WORKER, "what it is")
    assert wrong.evidence == ("the engine says: what shows it", "Soon.")
    evidence.hints = [told_hints(breach_s=(60.0, 90.0))]
    (wrong,) = causes(evidence)
    assert wrong.cause is Cause.TOO_OLD
    assert "The model takes as long as before." in wrong.evidence


def test_a_cause_that_the_engine_names_as_well_is_told_once() -> None:
    evidence = healthy()
    evidence.faults = [Fault(what="registry", sentence="HTTP 500", passing=True)]
    evidence.hints = [told_hints("registry")]
    (wrong,) = causes(evidence)
    assert wrong.cause is Cause.REGISTRY
    assert wrong.evidence == ("HTTP 500", "the engine says: what shows it")


def test_every_cause_of_the_engine_has_its_cure() -> None:
    for hinted in Hinted:
        evidence = healthy()
        evidence.hints = [told_hints(str(hinted))]
        (wrong,) = causes(evidence)
        assert wrong.cure


def test_a_stopped_partition_is_named_with_its_first_offset() -> None:
    evidence = healthy()
    evidence.lags = [lag(0, 50, Movement.STUCK, committed=300)]
    evidence.letters = {0: letters(3, *range(90, 300))}
    (wrong,) = [each for each in causes(evidence) if each.cause is Cause.PARTITION_STOPPED]
    assert "the first of these offset 90" in wrong.evidence[0]
    assert "from offset 300 on" in wrong.evidence[1]


@given(
    offsets=st.sets(st.integers(0, 40), min_size=1).map(sorted),
    committed=st.integers(0, 45),
)
def test_runs_and_shares_are_those_counted_one_by_one(offsets: list[int], committed: int) -> None:
    seen = letters(*offsets)
    run = 0
    while committed - 1 - run in offsets:
        run += 1
    assert seen.run_before(committed) == run
    span = range(offsets[0], committed)
    share = sum(offset in offsets for offset in span) / len(span) if span else 0.0
    assert seen.share_before(committed) == pytest.approx(share)


def test_every_cause_has_its_row_in_the_docs_and_every_reason_its_cure() -> None:
    page = (root / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert [cause for cause in Cause if f"`{cause}`" not in page] == []
    assert [reason for reason in Reason if "prints one of them whole" in cure_of_reason(reason)] == []
    assert cure_of_reason("of a later version")


@given(texts=st.lists(st.text(max_size=200), min_size=3, max_size=3))
def test_no_line_is_longer_than_80_and_none_moves_a_terminal(texts: list[str]) -> None:
    what, seen, cure = texts
    wrong = Wrong(cause=Cause.MODEL, what=what, evidence=(seen,), cure=cure)
    evidence = healthy()
    evidence.unseen.append((what, seen))
    lines: list[Text] = as_lines([wrong], evidence)
    assert all(len(line) <= columns and line.plain.isprintable() for line in lines)
    assert "\x1b" not in json_text(as_json([wrong], evidence))
