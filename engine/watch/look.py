"""One look at a running engine over HTTP: its /status, the few metrics that are shown, and its newest records where it tells them."""

import http.client
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx
import orjson

from penstock.engine.console.reasons import FeatureShare
from penstock.engine.hints.sample import WorkerSample
from penstock.engine.settings.section import address
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.waits import WaitKind

answer_s_max: Final = 3.0
answer_bytes_max: Final = 16 << 20
newest_max: Final = 5
newest_every_s: Final = 1.0
_sample: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)(?: \S+)?")
_label: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_escaped: Final = re.compile(r"\\(.)")
_wanted: Final = (
    "penstock_end_to_end_seconds_bucket", "penstock_stage_seconds_sum", "penstock_stage_seconds_count", "penstock_lag_records",
    "penstock_lag_seconds", "penstock_latency_objective_seconds", "penstock_age_objective_seconds", "penstock_busy_seconds_total",
    "penstock_rebalances_total", "penstock_ahead_records_total", "penstock_ahead_seconds_total",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSeen:
    """One worker's report; numbers are None where it does not tell them."""

    slot: str
    name: str
    state: str
    read: int | None
    predicted: int
    rejected: int
    skipped: int
    in_flight: int
    dropped: int
    kafka_fault: str
    waits: tuple[str, ...]
    model: str
    counters: WorkerSample | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionSeen:
    """A partition, and how far behind it is; NaN is not known."""

    topic: str
    partition: int
    owner: str
    records: float
    age_s: float
    end: float = math.nan
    ahead_s: float = 0.0  # how far the oldest unfinished record's time stamp lies ahead of its worker's clock
    waits: frozenset[WaitKind] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """A record's outcome in short."""

    place: str
    outcome: str
    label: str | None
    score: float | None
    reasons: tuple[FeatureShare, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one look found."""

    at_s: float
    group: str
    topic: str
    workers: tuple[WorkerSeen, ...]
    partitions: tuple[PartitionSeen, ...] = ()
    objective_s: float | None = None
    max_age_s: float | None = None
    ages: Mapping[float, float] = field(default_factory=dict)
    """Upper bound of an end-to-end age in seconds to the records at or below it, of all workers, since their start."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    busy_s: float = 0.0
    newest: tuple[Outline, ...] = ()


def engine_address(url: str) -> str:
    """An engine's address as somebody typed it. Raises ConfigError, which quotes nothing: it may hold a password."""
    try:
        address(url)
        httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        why = "is not an address" if isinstance(error, httpx.InvalidURL) else error
        raise ConfigError(f"the engine's address {why}: write http://HOST:PORT") from None
    return url


class Engine:
    """An engine's HTTP port."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for what is no address."""
        self._url = engine_address(url).rstrip("/")
        place = httpx.URL(self._url)
        self._host, self._port, self._prefix = place.host, place.port, place.raw_path.decode().rstrip("/")
        self._tls = httpx.create_ssl_context(trust_env=False) if place.scheme == "https" else None
        self._tells_records = True
        self._newest: tuple[Outline, ...] = ()
        self._newest_due_s = -math.inf

    def look(self, *, now_s: float) -> Seen:
        """Ask once. Raises UnavailableError when nobody answers as an engine does."""
        status, text = self._json("/status"), self._get("/metrics").decode("utf-8", "replace")
        if not isinstance(status, dict):
            raise self._stranger("/status")
        try:
            return seen(status, text, now_s=now_s, newest=self._newest_at(now_s))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._stranger("/status and /metrics") from error

    def hints(self) -> Any:
        """What /api/v1/hints answers, as it came. Raises UnavailableError when nobody answers so."""
        return self._json("/api/v1/hints")

    def _newest_at(self, now_s: float) -> tuple[Outline, ...]:
        """Of engines that tell it, at most once a second; asked once and no more of one that does not."""
        if self._tells_records and now_s >= self._newest_due_s:
            self._newest, self._newest_due_s = self._asked_newest(), now_s + 0.9 * newest_every_s
        return self._newest

    def _asked_newest(self) -> tuple[Outline, ...]:
        try:
            records = orjson.loads(self._get(f"/api/v1/records?limit={newest_max}"))["records"]
        except (UnavailableError, ValueError, KeyError, TypeError):
            records = None
        if not isinstance(records, list):
            self._tells_records = False
            return ()
        return tuple(outline(each) for each in records[:newest_max])

    def _json(self, path: str) -> Any:
        try:
            return orjson.loads(self._get(path))
        except orjson.JSONDecodeError as error:
            raise self._stranger(path) from error

    def _get(self, path: str) -> bytes:
        connection = self._connection()
        try:
            connection.request("GET", f"{self._prefix}{path}")
            answer = connection.getresponse()
            body = answer.read(answer_bytes_max + 1)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnavailableError(f"nobody answers at {self._url}: {why}") from error
        finally:
            connection.close()
        if len(body) > answer_bytes_max or answer.length:  # too long, or cut short
            raise self._stranger(path)
        if answer.status != HTTPStatus.OK:
            raise UnavailableError(f"{self._url}{path} answers {answer.status}")
        return body

    def _connection(self) -> http.client.HTTPConnection:
        """One for each question: an engine closes it behind its answer."""
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=answer_s_max)
        return http.client.HTTPSConnection(self._host, self._port, timeout=answer_s_max, context=self._tls)

    def _stranger(self, path: str) -> UnavailableError:
        return UnavailableError(f"{self._url}{path} does not answer as an engine does")


def seen(status: Mapping[str, Any], metrics: str, *, now_s: float, newest: tuple[Outline, ...] = ()) -> Seen:
    """What the two answers say; `status` is a worker's, or a supervisor's with its workers in it."""
    reports = status.get("workers")
    workers = reports if isinstance(reports, dict) else {"": status}
    told = [report for report in workers.values() if "group" in report]
    samples = _samples(metrics)
    ages: dict[float, float] = {}
    for labels, value in samples["penstock_end_to_end_seconds_bucket"]:
        bound = float(labels["le"])
        ages[bound] = ages.get(bound, 0.0) + value
    stage_s: dict[str, float] = {}
    for labels, value in samples["penstock_stage_seconds_sum"]:
        stage_s[labels["stage"]] = stage_s.get(labels["stage"], 0.0) + value
    names = {slot: str(report.get("worker", slot)) for slot, report in workers.items()}
    lags = {
        (labels["topic"], int(labels["partition"])): value
        for labels, value in samples["penstock_lag_records"]
    }
    return Seen(
        at_s=now_s,
        group=str(told[0]["group"]) if told else "",
        topic=str(told[0]["topic"]) if told else "",
        workers=tuple(_worker(slot, report, samples) for slot, report in workers.items()),
        partitions=tuple(
            PartitionSeen(
                topic=labels["topic"],
                partition=int(labels["partition"]),
                owner=names.get(labels.get("worker", ""), labels.get("worker", "")),
                records=lags.get((labels["topic"], int(labels["partition"])), float("nan")),
                age_s=value,
                **_place(workers, labels, lags),
            )
            for labels, value in samples["penstock_lag_seconds"]
        ),
        objective_s=max((value for _, value in samples["penstock_latency_objective_seconds"]), default=0.0) or None,
        max_age_s=max((value for _, value in samples["penstock_age_objective_seconds"]), default=0.0) or None,
        ages=ages,
        stage_s=stage_s,
        busy_s=sum(value for _, value in samples["penstock_busy_seconds_total"]),
        newest=newest,
    )  # fmt: skip


def outline(each: Mapping[str, Any]) -> Outline:
    """A record of `/api/v1/records`."""
    return Outline(
        place=f"{each['topic']} {each['partition']}/{each['offset']}",
        outcome=str(each["outcome"]),
        label=None if each.get("label") is None else str(each["label"]),
        score=None if each.get("score") is None else float(each["score"]),
        reasons=tuple(
            FeatureShare(
                feature=str(reason["feature"]),
                value="(masked)" if reason.get("masked") else _value(reason["value"]),
                attribution=float("nan") if reason["attribution"] is None else float(reason["attribution"]),
            )
            for reason in each.get("reasons") or ()
        ),
    )


def _count(value: Any) -> int:
    """A number of records. Raises ValueError for what is none: an engine counts below 2**63."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a number of records")
    return value


def _value(value: Any) -> float | str | None:
    return value if value is None or isinstance(value, str) else float(value)


def _place(
    workers: Mapping[str, Any], labels: Mapping[str, str], lags: Mapping[tuple[str, int], float]
) -> dict[str, Any]:
    """What its owner's report says of a partition besides."""
    partition = int(labels["partition"])
    report = workers.get(labels.get("worker", ""), {})
    position = next((each for each in report.get("positions") or () if each["partition"] == partition), None)
    waits = [each.get("kind") for each in report.get("waits_for") or () if each["partition"] == partition]
    found: dict[str, Any] = {"waits": frozenset(kind for kind in WaitKind if kind in waits)}
    if position is not None:
        found["end"] = position["offset"] + lags.get((labels["topic"], partition), math.nan)
        if position["oldest_timestamp_ms"] >= 0:
            found["ahead_s"] = max(position["oldest_timestamp_ms"] - report["at_ms"], 0) / 1000
    return found


def _counters(slot: str, counts: Mapping[str, Any], samples: Mapping[str, Sequence[Any]]) -> WorkerSample:
    def total(name: str, **wanted: str) -> float:
        return float(
            sum(
                value
                for labels, value in samples[name]
                if labels.get("worker", "") == slot
                and all(labels[key] == each for key, each in wanted.items())
            )
        )

    return WorkerSample(
        name=slot,
        settled=sum(counts.get(outcome, 0) for outcome in ("predicted", "rejected", "skipped")),
        rejected=counts.get("rejected", 0),
        busy_s=total("penstock_busy_seconds_total"),
        infer_s=total("penstock_stage_seconds_sum", stage="infer"),
        explain_s=total("penstock_stage_seconds_sum", stage="explain"),
        deliver_s=total("penstock_stage_seconds_sum", stage="deliver"),
        deliveries=total("penstock_stage_seconds_count", stage="deliver"),
        rebalances=total("penstock_rebalances_total"),
        ahead=total("penstock_ahead_records_total"),
        ahead_s=total("penstock_ahead_seconds_total"),
    )


def _worker(slot: str, report: Mapping[str, Any], samples: Mapping[str, Sequence[Any]]) -> WorkerSeen:
    balance, kafka, model = report.get("balance"), report.get("kafka"), report.get("model")
    counts = balance or {}
    waits = [
        f"partition {wait['partition']}: {wait['reason']}"
        if wait["partition"] is not None
        else wait["reason"]
        for wait in report.get("waits_for") or ()
    ]
    fault = ""
    if kafka and not kafka["reachable"]:
        fault = f"Kafka at {kafka['address']} has not answered for {kafka['answer_age_s']:.0f} s: {kafka['fault']}"
    return WorkerSeen(
        slot=slot,
        name=str(report.get("worker", slot)),
        state=str(report.get("state", "unknown")),
        read=None if counts.get("read") is None else _count(counts["read"]),
        predicted=_count(counts.get("predicted", 0)),
        rejected=_count(counts.get("rejected", 0)),
        skipped=_count(counts.get("skipped", 0)),
        in_flight=_count(counts.get("in_flight", 0)),
        dropped=_count(counts.get("dropped", 0)),
        kafka_fault=fault,
        waits=tuple(waits),
        model=f"{model['name']} {model['version']}" if model else "",
        counters=_counters(slot, counts, samples) if balance else None,
    )


def _samples(metrics: str) -> dict[str, Sequence[tuple[dict[str, str], float]]]:
    """Of the wanted metrics alone: a page of 1,500 series would take a tenth of a core to read whole each second. Raises ValueError."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in _wanted}
    for line in metrics.split("\n"):
        if not line.startswith(_wanted):
            continue
        sample = _sample.fullmatch(line)
        if sample is None:
            raise ValueError("a line of /metrics is no sample")
        if sample[1] in found:
            labels = {
                name: _escaped.sub(_unescaped, value) for name, value in _label.findall(sample[2] or "")
            }
            found[sample[1]].append((labels, float(sample[3])))
    return dict(found)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
