"""`penstock scaler`: tells KEDA how many workers it takes, and why."""

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.clock import SystemClock
from penstock.engine.console.logs import add_logging_arguments, configure_logging
from penstock.engine.console.stacks import write_stacks_on_signal
from penstock.engine.console.stop_signals import stop_signals
from penstock.engine.console.terminal import Terminal
from penstock.engine.settings.model import ScalingSettings, Settings, load_settings
from penstock.engine.settings.unencrypted import unencrypted_secrets
from penstock.schemas.errors import UnavailableError
from penstock.schemas.log_codes import LogCode

if TYPE_CHECKING:
    from penstock.connectors.kafka.client import ClientConfig
    from penstock.engine.settings.tls_files import TlsFiles

logger = logging.getLogger(__name__)

call_s = 4.0
"""Of one question to the cluster: twice as long without an answer and the client is thrown away, and the number is to be
there again within 15 s of the cluster."""

summary = "the scaler: answers KEDA's external-push calls, serves metrics and the reasons for its number"
example = "penstock scaler penstock.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock scaler` takes."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings of the workers")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError for a port, a topic or a certificate that cannot be had."""
    settings = load_settings(arguments.settings)
    configure_logging("scaler", form=arguments.log_format, level=arguments.log_level)
    for sentence in unencrypted_secrets(settings):
        logger.warning("%s", sentence, extra=LogCode.SECRET_UNENCRYPTED.extra)
    write_stacks_on_signal()
    stop = threading.Event()
    for number in stop_signals():
        signal.signal(number, lambda *_: stop.set())
    serve(settings, stop=stop, say=terminal.say)
    return 0


def serve(settings: Settings, *, stop: threading.Event, say: Callable[[str], None]) -> None:
    """The scaler from its first reading to `stop`; `say` is told once where it listens."""
    # Late, all of them: --help needs neither Kafka nor gRPC. What is missing is named before the rest is loaded.
    from penstock.engine.worker.kafka import client_config

    config = client_config(settings.kafka)
    config = replace(config, proven=_let_in(settings, config))
    from prometheus_client import CollectorRegistry

    from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
    from penstock.connectors.kafka.admin.renewed import Renewed
    from penstock.connectors.kafka.contact import KafkaContact
    from penstock.connectors.kafka.reports import ReportReader
    from penstock.engine.pages.scaler import scaler_pages
    from penstock.engine.scaling.collector import Collector
    from penstock.engine.scaling.keda_service import KedaService, Published
    from penstock.engine.scaling.loop import ScalerLoop, stale_after_s
    from penstock.engine.scaling.planner import Bounds
    from penstock.engine.scaling.reports import ReportBook
    from penstock.engine.telemetry.http_server import HttpServer
    from penstock.engine.telemetry.scaler_metrics import ScalerMetrics

    clock, scaling, group = SystemClock(), settings.scaling, settings.kafka.group
    with ExitStack() as stack:
        topic, status = settings.input.topic, settings.output.status
        offsets = stack.enter_context(
            closing(
                Renewed(lambda: KafkaOffsets(config, group, timeout_s=call_s), name=f"the offsets of {group}")
            )
        )
        read_reports: Callable[[], Iterable[bytes | None]] = tuple
        if status is not None:
            reports = stack.enter_context(
                closing(Renewed(lambda: ReportReader(config, status), name=f"the reports on {status}"))
            )
            read_reports = lambda: reports.use(lambda reader: reader.read())  # noqa: E731  two lines for one word
        contact = stack.enter_context(
            closing(KafkaContact(config, topic=topic, group=group, member="", monotonic_s=clock.monotonic_s))
        )
        collector = Collector(
            read_offsets=lambda: offsets.use(lambda client: client.read(topic)),
            read_ends=lambda: offsets.use(lambda client: client.ends(topic)),
            topic=topic,
            read_reports=read_reports,
            book=ReportBook(group=group),
            start=settings.kafka.start,
            workers_per_replica=settings.workers,
            clock=clock,
        )
        published = Published(clock=clock, age_max_s=stale_after_s)
        bounds = Bounds(
            max_age_s=scaling.max_age_s,
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            workers_per_replica=settings.workers,
        )
        loop = ScalerLoop(
            collector=collector,
            bounds=bounds,
            published=published,
            metrics=ScalerMetrics(CollectorRegistry()),
            topic=topic,
            clock=clock,
            cluster_age_s=lambda: contact.contact(asks_for_members=False).answer_age_s,
        )
        service = stack.enter_context(
            closing(
                KedaService(
                    published, group=group, host=scaling.host, port=scaling.port, tls=_tls_files(scaling)
                )
            )
        )
        reader = stack.enter_context(scaler_pages(loop, hosts=settings.http.hosts, clock=clock))
        http = stack.enter_context(
            HttpServer(loop.routes(), host=settings.http.host, port=settings.http.port, reader=reader)
        )
        service.start()
        say(
            f"scaler of group {group}: KEDA at {scaling.host}:{service.port}, "
            f"metrics and status at http://{settings.http.host}:{http.port}"
        )
        loop.run(stop)


def _let_in(settings: Settings, config: "ClientConfig") -> bool:
    """Whether the brokers answer; who does not is waited for later. Raises ConfigError for a permission that is missing."""
    from penstock.connectors.kafka.admin.permissions import require_permissions
    from penstock.engine.worker.permissions import permissions

    try:
        require_permissions(config, permissions(settings)["scaler"])
    except UnavailableError:
        return False
    return True


def _tls_files(scaling: ScalingSettings) -> "TlsFiles | None":
    from penstock.engine.settings.tls_files import TlsFiles

    if scaling.certificate_file is None or scaling.key_file is None:
        return None
    return TlsFiles(
        certificate=scaling.certificate_file, key=scaling.key_file, client_ca=scaling.client_ca_file
    )
