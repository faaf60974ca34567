"""What the evidence means: causes, the deepest first, each with what shows it and what cures it. Asks nobody anything."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from penstock.engine.doctor.behind import behind
from penstock.engine.doctor.cures import cure_of_reason
from penstock.engine.doctor.evidence import Evidence, Fault, SeenWorker
from penstock.engine.doctor.told import with_told
from penstock.engine.doctor.wrong import Cause, Wrong, partitions_text
from penstock.engine.scaling.lag import Movement
from penstock.schemas.reasons import Reason

free_bytes_min: Final = 64 << 20
rejected_share_min: Final = 0.5
sample_min: Final = 5
letters_min: Final = 20
report_age_max_s: Final = 30.0
ahead_max_ms: Final = 300_000
behind_max_ms: Final = 3_600_000
sane_from_ms: Final = 946_684_800_000  # the year 2000
_too_long: Final = frozenset({Reason.OUTPUT_TOO_LONG, Reason.NO_KEY})


def causes(evidence: Evidence) -> list[Wrong]:
    """Every cause that the evidence shows, the deepest first."""
    order = {cause: place for place, cause in enumerate(Cause)}
    found = with_told([wrong for rule in _rules for wrong in rule(evidence)], evidence)
    return sorted(found, key=lambda wrong: order[wrong.cause])


def _checks(evidence: Evidence) -> Iterator[Wrong]:
    for fault in evidence.faults:
        cause, what, cure = _of_check(fault)
        yield Wrong(cause=cause, what=what, evidence=(fault.sentence,), cure=cure)


def _of_check(fault: Fault) -> tuple[Cause, str, str]:
    text = fault.sentence
    if fault.what in ("kafka", "delivery") and fault.passing:
        return (
            Cause.BROKER_AWAY,
            "Kafka does not answer",
            "start the brokers, or correct kafka.bootstrap_servers; workers wait and lose nothing",
        )
    if fault.what in ("kafka", "delivery") and "does not exist" in text:
        return (
            Cause.TOPIC_MISSING,
            "a topic is missing",
            "create it (penstock init --create-topics makes all of them), or correct its name in the settings",
        )
    if fault.what in ("kafka", "delivery") and "lacks the permission" in text:
        return (
            Cause.PERMISSION,
            "a permission is missing",
            "penstock acl prints the commands that grant what each role needs",
        )
    if fault.what in ("kafka", "delivery"):
        return (
            Cause.ACCESS,
            "the brokers do not let us in",
            "correct the setting that the sentence names; docs/operations.md has the table",
        )
    if fault.what == "outputs":
        return (
            Cause.OUTPUT_TOPIC,
            "an output topic does not take what is written to it",
            "change the topic's setting, which the sentence names",
        )
    if fault.what == "registry":
        return (
            Cause.REGISTRY,
            "the schema registry does not answer as it must",
            "bring it back; partitions that need a new schema wait, and nothing is lost"
            if fault.passing
            else "correct the section registry: url, username, password",
        )
    if fault.what == "records":
        return (
            Cause.REGISTRY,
            "the newest schema of the input lacks what the model needs",
            "bring the field back in a newer version of the schema, or serve a model that does without it",
        )
    return (
        Cause.MODEL,
        f"the model cannot be served ({fault.what})",
        "correct the section model, or roll back to a bundle that penstock check accepts",
    )


def _disk(evidence: Evidence) -> Iterator[Wrong]:
    for folder, free_bytes in evidence.free_bytes.items():
        if free_bytes < free_bytes_min:
            yield Wrong(
                cause=Cause.DISK_FULL,
                what="the disk of the temporary folder is full",
                evidence=(f"{folder} has {free_bytes >> 20} MiB left",),
                cure="make room, or set TMPDIR to a folder that has some: a worker keeps its copy of the model and its "
                "notes there",
            )


def _ranges(evidence: Evidence) -> Iterator[Wrong]:
    for movement, cause, what, cure in (
        (
            Movement.OUT_OF_RANGE,
            Cause.RANGE_LOST,
            "the next offset to read is not in the log",
            "penstock offsets show, then penstock offsets reset; longer retention, so that it does not come again",
        ),
        (
            Movement.UNREADABLE,
            Cause.UNREADABLE,
            "what is stored cannot be read",
            "restore the replica, or input.unreadable: set_aside",
        ),
    ):
        lost = [lag for lag in evidence.lags if lag.movement is movement]
        if lost and not (cause is Cause.RANGE_LOST and all("earlier topic" in lag.note for lag in lost)):
            yield Wrong(
                cause=cause,
                what=f"{what}: {partitions_text(lost)}",
                evidence=tuple(f"partition {lag.partition}: {lag.note}" for lag in lost[:5]),
                cure=cure,
            )


def _letters(evidence: Evidence) -> Iterator[Wrong]:
    standing = {
        lag.partition: lag
        for lag in evidence.lags
        if lag.movement in (Movement.STUCK, Movement.UNOWNED) and lag.lag_records
    }
    run_min = min(evidence.settings.dead_letters.run_max, 200)
    for lag in evidence.lags:
        letters = evidence.letters.get(lag.partition)
        if letters is None or lag.committed is None:
            continue
        reason, count = Counter(letters.reasons).most_common(1)[0]
        run = letters.run_before(lag.committed)
        shown = f"{reason}: {letters.newest.detail}"
        if lag.partition in standing and run >= run_min:
            first = lag.committed - run
            yield Wrong(
                cause=Cause.PARTITION_STOPPED,
                what=f"partition {lag.partition} is stopped: its records were refused, one after the other",
                evidence=(
                    f"{run}{' and more' if run == len(letters.offsets) else ''} records in a row up to offset "
                    f"{lag.committed - 1} are dead letters, the first of these offset {first}",
                    f"{lag.lag_records:,} offsets wait behind them, from offset {lag.committed} on",
                    f"{reason} {count} times; the newest: {shown}",
                ),
                cure=f"{cure_of_reason(reason)}; then start the workers again (dead_letters.run_max is the limit)",
            )
        elif (
            len(letters.offsets) >= letters_min and letters.share_before(lag.committed) >= rejected_share_min
        ):
            share = letters.share_before(lag.committed)
            refused = reason in _too_long
            yield Wrong(
                cause=Cause.RESULTS_REFUSED if refused else Cause.RECORDS_REJECTED,
                what=(
                    f"an output topic does not take results of partition {lag.partition}"
                    if refused
                    else f"most records of partition {lag.partition} are set aside: {reason}"
                ),
                evidence=(
                    f"{share:.0%} of the records from offset {letters.offsets[0]} to {lag.committed - 1} are dead letters",
                    f"{reason} {count} times; the newest: {shown}",
                ),
                cure=cure_of_reason(reason),
            )


def _sample(evidence: Evidence) -> Iterator[Wrong]:
    sample = evidence.sample
    if sample.records < sample_min or len(sample.rejections) < rejected_share_min * sample.records:
        return
    reasons = Counter(rejection.reason for rejection in sample.rejections)
    reason, count = reasons.most_common(1)[0]
    example = next(r for r in sample.rejections if r.reason == reason)
    yield Wrong(
        cause=Cause.RECORDS_REJECTED,
        what=f"the records do not fit the model: {reason}",
        evidence=(
            f"of the newest {sample.records} records of {evidence.settings.input.topic} {len(sample.rejections)} would be "
            f"set aside, {count} of them for {reason}",
            example.detail,
        ),
        cure=cure_of_reason(reason),
    )


def _transactions(evidence: Evidence) -> Iterator[Wrong]:
    earlier = {lag.partition: lag for lag in evidence.before}
    stuck = [
        lag
        for lag in evidence.lags
        if lag.open_offsets and lag.partition in earlier and earlier[lag.partition].end == lag.end
        and earlier[lag.partition].open_offsets
    ]  # fmt: skip
    if stuck:
        yield Wrong(
            cause=Cause.OPEN_TRANSACTION,
            what=f"a producer's transaction stays open on the input: {partitions_text(stuck)}",
            evidence=tuple(
                f"partition {lag.partition}: {lag.open_offsets:,} offsets from {lag.end} on cannot be read, and its end did "
                f"not move in {evidence.over_s:.0f} s"
                for lag in stuck[:5]
            ),
            cure="end that producer, or wait for its transaction.timeout.ms; kafka-transactions.sh find-hanging names it",
        )


def _workers(evidence: Evidence) -> Iterator[Wrong]:
    silent = [worker for worker in evidence.workers if not worker.answers]
    late = [
        worker
        for worker in evidence.workers
        if worker.report_age_s is not None
        and worker.report_age_s > report_age_max_s
        and worker.state == "running"
        and any(m.name == worker.name for m in evidence.members or ())
    ]
    if silent or late:
        yield Wrong(
            cause=Cause.WORKER_HUNG,
            what=f"a worker does not answer: {_names([*silent, *late])}",
            evidence=(
                *(f"worker {worker.name}: {worker.state}" for worker in silent),
                *(
                    f"worker {worker.name} is in the group, and its last report is {worker.report_age_s:.0f} s old"
                    for worker in late
                ),
            ),
            cure="look at its log; kill it (its supervisor starts another), and its partitions move on after the session",
        )
    members = evidence.members
    if members is None:
        return
    strangers = [member for member in members if not member.ours]
    if strangers:
        yield Wrong(
            cause=Cause.FOREIGN_MEMBER,
            what=f"somebody else is in group {evidence.settings.kafka.group}",
            evidence=tuple(
                f"{member.name} on {member.host} owns {member.partitions} partitions"
                for member in strangers[:5]
            ),
            cure="give it a group of its own: what it owns is not predicted",
        )
    waiting = [lag for lag in evidence.lags if lag.lag_records]
    if not any(member.ours for member in members) and waiting:
        yield Wrong(
            cause=Cause.NO_WORKER,
            what="no worker is in the group",
            evidence=(
                f"group {evidence.settings.kafka.group} has {len(members)} members, none of them a worker; "
                f"{sum(lag.lag_records for lag in waiting):,} offsets wait",
            ),
            cure="penstock run, or look why it ended: its last line and its exit code (docs/operations.md)",
        )


def _waits(evidence: Evidence) -> Iterator[Wrong]:
    for worker in evidence.workers:
        waits = [why for _, why in worker.waits]
        if waits:
            yield Wrong(
                cause=Cause.PARTITION_WAITS,
                what=f"worker {worker.name} waits",
                evidence=tuple(
                    f"{'the worker' if partition is None else f'partition {partition}'}: {why}"
                    for partition, why in worker.waits[:5]
                ),
                cure="mend what it waits for; it goes on by itself, unless it says that a partition is stopped",
            )


def _output_partitions(evidence: Evidence) -> Iterator[Wrong]:
    settings = evidence.settings
    wanted = evidence.partitions.get(settings.input.topic)
    others = [
        (topic, evidence.partitions[topic])
        for topic in (settings.output.predictions, settings.output.explanations)
        if topic and topic in evidence.partitions and evidence.partitions[topic] != wanted
    ]
    if wanted is not None and others:
        yield Wrong(
            cause=Cause.OUTPUT_PARTITIONS,
            what="an output topic has another number of partitions than the input",
            evidence=tuple(
                f"{topic} has {count} partitions, {settings.input.topic} has {wanted}: results go by their key"
                for topic, count in others
            ),
            cure="give both the same number, where results are to keep the partition number of their record",
        )


def _clocks(evidence: Evidence) -> Iterator[Wrong]:
    told = []
    for partition, stamps in sorted(evidence.sample.timestamps_ms.items()):
        known = [stamp for stamp in stamps if stamp >= 0]
        ahead_ms = max(known, default=0) - evidence.now_ms
        back_ms = max((a - b for a, b in itertools.pairwise(known)), default=0)
        if ahead_ms > ahead_max_ms:
            told.append(f"partition {partition}: a record is {ahead_ms / 1000:,.0f} s ahead of this machine")
        elif known and min(known) < sane_from_ms:
            told.append(f"partition {partition}: a record says it is from before the year 2000")
        elif back_ms > behind_max_ms:
            told.append(
                f"partition {partition}: a record is {back_ms / 1000:,.0f} s older than the one before it"
            )
    if told:
        yield Wrong(
            cause=Cause.CLOCK,
            what="the clock of a producer is far off",
            evidence=tuple(told[:5]),
            cure="set that producer's clock, or message.timestamp.type=LogAppendTime on the topic: ages and the scaler "
            "go by these times",
        )


def _names(workers: Sequence[SeenWorker]) -> str:
    return ", ".join(worker.name for worker in workers[:5])


_rules: Final[tuple[Callable[[Evidence], Iterator[Wrong]], ...]] = (
    _checks, _disk, _ranges, _letters, _sample, _transactions, _workers, _waits, behind, _output_partitions, _clocks,
)  # fmt: skip
