"""What would be refused at start, found before it: settings, bundle, device, contracts, topics, permissions, registry."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engine.app import worker_name
from engine.clock import Clock
from engine.codec.contracts import load_schema
from engine.codec.decode import SchemaStore, make_decoder
from engine.explain import make_explainer
from engine.explain.policy import Every, parse_policy
from engine.models.bundle import Bundle
from engine.models.session import OnnxModel, open_model
from engine.settings import Settings
from schemas.errors import PenstockError

steady_runs = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstBatch:
    """The first batch after start against those that follow it."""

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
    bundle: Bundle | None = None
    model: OnnxModel | None = None
    first_batch: FirstBatch | None = None

    def look(self, what: str, check: Callable[[], str]) -> None:
        """Run one check: the sentence it returns, or the error it raises."""
        try:
            self.good.append((what, check()))
        except PenstockError as error:
            self.faults.append((what, str(error)))


def check_model(settings: Settings, findings: Findings, clock: Clock) -> None:
    """Bundle, device, golden batch, warm-up, first batch, input schema and explainer."""

    def bundle() -> str:
        findings.bundle = found = Bundle.load(settings.model.path)
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
        findings.first_batch = _first_batch(opened, found, clock)
        note = f" ({opened.device.note})" if opened.device.note else ""
        return f"{opened.runtime} on {opened.device.name}{note}, as when packaged on {len(found.golden.rows)} golden rows"

    findings.look("model", model)
    findings.look("input", lambda: _input(settings, found))
    if findings.model is not None and settings.output.explanations is not None:
        opened = findings.model
        findings.look("explanations", lambda: _explanations(settings, found, opened))


def check_kafka(settings: Settings, findings: Findings) -> None:
    """Topics and permissions."""
    from connectors.kafka_admin import KafkaAdmin
    from engine.kafka_app import client_config

    output = settings.output
    writes = [output.predictions, output.explanations, output.dead_letters, output.status]
    exactly_once = settings.kafka.delivery == "exactly_once"
    preflight_id = f"{worker_name(settings.kafka.group, 0)}-preflight"  # no worker's: it would fence that one

    def kafka() -> str:
        admin = KafkaAdmin(client_config(settings.kafka))
        admin.check(
            reads=[settings.input.topic],
            writes=[topic for topic in writes if topic],
            group=settings.kafka.group,
            transactional_id=preflight_id if exactly_once else None,
        )
        count = admin.partitions(settings.input.topic)
        return f"cluster {admin.cluster_id()}; {settings.input.topic} has {count} partitions; {settings.kafka.delivery}"

    findings.look("kafka", kafka)


def check_registry(settings: Settings, findings: Findings, clock: Clock) -> None:
    """The registry answers, and the newest input schema carries what the model's features need."""
    if settings.registry is None:
        return
    from connectors.registry import Registry
    from engine.codec.schema_check import check_fields
    from engine.kafka_app import registry_config

    config = registry_config(settings.registry)
    subject = f"{settings.input.topic}-value"

    def registry() -> str:
        client = Registry(config, monotonic_s=clock.monotonic_s, sleep=clock.sleep)
        try:
            newest = client.latest(subject)
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


def _input(settings: Settings, bundle: Bundle) -> str:
    path = settings.input.record_schema
    schemas: SchemaStore | None = _NoSchemas() if settings.registry else None
    reader = load_schema(path) if path else bundle.input_schema
    make_decoder(
        settings=settings,
        signature=bundle.signature,
        reader_schema=reader,
        schemas=schemas,
        record_bytes_max=settings.input.record_bytes_max,
    )
    if settings.input.format == "json":
        return "json; fields are looked for in each record"
    if reader is None:
        return f"avro, {settings.framing}; each writer's schema is checked when its first record comes"
    return f"avro, {settings.framing}; every feature has its field in {path or 'the schema of the bundle'}"


def _explanations(settings: Settings, bundle: Bundle, model: OnnxModel) -> str:
    if parse_policy(settings.explain.policy) == Every(False):
        return "none (explain.policy)"
    explainer = make_explainer(bundle, model, settings.explain)
    rows = bundle.golden.rows[:4]
    attributions = explainer.explain(rows, model.predict(rows))
    worst = float(np.abs(attributions.additivity_error).max())
    return f"{attributions.method} in {attributions.space}; on golden rows they add up to within {worst:.1g}"


def _first_batch(model: OnnxModel, bundle: Bundle, clock: Clock) -> FirstBatch:
    rows = np.resize(bundle.golden.rows, (model.batch_rows_max, bundle.signature.width))

    def run_ms() -> float:
        before_s = clock.monotonic_s()
        model.predict(rows)
        return (clock.monotonic_s() - before_s) * 1000

    first_ms = run_ms()
    return FirstBatch(
        rows=len(rows),
        first_ms=first_ms,
        steady_ms=statistics.median(run_ms() for _ in range(steady_runs)),
    )
