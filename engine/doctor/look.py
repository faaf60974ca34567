"""Looks at a pipeline from outside: what `check`, `lag` and `dlq` see, the workers' own words, the newest records, the disk."""

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import load_schema
from penstock.engine.codec.decode import make_decoder
from penstock.engine.dead_letters.message import DeadLetter, DeadLetterReader
from penstock.engine.doctor.evidence import Evidence, Fault, Member, Sample, SeenLetters, SeenWorker
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.scaling.lag import PartitionLag, compare, measure
from penstock.engine.scaling.report_message import Report, decode_status
from penstock.engine.settings.model import Settings
from penstock.engine.settings.worker_names import is_worker
from penstock.engine.watch.look import engine_address
from penstock.engine.watch.told_hints import ask_hints
from penstock.engine.worker.preflight import Findings, Preflight
from penstock.schemas.errors import PenstockError, RecordError, UnavailableError
from penstock.schemas.records import Records

T = TypeVar("T")

letter_offsets_max: Final = 400
"""The newest offsets of each partition of the dead-letter topic that are read; transaction markers are among them."""
sample_offsets_max: Final = 30
report_offsets_max: Final = 1000
reach_s: Final = 3.0
answer_timeout_s: Final = 5.0
answer_bytes_max: Final = 16 << 20


def look(
    settings: Settings,
    *,
    clock: Clock,
    urls: Sequence[str],
    over_s: float,
    free_bytes: Callable[[str], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Evidence:
    """Everything that can be seen now; takes at least `over_s`, for what moves is told from what stands still.

    `urls`: where workers or their supervisors are asked. Raises nothing for what cannot be seen: that stands in `unseen`.
    """
    return _Look(settings, clock=clock).everything(urls, over_s, free_bytes)


def own_url(settings: Settings) -> str | None:
    """Where a supervisor with these settings answers on this machine; None where it chose a port by itself."""
    http_at = settings.http
    if not http_at.port:
        return None
    host = "127.0.0.1" if http_at.host in ("0.0.0.0", "::", "") else http_at.host
    return f"http://{host}:{http_at.port}"


class _Look:
    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._evidence = Evidence(settings=settings, now_ms=clock.wall_ms())

    def everything(self, urls: Sequence[str], over_s: float, free_bytes: Callable[[str], int]) -> Evidence:
        evidence, settings, clock = self._evidence, self._settings, self._clock
        folder = tempfile.gettempdir()
        evidence.free_bytes = {folder: self._ask("disk", lambda: free_bytes(folder)) or 0}
        findings = Findings()
        preflight = Preflight(settings, clock, findings)
        findings.look("kafka", self._reach)
        if not findings.faults:
            findings.good.clear()  # the whole check says it again
            preflight.kafka()
        reachable = not any(what == "kafka" and not _of_objects(text) for what, text in findings.faults)
        began_s = clock.monotonic_s()
        if reachable:
            evidence.partitions = self._ask("topics", self._partitions) or {}
            evidence.before = self._ask("lag", self._lags) or ()
            evidence.members = self._ask("group", self._members)
            evidence.letters = self._ask("dead letters", self._letters) or {}
        preflight.registry()
        preflight.model()
        self._take(findings)
        if reachable:
            if (bundle := findings.bundle) is not None:
                evidence.sample = self._ask("newest records", lambda: self._sample(bundle)) or Sample()
            if settings.output.status is not None:
                evidence.workers = self._ask("status topic", self._reports) or ()
        self._ask_workers(urls)
        if evidence.before:
            clock.sleep(max(began_s + over_s - clock.monotonic_s(), 0.0))
            evidence.over_s = clock.monotonic_s() - began_s
            evidence.lags = compare(evidence.before, self._ask("lag", self._lags) or evidence.before)
        if not reachable:
            evidence.unseen.append(("topics, lag, group, dead letters", "Kafka could not be asked"))
        return evidence

    def _ask(self, what: str, question: Callable[[], T]) -> T | None:
        """The answer, or None and why not among what was not seen."""
        try:
            return question()
        except (PenstockError, OSError) as error:
            self._evidence.unseen.append((what, str(error)))
            return None

    def _take(self, findings: Findings) -> None:
        self._evidence.seen += findings.good
        for what, sentence in findings.faults:
            passing = isinstance(findings.errors.get(what), UnavailableError)
            self._evidence.faults.append(Fault(what=what, sentence=sentence, passing=passing))

    def _reach(self) -> str:
        """Soon: whoever asks what is wrong should not wait for each check in turn."""
        from penstock.connectors.kafka.admin.admin import KafkaAdmin  # late: --help needs no Kafka client
        from penstock.engine.worker.kafka import client_config

        return KafkaAdmin(client_config(self._settings.kafka), timeout_s=reach_s).cluster_id()

    def _partitions(self) -> dict[str, int]:
        from penstock.connectors.kafka.admin.admin import KafkaAdmin
        from penstock.engine.worker.kafka import client_config
        from penstock.engine.worker.startup.kafka_facts import topics_of

        counts = KafkaAdmin(client_config(self._settings.kafka)).partition_counts(topics_of(self._settings))
        return {topic: count for topic, count in counts.items() if count is not None}

    def _require(self, role: str) -> None:
        """Named at once, where the client would wait, and say only what has run out. Raises ConfigError."""
        from penstock.connectors.kafka.admin.permissions import require_permissions
        from penstock.engine.worker.kafka import client_config
        from penstock.engine.worker.permissions import permissions

        kafka = self._settings.kafka
        require_permissions(client_config(kafka), permissions(self._settings)[role])

    def _lags(self) -> list[PartitionLag]:
        from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
        from penstock.engine.worker.kafka import client_config

        kafka = self._settings.kafka
        self._require("lag")
        with closing(KafkaOffsets(client_config(kafka), kafka.group)) as offsets:
            readings = offsets.read(self._settings.input.topic)
        return measure(readings, now_ms=self._clock.wall_ms(), start=kafka.start)

    def _members(self) -> list[Member]:
        from penstock.connectors.kafka.admin.group_members import describe_group
        from penstock.engine.worker.kafka import client_config

        kafka = self._settings.kafka
        return [
            Member(
                name=member.client_id,
                host=member.address,
                partitions=sum(map(len, member.assigned.values())),
                ours=is_worker(member.client_id, kafka),
            )
            for member in describe_group(client_config(kafka), kafka.group).members
        ]

    def _newest(self, topic: str, offsets_max: int) -> list[Any]:
        from penstock.connectors.kafka.dead_letters import KafkaLog
        from penstock.engine.worker.kafka import client_config

        kafka = self._settings.kafka
        with closing(KafkaLog(client_config(kafka), topic=topic, group=f"{kafka.group}-replay")) as log:
            return list(log.newest(offsets_max))

    def _letters(self) -> dict[int, SeenLetters]:
        self._require("letters")
        reader, found = DeadLetterReader(), dict[int, dict[int, DeadLetter]]()
        for stored in self._newest(self._settings.output.dead_letters, letter_offsets_max):
            try:
                letter = reader.read(stored.value or b"")
            except RecordError:
                continue  # penstock dlq list names it
            if letter.source.topic == self._settings.input.topic:
                found.setdefault(letter.source.partition, {})[letter.source.offset] = letter
        return {
            partition: SeenLetters(
                offsets=tuple(sorted(letters)),
                newest=letters[max(letters)],
                reasons=Counter(letter.reason for letter in letters.values()),
            )
            for partition, letters in found.items()
        }

    def _sample(self, bundle: Bundle) -> Sample:
        """The newest records through a worker's own decoder."""
        settings = self._settings
        stored = self._newest(settings.input.topic, sample_offsets_max)
        stamps: dict[int, list[int]] = {}
        for each in stored:
            stamps.setdefault(each.partition, []).append(each.timestamp_ms)
        if not stored:
            return Sample()
        records = Records(
            topic=settings.input.topic,
            partitions=np.array([each.partition for each in stored], dtype=np.int32),
            offsets=np.array([each.offset for each in stored], dtype=np.int64),
            timestamps_ms=np.array([each.timestamp_ms for each in stored], dtype=np.int64),
            keys=[each.key for each in stored],
            values=[each.value for each in stored],
            headers=lambda place: stored[place].headers,
        )
        sample = Sample(timestamps_ms=stamps)
        try:
            rejections = self._decoded(bundle, records)
        except PenstockError as error:  # the times are known all the same
            self._evidence.unseen.append(("the newest records", str(error)))
            return sample
        return replace(sample, records=len(stored), rejections=tuple(rejections))

    def _decoded(self, bundle: Bundle, records: Records) -> Iterable[Any]:
        settings, registry = self._settings, None
        if settings.registry is not None:
            from penstock.connectors.registry.client import Registry
            from penstock.engine.worker.kafka import registry_config

            registry = Registry(
                registry_config(settings.registry),
                monotonic_s=self._clock.monotonic_s,
                sleep=self._clock.sleep,
            )
        path = settings.input.record_schema
        try:
            decoder = make_decoder(
                settings=settings,
                signature=bundle.signature,
                reader_schema=load_schema(path) if path else bundle.input_schema,
                schemas=registry,
                record_bytes_max=settings.input.record_bytes_max,
            )
            return decoder.decode(records).rejections
        finally:
            if registry is not None:
                registry.close()

    def _reports(self) -> list[SeenWorker]:
        """The newest word of each worker of this group on the status topic."""
        self._require("scaler")
        newest: dict[str, Report] = {}
        for stored in self._newest(self._settings.output.status or "", report_offsets_max):
            if stored.value is None:  # it has left
                newest.pop((stored.key or b"").decode(errors="replace"), None)
                continue
            try:
                report = decode_status(stored.value)
            except RecordError:
                continue
            if report.group == self._settings.kafka.group:
                known = newest.get(report.worker)
                newest[report.worker] = report if known is None or report.at_ms >= known.at_ms else known
        now_ms = self._clock.wall_ms()
        return [
            SeenWorker(
                name=report.worker,
                state=report.state,
                busy_ratio=report.busy_ratio,
                report_age_s=max(now_ms - report.at_ms, 0) / 1000,
            )
            for report in newest.values()
        ]

    def _ask_workers(self, urls: Sequence[str]) -> None:
        """What they say on their ports stands before what they reported."""
        asked: dict[str, SeenWorker] = {}
        for url in urls:
            found = self._ask(f"workers at {url}", lambda url=url: workers_at(url))  # type: ignore[misc]
            asked |= {worker.name: worker for worker in found or ()}
            if found is not None:
                self._ask_hints(url)
        reported = {worker.name: worker for worker in self._evidence.workers}
        self._evidence.workers = tuple((reported | asked).values())
        if not urls and not reported:
            self._evidence.unseen.append(
                (
                    "workers",
                    "no address: give --workers URL, or an http.port and a status topic in the settings",
                )
            )

    def _ask_hints(self, url: str) -> None:
        told = self._ask(f"forecast of {url}", lambda: ask_hints(url))
        if told is not None:
            self._evidence.hints = (*self._evidence.hints, told)
            self._evidence.seen.append(("forecast", told.forecast))


def workers_at(url: str) -> list[SeenWorker]:
    """What the workers behind this address say of themselves. Raises ConfigError for what is no address, UnavailableError."""
    engine_address(url)
    tree, exposition, live = _json(url, "/status"), _text(url, "/metrics"), _json(url, "/live")
    try:
        return _seen_workers(tree, _explain_shares(exposition), live)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UnavailableError(f"{url} does not answer as a worker does") from error


def _seen_workers(tree: Any, shares: Mapping[str, float], live: Any) -> list[SeenWorker]:
    """Raises ValueError, KeyError, TypeError, AttributeError or OverflowError for what no worker says."""
    known = tree.get("workers", {"0": tree})
    faults = live.get("faults", {})
    found = []
    for slot, status in known.items():
        fault = faults.get(slot) if isinstance(faults, dict) else None
        if "worker" not in status:  # it did not answer its supervisor
            state = str(status.get("state", "no answer"))
            found.append(SeenWorker(name=f"slot {slot}", state=state, answers=state == "starting"))
            continue
        waits = status.get("waits_for", ())
        found.append(
            SeenWorker(
                name=str(status["worker"]),
                state=f"{status['state']}: {fault}" if fault else str(status["state"]),
                answers=fault is None,
                busy_ratio=float(status.get("busy_ratio", 0.0)),
                explain_share=shares.get(slot, shares.get("")),
                waits=tuple(
                    (None if wait["partition"] is None else int(wait["partition"]), str(wait["reason"]))
                    for wait in waits
                ),
            )
        )
    return found


def _explain_shares(exposition: str) -> dict[str, float]:
    """By slot: which share of decode to encode was explaining, since the start."""
    spent: dict[str, Counter[str]] = {}
    try:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples if family.name == "penstock_stage_seconds" else ():
                if sample.name.endswith("_sum"):
                    by_stage = spent.setdefault(sample.labels.get("worker", ""), Counter())
                    by_stage[sample.labels["stage"]] += sample.value  # type: ignore[assignment]
    except ValueError:  # whoever answers there does not speak Prometheus' words
        return {}
    shares = {}
    for slot, by_stage in spent.items():
        whole = sum(by_stage[stage] for stage in ("decode", "infer", "explain", "encode"))
        if whole > 0:
            shares[slot] = by_stage["explain"] / whole
    return shares


def _json(url: str, path: str) -> Any:
    try:
        return orjson.loads(_text(url, path))
    except orjson.JSONDecodeError as error:
        raise UnavailableError(f"{url}{path} does not answer as a worker does") from error


def _text(url: str, path: str) -> str:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}{path}", timeout=answer_timeout_s) as answer:
            return bytes(answer.read(answer_bytes_max)).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:  # 503 has its reasons in the body
        return error.read(answer_bytes_max).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        why = getattr(why, "strerror", None) or why
        raise UnavailableError(f"nobody answers at {url}: {why}") from error


def _of_objects(sentence: str) -> bool:
    """Whether the brokers let us in, and refuse a topic or a permission."""
    return "does not exist" in sentence or "lacks the permission" in sentence
