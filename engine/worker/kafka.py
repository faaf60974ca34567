"""A worker on a real Kafka: proves topics and contracts, opens the two ends, serves health and metrics."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.permissions import lacks, require_permissions
from penstock.connectors.kafka.admin.topic_settings import batch_bytes_max, read_topic_settings
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.contact import Contact, KafkaContact
from penstock.connectors.kafka.partition_counts import PartitionCounts
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.reports import ReportWriter
from penstock.connectors.kafka.sinks import ExactlyOnceSink, KafkaAtLeastOnceSink
from penstock.engine.admin.control import ControlReader
from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import output_prefixes
from penstock.engine.console.logs import set_log_level
from penstock.engine.dead_letters.message import message_bytes_min
from penstock.engine.pipeline.outgoing import OutputLimits, letter_headers_bytes_max
from penstock.engine.ports import AssignmentListener, Sink, Source
from penstock.engine.scaling.reports import Reporter
from penstock.engine.settings.kafka import KafkaSettings, max_poll_interval_ms
from penstock.engine.settings.model import Settings
from penstock.engine.settings.topics import RegistrySettings
from penstock.engine.telemetry.http_server import HttpServer, worker_routes
from penstock.engine.telemetry.status import StatusBoard, WorkerStatus
from penstock.engine.worker.assembly import (
    Link,
    Worker,
    event_log,
    make_worker,
    new_metrics,
    open_bundle,
    require_topics,
    worker_name,
)
from penstock.engine.worker.model_copy import copied_model
from penstock.engine.worker.permissions import permissions
from penstock.engine.worker.poison_records import InFlightLog
from penstock.engine.worker.situation import await_kafka
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.reading import Reading

if TYPE_CHECKING:
    from penstock.connectors.registry.exchange import RegistryConfig

logger = logging.getLogger("penstock.worker")

secret_characters_max = 65_536
fetch_memory_bytes_max = 128 << 20
send_memory_bytes_max = 256 << 20


def client_config(settings: KafkaSettings) -> ClientConfig:
    """What the connectors need of the settings; secrets are read from their files here."""
    security = settings.security
    return ClientConfig(
        bootstrap_servers=settings.bootstrap_servers,
        properties=settings.client,
        protocol=security.protocol,
        mechanism=security.mechanism,
        username=security.username,
        password=secret(security.password, security.password_file),
        ca_file=security.ca_file,
        certificate_file=security.certificate_file,
        key_file=security.key_file,
        key_password=secret(security.key_password, None),
        oauth_token_url=security.oauth_token_url,
        oauth_client_id=security.oauth_client_id,
        oauth_client_secret=secret(security.oauth_client_secret, security.oauth_client_secret_file),
        oauth_scope=security.oauth_scope,
    )


def registry_config(settings: RegistrySettings) -> "RegistryConfig":
    """Likewise for the schema registry."""
    from penstock.connectors.registry.exchange import (
        RegistryConfig,  # its HTTP client is slow to load, and many have no registry
    )

    return RegistryConfig(
        url=settings.url,
        username=settings.username,
        password=secret(settings.password, settings.password_file),
        ca_file=settings.ca_file,
        timeout_s=settings.timeout_s,
    )


def secret(value: SecretStr | None, file: Path | None) -> str | None:
    """A secret from the settings, or from its file, where one line end does not count. Raises ConfigError."""
    if value is not None or file is None:
        return value.get_secret_value() if value is not None else None
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            text = lines.read(secret_characters_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the secret in {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"the secret in {file} is not UTF-8 text") from None
    if len(text) > secret_characters_max:
        raise ConfigError(f"the secret in {file} is longer than {secret_characters_max} characters")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\0" in text:
        raise ConfigError(f"the secret in {file} {'holds a NUL character' if text else 'is empty'}")
    return text


def topics_of(settings: Settings) -> list[str]:
    """Every topic that a worker needs."""
    output = settings.output
    names = [
        settings.input.topic,
        output.predictions,
        output.explanations,
        output.dead_letters,
        output.status,
        settings.admin.audit_topic if settings.admin else None,
    ]
    return [name for name in names if name]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundLimits:
    """What the output topics take, and of which ones the broker does not tell us."""

    limits: OutputLimits
    batch_bytes_max: int
    untold: tuple[str, ...]


def output_limits(settings: Settings, config: ClientConfig) -> FoundLimits:
    """What the output topics take, read from their settings.

    Raises ConfigError for a dead-letter topic that would refuse or lose letters; UnavailableError.
    """
    output = settings.output
    names = [name for name in (output.predictions, output.explanations, output.dead_letters) if name]
    audit = settings.admin.audit_topic if settings.admin else None
    found = read_topic_settings(config, [*names, audit] if audit else names)
    if audit and found[audit].compacted:
        raise ConfigError(
            f"the audit topic {audit} is compacted: it would forget records; set its cleanup.policy to delete"
        )
    letters = found[output.dead_letters]
    if letters.compacted:
        raise ConfigError(
            f"the dead-letter topic {output.dead_letters} is compacted: it refuses letters of records without a key and forgets all"
            " but the newest of each key; set its cleanup.policy to delete"
        )
    bytes_min = message_bytes_min + letter_headers_bytes_max
    letter_bytes_max = letters.message_bytes_max(config)
    if letter_bytes_max < bytes_min:
        raise ConfigError(
            f"messages of at most {letter_bytes_max} bytes fit into the dead-letter topic {output.dead_letters}, and a letter may"
            f" need {bytes_min}; raise its max.message.bytes (and message.max.bytes under kafka.client, if it is set)"
        )
    results = [name for name in names if name != output.dead_letters]
    bytes_max = {name: found[name].message_bytes_max(config) for name in results}
    return FoundLimits(
        limits=OutputLimits(
            predictions_bytes_max=bytes_max[output.predictions],
            explanations_bytes_max=bytes_max.get(output.explanations or "", 0),
            dead_letters_bytes_max=letter_bytes_max,
            keyed=frozenset(name for name in results if found[name].compacted),
        ),
        batch_bytes_max=batch_bytes_max(found.values()),
        untold=tuple(name for name in names if not found[name].known),
    )


@contextmanager
def open_kafka_worker(
    settings: Settings,
    *,
    slot: int,
    run_folder: Path,
    http_port: int,
    clock: Clock,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Worker]:
    """A worker that is verified, warmed and ready to join; what it holds is released at the end.

    A cluster that does not answer is waited for, before the model is loaded, until `stopping`; then UnavailableError is
    raised.

    Serves /metrics, /live, /ready and /status on a loopback port, which it writes to `http-SLOT` in the run folder.
    """
    name = worker_name(settings.kafka.group, slot)
    metrics = new_metrics(settings)
    events = event_log(metrics, clock)
    board = StatusBoard(
        worker=name,
        group=settings.kafka.group,
        topic=settings.input.topic,
        clock=clock,
        rows_max=settings.objective.batch_rows_max,
        events=events.newest,
    )
    with ExitStack() as held:
        server = HttpServer(worker_routes(metrics=metrics, board=board), host="127.0.0.1", port=http_port)
        server.start()
        held.callback(server.close)
        try:
            (run_folder / f"http-{slot}").write_text(str(server.port))
        except OSError as error:
            logger.warning(
                "the port of /metrics and /ready cannot be told in %s: %s; working on without",
                run_folder,
                error.strerror,
            )
        let_in = run_folder / "let-in"  # a worker of this deployment has been let in by the brokers before
        await_kafka(
            replace(client_config(settings.kafka), proven=let_in.exists()),
            board=board,
            metrics=metrics,
            events=events,
            clock=clock,
            beat=InFlightLog(run_folder / f"note-{slot}").beat,  # else it would seem not to get warm
            stopping=stopping,
        )
        bundle = open_bundle(settings, copied_model(run_folder))
        link = kafka_link(settings, name=name, clock=clock, held=held, proven=let_in.exists())
        let_in.touch()
        worker = make_worker(
            settings,
            link,
            name=name,
            run_folder=run_folder,
            board=board,
            metrics=metrics,
            bundle=bundle,
            clock=clock,
            events=events,
            slot=slot,
            pausing=ControlReader(run_folder, clock=clock, set_log_level=set_log_level).pausing,
        )
        try:
            yield worker
        except (ConfigError, UnavailableError) as error:
            _name_permission(settings, error)
            raise


def _name_permission(settings: Settings, error: PenstockError) -> None:
    """Raises ConfigError naming the permission that a refusal is about: the client names neither topic nor group nor id."""
    if "permission" not in str(error):
        return
    wanted = permissions(settings)["worker"]
    require_permissions(client_config(settings.kafka), wanted)
    for each in wanted:
        if each.resource == "transactional-id" and "transactional id" in str(error):
            raise ConfigError(f"{error}; {lacks(each)}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaFacts:
    """What a worker must know of Kafka before it joins."""

    cluster: str
    partitions: Mapping[str, int]  # of every topic that it needs
    limits: FoundLimits


def kafka_facts(settings: Settings, config: ClientConfig) -> KafkaFacts:
    """Permissions, topics, and what the output topics take: asked by a worker at its start and by `penstock check`.

    Raises ConfigError for what is missing, UnavailableError when nobody answers.
    """
    # Write among them: else the first bad record would find out that no dead letter may be written.
    require_permissions(config, permissions(settings)["worker"])
    admin = KafkaAdmin(config)
    counts = admin.partition_counts(topics_of(settings))
    require_topics(counts)
    return KafkaFacts(
        cluster=admin.cluster_id(),
        partitions={topic: count for topic, count in counts.items() if count is not None},
        limits=output_limits(settings, config),
    )


def kafka_link(settings: Settings, *, name: str, clock: Clock, held: ExitStack, proven: bool = False) -> Link:
    """The two ends on Kafka. Raises ConfigError for a missing topic, UnavailableError when nobody answers.

    `proven`: the brokers have let this deployment in before, so what a token server or TLS refuses now may pass.
    """
    config = replace(
        client_config(settings.kafka),
        properties={"client.id": name, **settings.kafka.client},
        proven=proven,
    )
    facts = kafka_facts(settings, config)
    partition_counts, found = PartitionCounts(facts.partitions), facts.limits
    if found.untold:
        logger.warning(
            "the broker does not tell this user the settings of %s (permission DescribeConfigs); Kafka's defaults are assumed",
            ", ".join(found.untold),
        )
    registry = None
    if settings.registry is not None:
        from penstock.connectors.registry.client import Registry

        registry = Registry(
            registry_config(settings.registry), monotonic_s=clock.monotonic_s, sleep=clock.sleep
        )
        held.callback(registry.close)
    output = settings.output
    exactly_once = settings.kafka.delivery == "exactly_once"
    topic = settings.input.topic
    sources: list[KafkaSource] = []

    def open_source(listener: AssignmentListener) -> Source:
        source = KafkaSource(
            config,
            group=settings.kafka.group,
            topic=topic,
            protocol=settings.kafka.protocol,
            start=settings.kafka.start,
            listener=listener,
            exactly_once=exactly_once,
            max_poll_interval_s=float(settings.kafka.client.get("max.poll.interval.ms", max_poll_interval_ms))
            / 1000,
            memory_bytes_max=fetch_memory_bytes_max,
            clock=clock,
            unreadable=settings.input.unreadable,
            recreated=settings.input.recreated,
        )
        sources.append(source)
        return source

    def open_sink() -> Sink:
        if not exactly_once:
            return KafkaAtLeastOnceSink(
                config,
                topic=topic,
                partition_counts=partition_counts,
                clock=clock,
                memory_bytes_max=send_memory_bytes_max,
                batch_bytes_max=found.batch_bytes_max,
            )
        return ExactlyOnceSink(
            config,
            group=settings.kafka.group,
            topic=topic,
            transactional_ids=(f"{name}-a", f"{name}-b"),
            partition_counts=partition_counts,
            clock=clock,
            memory_bytes_max=send_memory_bytes_max,
            batch_bytes_max=found.batch_bytes_max,
        )

    def ends(partitions: Iterable[int]) -> Mapping[int, int]:
        return sources[0].ends(partitions) if sources else {}

    def member() -> bool | None:
        is_member, member_id = sources[0].standing()
        watch.standing(is_member, member_id)
        return is_member

    watch = KafkaContact(
        config,
        topic=topic,
        group=settings.kafka.group,
        member=name,
        monotonic_s=clock.monotonic_s,
        counts=partition_counts,
    )
    held.callback(watch.close)

    def contact(asks_for_members: bool) -> Contact:
        return watch.contact(asks_for_members=asks_for_members)

    return Link(
        cluster=facts.cluster,
        open_source=open_source,
        open_sink=open_sink,
        ends=ends,
        report=_reporter(settings, config, clock, held),
        contact=contact,
        member=member,
        reading=lambda: sources[0].reading() if sources else Reading(),
        schemas=registry,
        limits=found.limits,
        prefixes=output_prefixes(
            predictions=output.predictions,
            explanations=output.explanations,
            dead_letters=output.dead_letters,
            framing=settings.output_framing,
            registrar=registry,
        ),
    )


def _reporter(
    settings: Settings, config: ClientConfig, clock: Clock, held: ExitStack
) -> Callable[[WorkerStatus], None]:
    """Sends the worker's report to the status topic now and then, if there is one."""
    if settings.output.status is None:
        return lambda _: None
    writer = ReportWriter(config, settings.output.status)
    held.callback(lambda: writer.close(0.3))
    return Reporter(lambda worker, payload: writer.send(worker=worker, payload=payload), clock=clock)
