"""Traces of a worker, put together from its settings; what they need is loaded only where there are some."""

import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING

from penstock.engine.clock import Clock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.settings.model import Settings
from penstock.engine.settings.tracing import TracingSettings
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.tracing.keeping import Take, Tracing
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.telemetry.tracing.sender import TraceSender

_modules = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def require_tracing(settings: TracingSettings) -> str:
    """What `penstock check` says of the section. The collector is not asked: traces are worth no failed start. Raises ConfigError."""
    if not _installed():
        raise ConfigError(
            f"tracing: the packages that send traces are not installed: {how_to_install('traces')}"
        )
    token(settings)
    if settings.ca_file is not None:
        try:
            ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:  # SSLError is one
            raise ConfigError(
                f"tracing.ca_file: {settings.ca_file} holds no PEM certificates that can be read"
            ) from error
    some = f"one batch in {settings.one_in}, " if settings.one_in else ""
    return f"{some}slow ones and ones with rejected records go to {settings.endpoint}"


def token(settings: TracingSettings) -> str | None:
    """Of `tracing.token_file`. Raises ConfigError, which quotes nothing of it."""
    from penstock.engine.worker.kafka import (
        secret,
    )  # late: it opens workers, which are put together with this

    try:
        text = secret(None, settings.token_file)
    except ConfigError as error:
        raise ConfigError(f"tracing.token_file: {error}") from error
    if text is not None and not (text.isascii() and text.isprintable()):
        raise ConfigError(
            f"tracing.token_file: the token in {settings.token_file} has to be one line of printable ASCII"
        )
    return text


def open_traces(settings: Settings, metrics: Metrics, *, name: str, bundle: Bundle) -> "TraceSender | None":
    """What sends traces on a thread of its own, to be closed; None without the section. Raises ConfigError."""
    asked = settings.tracing
    if asked is None:
        return None
    from penstock.engine.telemetry.tracing.sender import TraceSender

    return TraceSender(
        endpoint=asked.endpoint,
        timeout_s=asked.timeout_s,
        token=token(asked),
        ca_file=asked.ca_file,
        resource={
            "service.instance.id": name,
            "penstock.model.name": bundle.name,
            "penstock.model.version": bundle.version,
            "penstock.model.digest": bundle.digest,
            "messaging.consumer.group.name": settings.kafka.group,
        },
        count=lambda outcome, batches: metrics.traced_batches.labels(outcome=outcome).inc(batches),
    )


def choosing(settings: Settings, *, clock: Clock, take: Take) -> Tracing | None:
    """Chooses batches as the section says; None without it."""
    asked = settings.tracing
    if asked is None:
        return None
    slow_ms = settings.objective.latency_slo_ms if asked.slow_ms is None else asked.slow_ms
    return Tracing(one_in=asked.one_in, slow_s=slow_ms / 1000, clock=clock, take=take)


def _installed() -> bool:
    try:
        return all(find_spec(module) is not None for module in _modules)
    except ModuleNotFoundError:
        return False
