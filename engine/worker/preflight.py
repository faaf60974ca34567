"""What would be refused at start, found before it: settings, bundle, device, contracts, topics, permissions, registry."""

import resource
import statistics
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import contract, load_schema
from penstock.engine.codec.decode import RowDecoder, SchemaStore, make_decoder
from penstock.engine.codec.framing import Schema
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.memory import as_text, worker_bytes
from penstock.engine.models.runtime.cache import check_alone
from penstock.engine.models.runtime.loader import ServedModel, open_model, varied_rows
from penstock.engine.pipeline.batcher import rows_within_objective, share_of_objective_s
from penstock.engine.pipeline.scorer import Scorer
from penstock.engine.settings.explain_policy import Every, parse_policy
from penstock.engine.settings.model import ScalingSettings, Settings
from penstock.engine.worker.assembly import limits_default, make_scorer, open_bundle, worker_name
from penstock.engine.worker.calibration import Rehearsed, cost_curve, rehearse
from penstock.engine.worker.process import not_warm
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError, NotReadyError, PenstockError

steady_runs = 5
join_s = 3.0  # from the end of a session to the first commit of the next owner
broker_looks_every_s = (
    10.0  # transaction.abort.timed.out.transaction.cleanup.interval.ms, unless an operator set it
)


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
    errors: dict[str, PenstockError] = field(default_factory=dict)
    """What was checked, and the error itself: its kind says whether waiting may help."""
    bundle: Bundle | None = None
    model: ServedModel | None = None
    rehearsed: tuple[Rehearsed, ...] = ()
    batch_rows_max: int | None = None
    """The largest batch that the objective allows."""
    first_batch: FirstBatch | None = None

    def look(self, what: str, check: Callable[[], str]) -> None:
        """Run one check: the sentence it returns, or the error it raises."""
        try:
            self.good.append((what, check()))
        except PenstockError as error:
            self.faults.append((what, str(error)))
            self.errors[what] = error


def check_model(settings: Settings, findings: Findings, clock: Clock) -> None:
    """Bundle, device, golden batch, warm-up, first batch, input schema and explainer.

    What is not through within `model.warmup_s_max` is a fault, as it ends a worker: then it is left alone with what it
    does, and ends with the process.
    """
    raised: list[BaseException] = []
    found = Findings(good=findings.good, faults=findings.faults, errors=findings.errors)

    def check() -> None:
        try:
            _check_model(settings, found, clock)
        except BaseException as error:  # noqa: BLE001  raised again by whoever waits
            raised.append(error)

    # A daemon, and no executor: those wait at exit for what never ends.
    checking = threading.Thread(target=check, name="check-model", daemon=True)
    checking.start()
    checking.join(settings.model.warmup_s_max)
    if checking.is_alive():
        findings.good, findings.faults = list(findings.good), list(findings.faults)
        findings.errors = dict(findings.errors)
        findings.bundle = found.bundle
        late = NotReadyError(not_warm("the model", settings.model.warmup_s_max))
        findings.faults.append(("model", str(late)))
        findings.errors["model"] = late
        return
    for each in fields(found):
        setattr(findings, each.name, getattr(found, each.name))
    if raised:
        raise raised[0]


def _check_model(settings: Settings, findings: Findings, clock: Clock) -> None:

    def bundle() -> str:
        findings.bundle = found = open_bundle(settings)
        return (
            f"{found.name} {found.version}, {len(found.signature.features)} features, digest {found.digest}"
        )

    findings.look("bundle", bundle)
    if (found := findings.bundle) is None:
        return

    def model() -> str:
        findings.model = opened = open_model(
            found,
            device=settings.model.device,
            runtime=settings.model.runtime,
            threads=settings.model.threads,
            batch_rows_max=settings.objective.batch_rows_max,
            clock=clock,
        )
        note = f" ({opened.device.note})" if opened.device.note else ""
        return f"{opened.runtime} on {opened.device.name}{note}, as when packaged on {len(found.golden.rows)} golden rows"

    findings.look("model", model)
    if findings.model is not None:
        findings.good.append(("runtime", f"{findings.model.runtime}: {findings.model.reason}"))
    findings.look("input", lambda: _input(settings, found))
    if findings.model is None:
        return
    opened = findings.model
    if settings.output.explanations is not None:
        findings.look("explanations", lambda: _explanations(settings, found, opened, clock))
    if not findings.faults:
        findings.look("rehearsal", lambda: _rehearsal(settings, findings, found, opened, clock))
    findings.look("memory", lambda: _memory(found))


def check_files(settings: Settings, findings: Findings) -> None:
    """Certificates, keys and tokens of the ports: that they are there, go together and are not over."""
    if settings.admin is not None:
        from penstock.engine.worker.admin.port import require_files

        admin = settings.admin
        findings.look("admin", lambda: require_files(admin))
    scaling = settings.scaling
    if scaling.certificate_file is not None and scaling.key_file is not None:
        findings.look("scaler", lambda: _scaler(scaling))


def _scaler(scaling: ScalingSettings) -> str:
    """What the scaler's port is opened with, which `penstock run` never looks at. Raises ConfigError."""
    from penstock.connectors.kafka.admin.access import certificate_end

    try:
        from penstock.engine.scaling.tls import TlsFiles, require_tls_files
    except ModuleNotFoundError:  # a worker's machine need not have what the scaler needs
        return f"its files were not looked at: {how_to_install('scaler')}"
    assert scaling.certificate_file is not None
    assert scaling.key_file is not None
    require_tls_files(
        TlsFiles(certificate=scaling.certificate_file, key=scaling.key_file, client_ca=scaling.client_ca_file)
    )
    end = certificate_end(scaling.certificate_file)
    if end is not None and end < datetime.now(UTC):
        raise ConfigError(f"the certificate in scaling.certificate_file has expired on {end:%Y-%m-%d}")
    clients = " and asks clients for theirs" if scaling.client_ca_file else ""
    return f"TLS{clients}; the certificate is valid until {end:%Y-%m-%d}" if end else f"TLS{clients}"


def _memory(bundle: Bundle) -> str:
    """What a worker needs, estimated, and what this process has needed so far for the same work."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    needed = as_text(worker_bytes(bundle))
    return f"a worker needs about {needed} by the size of the model; this check has taken {as_text(peak_kib << 10)}"


def check_kafka(settings: Settings, findings: Findings) -> None:
    """Topics and permissions."""
    from penstock.connectors.kafka.admin.admin import KafkaAdmin
    from penstock.engine.worker.kafka import KafkaFacts, client_config, kafka_facts, topics_of

    output = settings.output
    exactly_once = settings.kafka.delivery == "exactly_once"
    preflight_id = f"{worker_name(settings.kafka.group, 0)}-preflight"  # no worker's: it would fence that one
    facts: list[KafkaFacts] = []

    def kafka() -> str:
        config = client_config(settings.kafka)
        KafkaAdmin(config).check(  # all faults at once, and a transaction begun
            reads=[settings.input.topic],
            writes=[topic for topic in topics_of(settings) if topic != settings.input.topic],
            group=settings.kafka.group,
            transactional_id=preflight_id if exactly_once else None,
        )
        facts.append(kafka_facts(settings, config))  # and whatever else would end a worker's start
        count = facts[0].partitions[settings.input.topic]
        return f"cluster {facts[0].cluster}; {settings.input.topic} has {count} partitions; {settings.kafka.delivery}"

    def outputs() -> str:
        found = facts[0].limits
        said = [
            f"messages of at most {found.limits.predictions_bytes_max} bytes on {output.predictions}"
            f" and {found.limits.dead_letters_bytes_max} on {output.dead_letters}"
        ]
        if found.limits.keyed:
            said.append(
                f"a record without a key becomes a dead letter, since {_names(found.limits.keyed)} is compacted"
            )
        if found.untold:
            said.append(
                f"Kafka's defaults are assumed for {_names(found.untold)}: no permission DescribeConfigs"
            )
        return "; ".join(said)

    findings.look("kafka", kafka)
    if not any(what == "kafka" for what, _ in findings.faults):
        findings.look("outputs", outputs)
    findings.good.append(("takeover", takeover(settings)))


def takeover(settings: Settings) -> str:
    """How long the partitions of a worker that was killed may stand still, against the objective."""
    from penstock.connectors.kafka.group import session_timeout_ms
    from penstock.connectors.kafka.sinks import transaction_timeout_default_s

    client = settings.kafka.client
    if settings.kafka.protocol == "consumer":
        session, session_s = "the broker's group.consumer.session.timeout.ms, 45 s by default", 45.0
    else:
        session_s = float(client.get("session.timeout.ms", session_timeout_ms)) / 1000
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


def check_registry(settings: Settings, findings: Findings, clock: Clock) -> None:
    """The registry answers, and the newest input schema carries what the model's features need."""
    if settings.registry is None:
        return
    from penstock.connectors.registry.client import Registry
    from penstock.engine.codec.schema_check import check_fields
    from penstock.engine.worker.kafka import registry_config

    config = registry_config(settings.registry)
    subject = f"{settings.input.topic}-value"

    def registry() -> str:
        client = Registry(config, monotonic_s=clock.monotonic_s, sleep=clock.sleep)
        try:
            newest = client.latest(subject)
            if settings.output_framing == "confluent":
                output = settings.output
                topics = {
                    "prediction": output.predictions,
                    "explanation": output.explanations,
                    "dead_letter": output.dead_letters,
                }
                for name, topic in topics.items():  # as a worker's start would find out
                    if topic is not None:
                        client.has(f"{topic}-value", contract(name))
        finally:
            client.close()
        if newest is None:
            return f"answers; nothing is registered under {subject} yet"
        if findings.bundle is not None and settings.input.format == "avro":
            check_fields(findings.bundle.signature, newest.schema, origin=f"the newest schema of {subject}")
        return f"answers; {subject} is at version {newest.version}, which has every field the model needs"

    findings.look("registry", registry)


class _NoSchemas:
    """Stands in for the registry where a decoder is built but never used."""

    def schema(self, schema_id: int) -> object:
        raise AssertionError(f"schema {schema_id} asked for in a preflight")


def _reader(settings: Settings, bundle: Bundle) -> Schema | None:
    path = settings.input.record_schema
    return load_schema(path) if path else bundle.input_schema


def _decoder(settings: Settings, bundle: Bundle) -> RowDecoder:
    schemas: SchemaStore | None = _NoSchemas() if settings.registry else None
    return make_decoder(
        settings=settings,
        signature=bundle.signature,
        reader_schema=_reader(settings, bundle),
        schemas=schemas,
        record_bytes_max=settings.input.record_bytes_max,
    )


def _input(settings: Settings, bundle: Bundle) -> str:
    _decoder(settings, bundle)
    path, reader = settings.input.record_schema, _reader(settings, bundle)
    if settings.input.format == "json":
        return "json; fields are looked for in each record"
    if reader is None:
        return f"avro, {settings.framing}; each writer's schema is checked when its first record comes"
    return f"avro, {settings.framing}; every feature has its field in {path or 'the schema of the bundle'}"


def _explanations(settings: Settings, bundle: Bundle, model: ServedModel, clock: Clock) -> str:
    if parse_policy(settings.explain.policy) == Every(False):
        return "none (explain.policy)"
    explainer = make_explainer(bundle, model, settings.explain, device=model.device, clock=clock)
    rows = bundle.golden.rows[:4]
    attributions = explainer.explain(rows, model.predict(rows))
    worst = float(np.abs(attributions.additivity_error).max())
    return f"{attributions.method} in {attributions.space}; on golden rows they add up to within {worst:.1g}"


def _rehearsal(
    settings: Settings, findings: Findings, bundle: Bundle, model: ServedModel, clock: Clock
) -> str:
    scorer = make_scorer(
        settings,
        cluster="",
        prefixes=None,
        limits=limits_default,
        name="preflight",
        bundle=bundle,
        model=model,
        cached=None,
        decoder=_decoder(settings, bundle),
        passing=None,
        condemned=lambda _: (),
        clock=clock,
    )
    rows = varied_rows(bundle, model)
    if settings.model.cache_rows:
        check_alone(model, rows)
    findings.rehearsed = rehearse(scorer, rows, batch_rows_max=model.batch_rows_max, clock=clock)
    cost = cost_curve(findings.rehearsed)
    slo_s = settings.objective.latency_slo_ms / 1000
    fits = rows_within_objective(cost, slo_s, rows_max=model.batch_rows_max)
    findings.batch_rows_max = fits
    measured = min(fits, findings.rehearsed[-1].rows)
    findings.first_batch = _first_batch(scorer, np.resize(rows, (measured, rows.shape[1])), clock)
    allowed_ms, took_ms = share_of_objective_s(slo_s) * 1000, cost.seconds(fits) * 1000
    if cost.seconds(1) * 1000 > allowed_ms:
        return (
            f"one record takes {cost.seconds(1) * 1000:.3g} ms, and a batch may take {allowed_ms:g} ms, half of "
            f"objective.latency_slo_ms: it will not be held; batches of up to {fits:,} records"
        )
    return (
        f"batches of up to {fits:,} records take {took_ms:.3g} ms from the model to the messages; "
        f"objective.latency_slo_ms leaves {allowed_ms:g} ms"
    )


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
