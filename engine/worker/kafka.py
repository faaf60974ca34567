"""A worker on a real Kafka: proves topics and contracts, opens the two ends, serves health and metrics."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from penstock.connectors.kafka.admin.permissions import lacks, require_permissions
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.contact import Contact, KafkaContact
from penstock.connectors.kafka.partition_counts import PartitionCounts
from penstock.connectors.kafka.reading.careful import Careful
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.reports import ReportWriter
from penstock.connectors.kafka.sinks import ExactlyOnceSink, KafkaAtLeastOnceSink
from penstock.engine.admin.control import ControlReader
from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import OutputPrefixes, Registrar, output_prefixes
from penstock.engine.console.logs import set_log_level
from penstock.engine.pages.worker.answers import WorkerAnswers
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.ports import AssignmentListener, Sink, Source
from penstock.engine.scaling.reports import Reporter
from penstock.engine.settings.kafka import KafkaSettings, poll_interval_max_ms
from penstock.engine.settings.model import Settings
from penstock.engine.settings.secret_file import read_secret_bytes
from penstock.engine.settings.topics import RegistrySettings
from penstock.engine.settings.worker_names import transactional_id, worker_name
from penstock.engine.telemetry.http_server import HttpServer
from penstock.engine.telemetry.port_routes import worker_routes
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.worker_status import WorkerStatus
from penstock.engine.worker.assembly import (
    Link,
    Worker,
    event_log,
    make_worker,
    new_metrics,
)
from penstock.engine.worker.careful_reading import carefully_read
from penstock.engine.worker.model_copy import copied_model
from penstock.engine.worker.pages import show_worker
from penstock.engine.worker.permissions import permissions
from penstock.engine.worker.poison_records import InFlightLog
from penstock.engine.worker.situation import await_kafka
from penstock.engine.worker.startup.cpu_limit import cpu_limit_cores
from penstock.engine.worker.startup.kafka_facts import KafkaFacts, kafka_facts, raise_changed_limits
from penstock.engine.worker.startup.startup import Startup, walk
from penstock.engine.worker.startup.worker import worker_steps
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.log_codes import LogCode
from penstock.schemas.reading import Reading

if TYPE_CHECKING:
    from penstock.connectors.registry.client import Registry
    from penstock.connectors.registry.exchange import RegistryConfig

logger = logging.getLogger("penstock.worker")

secret_bytes_max = 65_536
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
        data = read_secret_bytes(file, secret_bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the secret in {file}: {error.strerror}") from error
    if len(data) > secret_bytes_max:
        raise ConfigError(f"the secret in {file} is longer than {secret_bytes_max} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"the secret in {file} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\0" in text:
        raise ConfigError(f"the secret in {file} {'holds a NUL character' if text else 'is empty'}")
    return text


@contextmanager
def open_kafka_worker(
    settings: Settings,
    *,
    slot: int,
    run_folder: Path,
    http_port: int,
    clock: Clock,
    stopping: Callable[[], bool] = lambda: False,
    careful: int = 0,
) -> Iterator[Worker]:
    """A worker that is verified, warmed and ready to join; what it holds is released at the end.

    A cluster that does not answer is waited for, before the model is loaded and when transactions are initialised, until
    `stopping`; then UnavailableError is raised. `careful`: how many workers of the slot died one after the other without a record to blame.

    Serves /metrics, /live, /ready, /status and what the pages ask for on a loopback port, which it writes to `http-SLOT` in the run folder.
    """
    name = worker_name(settings.kafka.group, slot)
    metrics = new_metrics(settings)
    events = event_log(metrics, clock)

    def cores_max() -> float | None:
        limit = cpu_limit_cores()
        metrics.cpu_limit_cores.set(math.nan if limit is None else limit)
        return None if limit is None else limit / settings.workers

    board = StatusBoard(
        worker=name,
        group=settings.kafka.group,
        topic=settings.input.topic,
        clock=clock,
        rows_max=settings.objective.batch_rows_max,
        events=events.newest,
        cores_max=cores_max,
    )
    view = WorkerView(board=board, metrics=metrics, clock=clock)
    answers = WorkerAnswers(view, clock=clock)
    with ExitStack() as held:
        routes = worker_routes(metrics=metrics, board=board)
        server = HttpServer(routes, host="127.0.0.1", port=http_port, reader=answers.answer)
        server.start()
        held.callback(server.close)
        try:
            (run_folder / f"http-{slot}").write_text(str(server.port))
        except OSError as error:
            logger.warning(
                "the port of /metrics and /ready cannot be told in %s: %s; working on without",
                run_folder,
                error.strerror,
                extra=LogCode.PORT_NOT_TOLD.extra,
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
        startup = Startup(
            settings=settings, clock=clock, metrics=metrics, name=name, copy=copied_model(run_folder)
        )
        carefully = (
            carefully_read(careful, slot=slot, run_folder=run_folder, events=events) if careful else None
        )
        link = kafka_link(startup, held=held, proven=let_in.exists(), careful=carefully, stopping=stopping)
        let_in.touch()
        worker = make_worker(
            startup,
            link,
            run_folder=run_folder,
            board=board,
            events=events,
            slot=slot,
            pausing=ControlReader(run_folder, clock=clock, set_log_level=set_log_level).pausing,
            view=view,
        )
        show_worker(
            view,
            answers,
            settings,
            bundle=worker.bundle,
            model=worker.model,
            name=name,
            schemas=startup.schemas,
            clock=clock,
        )
        with permission_named(settings):
            try:
                yield worker
            except ConfigError as error:
                limits = startup.the(startup.facts).limits
                raise_changed_limits(error, limits, settings, client_config(settings.kafka))
                raise


@contextmanager
def permission_named(settings: Settings) -> Iterator[None]:
    """Raises ConfigError naming the permission that a refusal is about: the client names neither topic nor group nor id."""
    try:
        yield
    except (ConfigError, UnavailableError) as error:
        if "permission" not in str(error):
            raise
        wanted = permissions(settings)["worker"]
        require_permissions(client_config(settings.kafka), wanted)
        for each in wanted:
            if each.resource == "transactional-id" and "transactional id" in str(error):
                raise ConfigError(f"{error}; {lacks(each)}") from error
        raise


def open_sink(
    settings: Settings,
    config: ClientConfig,
    facts: KafkaFacts,
    *,
    transactional_ids: Sequence[str],
    partition_counts: Mapping[str, int],
    clock: Clock,
    stopping: Callable[[], bool] = lambda: False,
) -> Sink:
    """The producers. The ids are those of one worker alone, or of a check that begins as no worker does."""
    topic, bytes_max = settings.input.topic, facts.limits.batch_bytes_max
    with permission_named(settings):
        if settings.kafka.delivery == "at_least_once":
            return KafkaAtLeastOnceSink(
                config,
                topic=topic,
                partition_counts=partition_counts,
                clock=clock,
                memory_bytes_max=send_memory_bytes_max,
                batch_bytes_max=bytes_max,
            )
        return ExactlyOnceSink(
            config,
            group=settings.kafka.group,
            topic=topic,
            transactional_ids=transactional_ids,
            partition_counts=partition_counts,
            clock=clock,
            memory_bytes_max=send_memory_bytes_max,
            batch_bytes_max=bytes_max,
            stopping=stopping,
        )


def contracts_of(settings: Settings, registrar: Registrar | None) -> OutputPrefixes:
    """What the messages of the output topics begin with; the registrar is asked where their framing is the registry's."""
    return output_prefixes(
        predictions=settings.output.predictions,
        explanations=settings.output.explanations,
        dead_letters=settings.output.dead_letters,
        framing=settings.output_framing,
        registrar=registrar,
    )


def open_registry(settings: RegistrySettings, clock: Clock) -> "Registry":
    """A client of the schema registry, to be closed."""
    from penstock.connectors.registry.client import Registry  # its HTTP client is slow to load

    return Registry(registry_config(settings), monotonic_s=clock.monotonic_s, sleep=clock.sleep)


def kafka_link(
    startup: Startup,
    *,
    held: ExitStack,
    proven: bool = False,
    careful: Careful | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Link:
    """The input on Kafka, once everything that it needs is proved; what the rest of the start does with Kafka is left in `startup`.

    `proven`: the brokers have let this deployment in before, so what a token server or TLS refuses now may pass.
    Raises ConfigError for a missing topic, UnavailableError when nobody answers.
    """
    settings, clock, name = startup.settings, startup.clock, startup.name
    config = replace(
        client_config(settings.kafka),
        properties={"client.id": name, **settings.kafka.client},
        proven=proven,
    )
    registry = None
    if settings.registry is not None:
        registry = open_registry(settings.registry, clock)
        held.callback(registry.close)
    startup.schemas = registry
    startup.ask_kafka = lambda: kafka_facts(settings, config)
    startup.publish_contracts = lambda: contracts_of(settings, registry)
    walk(startup, worker_steps, "kafka", "registry")
    facts = startup.the(startup.facts)
    partition_counts = PartitionCounts(facts.partitions)
    if facts.limits.untold:
        logger.warning(
            "the broker does not tell this user the settings of %s (permission DescribeConfigs); Kafka's defaults are assumed",
            ", ".join(facts.limits.untold),
            extra=LogCode.TOPIC_SETTINGS_UNTOLD.extra,
        )
    startup.open_sink = lambda: open_sink(
        settings,
        config,
        facts,
        transactional_ids=[transactional_id(settings.kafka.group, name, use) for use in ("a", "b")],
        partition_counts=partition_counts,
        clock=clock,
        stopping=stopping,
    )
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
            exactly_once=settings.kafka.delivery == "exactly_once",
            max_poll_interval_s=poll_interval_max_ms(settings.kafka.client) / 1000,
            memory_bytes_max=fetch_memory_bytes_max,
            clock=clock,
            unreadable=settings.input.unreadable,
            recreated=settings.input.recreated,
            careful=careful,
        )
        sources.append(source)
        return source

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
        open_source=open_source,
        ends=ends,
        report=_reporter(settings, config, clock, held),
        contact=contact,
        member=member,
        reading=lambda: sources[0].reading() if sources else Reading(),
        over=lambda: bool(sources) and sources[0].careful_over,
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
