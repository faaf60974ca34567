"""What would be refused at start, found before it: the steps of a start, all of them, and what else is worth knowing."""

import resource
import statistics
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.connectors.kafka.sessions import session_ms
from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import OutputPrefixes
from penstock.engine.codec.framing import Schema
from penstock.engine.console.exhausted import exhaustion_told
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.memory import as_text, worker_bytes
from penstock.engine.models.runtime.loader import ServedModel
from penstock.engine.pipeline.scorer import Scorer
from penstock.engine.ports import Sink
from penstock.engine.settings.kafka import poll_interval_max_ms
from penstock.engine.settings.model import Settings
from penstock.engine.settings.worker_names import transactional_id, worker_name
from penstock.engine.worker.assembly import new_metrics
from penstock.engine.worker.calibration import Rehearsed
from penstock.engine.worker.process import not_warm
from penstock.engine.worker.startup.startup import AddressTakenError, Group, Startup, Step, walk
from penstock.engine.worker.startup.steps import steps
from penstock.schemas.errors import InvariantError, NotReadyError, PenstockError

if TYPE_CHECKING:
    from penstock.connectors.registry.client import Registry
    from penstock.engine.worker.startup.kafka_facts import KafkaFacts

steady_runs = 5
join_s = 3.0  # from the end of a session to the first commit of the next owner
broker_looks_every_s = (
    10.0  # transaction.abort.timed.out.transaction.cleanup.interval.ms, unless an operator set it
)
answer_timeout_s = 1.0
answer_bytes_max = 1 << 16
close_s = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstBatch:
    """The first batch after start against those that follow it, from the model to the messages."""

    rows: int
    first_ms: float
    steady_ms: float

    @property
    def ratio(self) -> float:
        """How many times slower the first one is."""
        return self.first_ms / self.steady_ms


@dataclass(kw_only=True, slots=True)
class Findings:
    """What was looked at, in order: what holds, and what does not."""

    good: list[tuple[str, str]] = field(default_factory=list)
    """What was checked, and what was found."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """What was checked, and one sentence on what is wrong."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """What stops no start and has to be known: what it is about, and one sentence."""
    errors: dict[str, PenstockError] = field(default_factory=dict)
    """What was checked, and the error itself: its kind says whether waiting may help."""
    bundle: Bundle | None = None
    model: ServedModel | None = None
    rehearsed: tuple[Rehearsed, ...] = ()
    batch_rows_max: int | None = None
    """The largest batch that the objective allows."""
    first_batch: FirstBatch | None = None

    def look(self, what: str, check: Callable[[], str | None]) -> bool:
        """Run one check: the sentence it returns, or the error it raises; whether there was none.

        What runs out on the way (memory, files, threads) is a fault of this check, beside those found before it.
        """
        try:
            with exhaustion_told():
                found = check()
        except PenstockError as error:
            self.faults.append((what, str(error)))
            self.errors[what] = error
            return False
        if found is not None:
            self.good.append((what, found))
        return True

    def step(self, step: Step, prove: Callable[[], str | None]) -> bool:
        """Run one step of the start. An address at which a Penstock answers is taken by ourselves, running already."""

        def proved() -> str | None:
            try:
                return prove()
            except AddressTakenError as error:
                if not penstock_answers(error.host, error.port):
                    raise
                return f"a Penstock that runs already answers at {error.host}:{error.port}"

        return self.look(step.name, proved)


class Preflight:
    """The steps of a start, taken without doing anything for good, and what they found."""

    def __init__(self, settings: Settings, clock: Clock, findings: Findings) -> None:
        self._settings = settings
        self._clock = clock
        self._findings = findings
        self._startup = Startup(
            settings=settings,
            clock=clock,
            metrics=new_metrics(settings),
            name=worker_name(settings.kafka.group, 0),
        )
        if settings.registry is not None:
            self._startup.schemas = _NoSchemas()

    def files(self) -> bool:
        """What the supervisor and the scaler begin with: limits, the bundle's files, ports, certificates, tokens.

        False where this process is given so little that to look further would prove nothing: a library may end it without
        a word, and what runs out first depends on the machine.
        """
        self._walk("supervisor", "scaler")
        if "limits" not in self._findings.errors:
            return True
        self._findings.notes.append(
            ("limits", "the model, Kafka and the registry were not looked at with so little")
        )
        return False

    def kafka(self) -> None:
        """Topics, permissions, producers."""
        from penstock.connectors.kafka.client import ClientConfig  # late: --help needs no Kafka client
        from penstock.engine.worker.kafka import client_config, open_sink
        from penstock.engine.worker.startup.kafka_facts import KafkaFacts, kafka_facts

        settings, startup, configs = self._settings, self._startup, list[ClientConfig]()

        def ask() -> KafkaFacts:
            configs.append(client_config(settings.kafka))
            return kafka_facts(settings, configs[0])

        def sink() -> Sink:
            facts = startup.the(startup.facts)
            opened = open_sink(
                settings,
                configs[0],
                facts,
                # No worker's: it would fence that one.
                transactional_ids=[transactional_id(settings.kafka.group, startup.name, "preflight")],
                partition_counts=facts.partitions,
                clock=self._clock,
            )
            opened.close(close_s)
            return opened

        startup.ask_kafka, startup.open_sink = ask, sink
        self._walk("kafka", "delivery")
        if startup.facts is not None:
            self._findings.good.append(("outputs", _outputs(settings, startup.facts)))
        self._findings.good.append(("takeover", takeover(settings)))

    def registry(self) -> None:
        """The registry answers, takes our contracts, and the newest input schema carries what the model's features need."""
        if (asked := self._settings.registry) is None:
            return
        from penstock.engine.worker.kafka import contracts_of, open_registry

        settings, startup, clock = self._settings, self._startup, self._clock

        def contracts() -> OutputPrefixes:
            with closing(open_registry(asked, clock)) as client:
                return contracts_of(settings, _OnlyLooks(client))

        def newest() -> tuple[int, Schema] | None:
            with closing(open_registry(asked, clock)) as client:
                found = client.latest(f"{settings.input.topic}-value")
            return None if found is None else (found.version, found.schema)

        startup.publish_contracts, startup.newest_input_schema = contracts, newest
        self._walk("registry", "records")

    def model(self) -> None:
        """Bundle, device, golden batch, warm-up, first batch, input schema and explainer.

        What is not through within `model.warmup_s_max` is a fault, as it ends a worker: then it is left alone with what it
        does, and ends with the process.
        """
        findings, startup = self._findings, self._startup
        taken = Findings()
        raised: list[BaseException] = []

        def take() -> None:
            try:
                walk(startup, steps, "model", look=taken.step)
                self._besides(taken)
            except BaseException as error:  # noqa: BLE001  raised again by whoever waits
                raised.append(error)

        # A daemon, and no executor: those wait at exit for what never ends.
        checking = threading.Thread(target=take, name="check-model", daemon=True)
        if not findings.look("model", checking.start):
            return
        checking.join(self._settings.model.warmup_s_max)
        late = checking.is_alive()
        findings.good += list(taken.good)
        findings.faults += list(taken.faults)
        findings.errors |= dict(taken.errors)
        findings.bundle = startup.bundle
        if late:
            error = NotReadyError(not_warm("the model", self._settings.model.warmup_s_max))
            findings.faults.append(("model", str(error)))
            findings.errors["model"] = error
            return
        findings.model, findings.rehearsed = startup.model, startup.rehearsed
        findings.batch_rows_max, findings.first_batch = startup.batch_rows_max, taken.first_batch
        if raised:
            raise raised[0]

    def _walk(self, *wanted: Group) -> None:
        walk(self._startup, steps, *wanted, look=self._findings.step)

    def _besides(self, findings: Findings) -> None:
        """What is worth knowing of the model, and refuses nothing."""
        bundle, model, scorer = self._startup.bundle, self._startup.model, self._startup.scorer
        if bundle is None or model is None:
            return
        findings.good.append(("runtime", f"{model.runtime}: {model.reason}"))
        if "rehearsal" in self._startup.proved and scorer is not None:
            fits = self._startup.the(self._startup.batch_rows_max)
            rows = model.rows
            measured = min(fits, self._startup.rehearsed[-1].rows)
            findings.first_batch = _first_batch(
                scorer, np.resize(rows, (measured, rows.shape[1])), self._clock
            )
        findings.good.append(("memory", _memory(bundle)))


class _OnlyLooks:
    """A registrar that registers nothing."""

    def __init__(self, client: "Registry") -> None:
        self._client = client

    def ensure(self, subject: str, schema: dict[str, Any]) -> int:
        """As a start would find out; the id is no schema's."""
        self._client.has(subject, schema)
        return 0


class _NoSchemas:
    """Stands in for the registry where a decoder is built but never used."""

    def schema(self, schema_id: int) -> object:
        raise InvariantError(f"schema {schema_id} asked for in a preflight")


def penstock_answers(host: str, port: int) -> bool:
    """Whether what listens there answers as a supervisor or a worker does."""
    there = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{there}]:{port}/live" if ":" in there else f"http://{there}:{port}/live"
    try:
        with urllib.request.urlopen(url, timeout=answer_timeout_s) as answer:
            said = _json(answer.read(answer_bytes_max))
    except urllib.error.HTTPError as error:  # 503: not well, and one of ours all the same
        said = _json(error.read(answer_bytes_max))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and "ok" in said


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _memory(bundle: Bundle) -> str:
    """What a worker needs, estimated, and what this process has needed so far for the same work."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    needed = as_text(worker_bytes(bundle))
    return f"a worker needs about {needed} by the size of the model; this check has taken {as_text(peak_kib << 10)}"


def _outputs(settings: Settings, facts: "KafkaFacts") -> str:
    found, output = facts.limits, settings.output
    said = [
        f"messages of at most {found.limits.predictions_bytes_max:,} bytes on {output.predictions}"
        f" and {found.limits.dead_letters_bytes_max:,} on {output.dead_letters}"
    ]
    if found.limits.keyed:
        said.append(
            f"a record without a key becomes a dead letter, since {_names(found.limits.keyed)} is compacted"
        )
    if found.untold:
        said.append(f"Kafka's defaults are assumed for {_names(found.untold)}: no permission DescribeConfigs")
    return "; ".join(said)


def takeover(settings: Settings) -> str:
    """How long the partitions of a worker that was killed may stand still, against the objective."""
    from penstock.connectors.kafka.sinks import transaction_timeout_default_s

    client = settings.kafka.client
    if settings.kafka.protocol == "consumer":
        session, session_s = "the broker's group.consumer.session.timeout.ms, 45 s by default", 45.0
    else:
        session_s = session_ms(client, poll_interval_max_ms=poll_interval_max_ms(client)) / 1000
        session = f"session.timeout.ms, {session_s:g} s"
    longest_s, why = session_s + join_s, session
    if settings.kafka.delivery == "exactly_once":
        timeout_s = float(client.get("transaction.timeout.ms", transaction_timeout_default_s * 1000)) / 1000
        open_s = timeout_s + broker_looks_every_s + join_s
        if open_s > longest_s:
            longest_s = open_s
            why = (
                f"{session}; where its transaction was open and nobody starts under its name, transaction.timeout.ms, "
                f"{timeout_s:g} s, and the {broker_looks_every_s:g} s after which the broker looks"
            )
    allowed_s = settings.scaling.max_age_s
    verdict = "within" if longest_s <= allowed_s else "MORE than"
    return (
        f"a killed worker's partitions stand still for up to {longest_s:g} s ({why}), {verdict} scaling.max_age_s, "
        f"{allowed_s:g} s"
    )


def _names(topics: Iterable[str]) -> str:
    return ", ".join(sorted(topics))


def _first_batch(scorer: Scorer, rows: NDArray[np.generic], clock: Clock) -> FirstBatch:
    def run_ms() -> float:
        before_s = clock.monotonic_s()
        scorer.rehearse(rows)
        return (clock.monotonic_s() - before_s) * 1000

    first_ms = run_ms()
    return FirstBatch(
        rows=len(rows),
        first_ms=first_ms,
        steady_ms=statistics.median(run_ms() for _ in range(steady_runs)),
    )
