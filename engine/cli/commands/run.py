"""`penstock run`: the worker processes under one supervisor, with one port for metrics and health."""

import argparse
import logging
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.console.logs import (
    add_logging_arguments,
    configure_logging,
    lines_held_back,
    logging_words,
    set_log_level,
)
from penstock.engine.console.stacks import write_stacks_on_signal
from penstock.engine.console.stop_signals import EndsAtOnce, stop_signals
from penstock.engine.console.terminal import Terminal
from penstock.engine.pipeline.collector import collector_again, no_collector
from penstock.engine.worker.process import (
    Command,
    exit_fenced,
    give_time_to_drain,
    let_begin,
    started_ahead,
)
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

if TYPE_CHECKING:
    from penstock.engine.pages.supervisor import SupervisorPages
    from penstock.engine.pages.watch import Facts
    from penstock.engine.settings.admin import AdminSettings
    from penstock.engine.settings.model import Settings
    from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
    from penstock.engine.worker.model_copy import ModelCopy
    from penstock.engine.worker.supervisor import Supervisor

summary = "Run the worker(s) of a settings file until SIGTERM or Ctrl+C; then finish what is in flight, commit and leave."
example = "penstock run penstock.yaml"

fenced_shown_s = 20.0
"""A scrape comes every 15 s, by the chart."""

logger = logging.getLogger("penstock")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("settings", type=Path, metavar="penstock.yaml", help="the settings file")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Supervise until stopped."""
    configure_logging("supervisor", form=arguments.log_format, level=arguments.log_level)
    # Until there is a supervisor to tell: nothing is in hand yet, so a stop is an end.
    early = EndsAtOnce()
    for number in stop_signals():
        signal.signal(number, early)
    command = Command(arguments=(str(arguments.settings), *logging_words(arguments)))
    no_collector()
    with ExitStack() as held:
        try:
            run_folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-run-")))
        except OSError as error:
            raise ConfigError(f"no folder for temporary files can be made; set TMPDIR: {error}") from error
        first = held.enter_context(started_ahead(command, run_folder))
        return _supervise(arguments.settings, command, run_folder, first, held, early)


def _supervise(
    settings_path: Path,
    command: Command,
    run_folder: Path,
    first: subprocess.Popen[bytes],
    held: ExitStack,
    early: EndsAtOnce,
) -> int:
    # Late: the first worker loads its libraries at the same time. First only what lets it begin.
    from penstock.engine.clock import SystemClock
    from penstock.engine.settings.model import load_settings
    from penstock.engine.settings.unencrypted import unencrypted_secrets
    from penstock.engine.worker.model_copy import copy_model
    from penstock.engine.worker.startup.startup import Startup, walk
    from penstock.engine.worker.startup.supervisor import supervisor_steps

    settings = load_settings(settings_path)
    walk(Startup(settings=settings, clock=SystemClock()), supervisor_steps, "supervisor")
    copy = copy_model(settings.model.path, run_folder)
    held.callback(give_time_to_drain, first)
    let_begin(first)
    for sentence in unencrypted_secrets(settings):
        logger.warning("%s", sentence, extra=LogCode.SECRET_UNENCRYPTED.extra)
    if copy is None:
        logger.warning(
            "no room for a copy of the model in %s: a change of its folder would end the workers",
            run_folder,
            extra=LogCode.MODEL_NOT_COPIED.extra,
        )
    else:
        logger.info("model digest %s, for all workers", copy.digest, extra=LogCode.MODEL_COPIED.extra)

    from prometheus_client import CollectorRegistry

    from penstock.engine.pages.supervisor import Acts, supervisor_pages
    from penstock.engine.telemetry.http_server import HttpServer
    from penstock.engine.telemetry.port_routes import SupervisorView
    from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
    from penstock.engine.worker.supervisor import Supervisor
    from penstock.engine.worker.trial.start import started_trials

    metrics = SupervisorMetrics(CollectorRegistry())

    def say(text: str) -> None:
        logger.warning("%s", text, extra=LogCode.SUPERVISOR.extra)
        pages.watch.note("worker", text)

    supervisor = Supervisor(
        command,
        workers=settings.workers,
        run_folder=run_folder,
        drain_budget_s=settings.kafka.drain_budget_s,
        warmup_s_max=settings.model.warmup_s_max,
        clock=SystemClock(),
        say=say,
        ahead=first,
    )
    for number in stop_signals():
        signal.signal(number, supervisor.request_stop)
    if early.heard:
        supervisor.request_stop()
    collector_again()
    write_stacks_on_signal(then=lambda: supervisor.pass_on(signal.SIGUSR1))
    view = SupervisorView(metrics=metrics, ports=lambda: _ports(supervisor, run_folder))
    trials = held.enter_context(
        started_trials(
            settings_path, settings, run_folder, command.arguments[1:], runtime=lambda: _runtime(pages)
        )
    )
    pages = held.enter_context(
        supervisor_pages(
            page_facts(settings),
            ports=lambda: _ports(supervisor, run_folder),
            hosts=settings.http.hosts,
            clock=SystemClock(),
            acts=Acts(trials=trials, guarded=settings.admin is not None),
        )
    )
    server = HttpServer(
        view.routes(), host=settings.http.host, port=settings.http.port, reader=pages.reader, posts=True
    )
    server.start()
    logger.info(
        "pages, metrics and health on http://%s:%d",
        settings.http.host,
        server.port,
        extra=LogCode.PORT_OPEN.extra,
    )
    counted = dropped = lines_held = 0
    if settings.admin is not None:
        held.enter_context(_admin(settings, settings.admin, supervisor, metrics, run_folder, copy, pages))

    def count() -> None:
        nonlocal counted, dropped, lines_held
        trials.turn()
        metrics.worker_restarts.inc(supervisor.restarts - counted)
        counted = supervisor.restarts
        metrics.dropped_connections.inc(server.dropped - dropped)
        dropped = server.dropped
        metrics.log_lines_held.inc(lines_held_back() - lines_held)
        lines_held = lines_held_back()

    try:
        code = supervisor.run(each_turn=count)
        if code == exit_fenced:
            metrics.fenced.set(1)
            logger.error(
                "fenced: ending in %.0f s, so that a scrape of the metrics still shows why",
                fenced_shown_s,
                extra=LogCode.FENCED.extra,
            )
            supervisor.stay(fenced_shown_s)
        return code
    finally:
        server.close()


def page_facts(settings: "Settings") -> "Facts":
    """What the pages say of the settings."""
    from penstock.engine.pages.watch import Facts

    return Facts(
        group=settings.kafka.group,
        topic=settings.input.topic,
        objective_ms=settings.objective.latency_slo_ms,
        max_age_s=settings.scaling.max_age_s,
        workers=settings.workers,
        predictions=settings.output.predictions,
        explanations=settings.output.explanations,
        dead_letters=settings.output.dead_letters,
    )


@contextmanager
def _admin(
    settings: "Settings",
    admin: "AdminSettings",
    supervisor: "Supervisor",
    metrics: "SupervisorMetrics",
    run_folder: Path,
    copy: "ModelCopy | None",
    pages: "SupervisorPages",
) -> Iterator[None]:
    """The port that acts, with its audit on Kafka."""
    # Late: without the section nothing of this is loaded.
    from dataclasses import replace

    from penstock.connectors.kafka.audit import KafkaAuditWriter
    from penstock.engine.clock import SystemClock
    from penstock.engine.settings.worker_names import worker_name
    from penstock.engine.worker.admin.actions import Told
    from penstock.engine.worker.admin.port import admin_port
    from penstock.engine.worker.admin.replays import Replays
    from penstock.engine.worker.kafka import client_config
    from penstock.engine.worker.letters.replaying import proven_replaying

    name = worker_name(settings.kafka.group, 0).removesuffix("-0")
    config = replace(
        client_config(settings.kafka), properties={"client.id": f"{name}-audit", **settings.kafka.client}
    )
    told = Told(
        workers=supervisor,
        count=settings.workers,
        run_folder=run_folder,
        model_digest=copy.digest if copy else "",
        set_log_level=set_log_level,
        replays=Replays(proven_replaying(settings), clock=SystemClock()),
        trying=pages.trying,
    )
    with admin_port(
        admin,
        told,
        KafkaAuditWriter(config, admin.audit_topic),
        instance=name,
        clock=SystemClock(),
        count=lambda event: metrics.audit_events.labels(event=event).inc(),
        let_in=pages.acting.let_in,
    ) as server:
        scheme = "https" if admin.certificate_file else "http"
        logger.info(
            "admin on %s://%s:%d/api/v1/state", scheme, admin.host, server.port, extra=LogCode.PORT_OPEN.extra
        )
        yield


def _runtime(pages: "SupervisorPages") -> str:
    """What runs the model in the workers, so that a trial gives the same bits; auto while that is not known."""
    known = [each["status"]["model"] for each in pages.watch.picture().told.values()]
    return next((str(each["runtime"]) for each in known if each), "auto")


def _ports(supervisor: "Supervisor", run_folder: Path) -> dict[str, int]:
    """The loopback port of each worker that runs; 0 for one that does not serve yet."""
    ports = {}
    for slot in supervisor.pids():
        try:
            ports[str(slot)] = int((run_folder / f"http-{slot}").read_text())
        except (FileNotFoundError, ValueError):
            ports[str(slot)] = 0  # it has not come so far: not ready, and asked for all the same
    return ports
