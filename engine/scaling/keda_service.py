"""KEDA's external-push service: answers from a snapshot in memory, so that no call ever waits for a broker."""

import math
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError

from penstock.engine.clock import Clock
from penstock.engine.scaling.steadier import Plan
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.externalscaler import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)

metric_name = "penstock-required-replicas"
"""Lands in a URL path on KEDA's side: letters, digits and dashes."""

streams_max = 16
_threads = streams_max + 8  # a stream keeps its thread, and streams must never starve the calls
_request_bytes_max = 65_536
_stop_grace_s = 2.0
keepalive_s: Final = 20.0
"""A peer that has said nothing for so long is asked, and given up when it does not answer for as long again: a dead one
would hold one of the `streams_max` streams for ever."""

Request = TypeVar("Request", ScaledObjectRef, GetMetricsRequest)


class Published:
    """The newest plan, for whoever asks. Thread-safe.

    Promises: a plan older than `age_max_s` is not given out, since an old number is worse than none (KEDA then holds);
    those who wait for a change are woken by every change of activity and by the end.
    """

    def __init__(self, *, clock: Clock, age_max_s: float) -> None:
        self._clock = clock
        self._age_max_s = age_max_s
        self._changed = threading.Condition()
        self._plan: Plan | None = None
        self._at_s = 0.0
        self._version = 0
        self._closed = False

    def publish(self, plan: Plan) -> None:
        """This plan is true now."""
        with self._changed:
            was_active = self._plan is not None and self._plan.active
            self._plan, self._at_s = plan, self._clock.monotonic_s()
            if plan.active != was_active or self._version == 0:
                self._version += 1
                self._changed.notify_all()

    def current(self) -> Plan:
        """Raises UnavailableError when there is none that can be trusted."""
        with self._changed:
            if self._plan is None:
                raise UnavailableError("the offsets have not been read yet")
            age_s = self._clock.monotonic_s() - self._at_s
            if age_s > self._age_max_s:
                raise UnavailableError(f"the offsets were last read {age_s:.0f} s ago")
            return self._plan

    @property
    def age_s(self) -> float:
        """Age of the newest plan; infinite when there is none."""
        with self._changed:
            return math.inf if self._plan is None else self._clock.monotonic_s() - self._at_s

    def close(self) -> None:
        """Streams end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Those who wait look again (a client went away)."""
        with self._changed:
            self._changed.notify_all()

    def activity(self, wanted: "threading.Event") -> Iterator[bool]:
        """Whether there is work: now, and again at every change, until closed or `wanted` is cleared."""
        seen = 0
        while True:
            with self._changed:
                while not self._closed and wanted.is_set() and self._version == seen:
                    self._changed.wait()
                if self._closed or not wanted.is_set() or self._plan is None:
                    return
                seen, active = self._version, self._plan.active
            yield active


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files of the service; with `client_ca`, clients must show a certificate it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class KedaService:
    """The gRPC server.

    The target is the constant 1 and the value is the number of replicas: KEDA rebuilds its autoscaler's target only now and
    then, so whatever moves must be in the value.
    """

    def __init__(
        self,
        published: Published,
        *,
        group: str,
        host: str,
        port: int,
        tls: TlsFiles | None = None,
        keepalive_s: float = keepalive_s,
    ) -> None:
        """Binds at once; port 0 takes a free one. Raises ConfigError when the address or the certificates cannot be had."""
        self._published = published
        self._group = group
        self._streams = threading.BoundedSemaphore(streams_max)
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=_threads, thread_name_prefix="keda"),
            handlers=(self._handlers(),),
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", _request_bytes_max),
                ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", int(keepalive_s * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.ping_timeout_ms", int(keepalive_s * 1000)),  # of the ping itself: else a minute
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_time_between_pings_ms", int(keepalive_s * 1000)),  # else five minutes
            ),
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = _credentials(tls) if tls else None
        try:
            self.port = int(
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise ConfigError(f"scaling: cannot listen on {host}:{port}") from error

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def close(self) -> None:
        """End the streams with OK first: KEDA resets its back-off on a clean end only, and would else be blind for a minute."""
        self._published.close()
        self._server.stop(_stop_grace_s).wait()

    def _handlers(self) -> Any:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        taken_as_bytes = None  # what gRPC cannot parse it logs with a traceback; _parsed answers instead
        return grpc.method_handlers_generic_handler(
            "externalscaler.ExternalScaler",
            {
                "IsActive": unary(self._is_active, taken_as_bytes, IsActiveResponse.SerializeToString),
                "StreamIsActive": stream(
                    self._stream_is_active, taken_as_bytes, IsActiveResponse.SerializeToString
                ),
                "GetMetricSpec": unary(
                    self._metric_spec, taken_as_bytes, GetMetricSpecResponse.SerializeToString
                ),
                "GetMetrics": unary(self._metrics, taken_as_bytes, GetMetricsResponse.SerializeToString),
            },
        )

    def _is_active(self, request: bytes, context: Any) -> IsActiveResponse:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        return IsActiveResponse(result=self._plan(context).active)

    def _stream_is_active(self, request: bytes, context: Any) -> Iterator[IsActiveResponse]:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{streams_max} streams are open already")
        try:
            wanted = threading.Event()
            wanted.set()

            def gone() -> None:
                wanted.clear()
                self._published.wake()

            if not context.add_callback(gone):
                return
            for active in self._published.activity(wanted):
                yield IsActiveResponse(result=active)
        finally:
            self._streams.release()

    def _metric_spec(self, request: bytes, context: Any) -> GetMetricSpecResponse:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        spec = MetricSpec(metricName=metric_name, targetSize=1, targetSizeFloat=1.0)
        return GetMetricSpecResponse(metricSpecs=[spec])

    def _metrics(self, request: bytes, context: Any) -> GetMetricsResponse:
        asked = _parsed(GetMetricsRequest, request, context)
        self._check(asked.scaledObjectRef, context)
        if asked.metricName != metric_name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"the only metric is {metric_name}")
        replicas = self._plan(context).published
        value = MetricValue(metricName=metric_name, metricValue=replicas, metricValueFloat=float(replicas))
        return GetMetricsResponse(metricValues=[value])

    def _plan(self, context: Any) -> Plan:
        try:
            return self._published.current()
        except UnavailableError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    def _check(self, ref: ScaledObjectRef, context: Any) -> None:
        """A ScaledObject that names another group is pointed at the wrong scaler."""
        group = ref.scalerMetadata.get("group", self._group)
        if group != self._group:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this scaler serves another group than {group}")


class _Context(Protocol):
    """What is needed of a call's context."""

    def abort(self, code: grpc.StatusCode, details: str) -> Any:
        """Ends the call by raising."""


def _parsed(kind: type[Request], data: bytes, context: _Context) -> Request:
    try:
        message: Request = kind.FromString(data)
        return message
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this is not a {kind.DESCRIPTOR.name}")
        raise


def require_tls_files(tls: TlsFiles) -> None:
    """Raises ConfigError naming the setting whose file cannot be used; gRPC itself says only that it cannot listen."""
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, file in (
        ("certificate_file", tls.certificate),
        ("key_file", tls.key),
        ("client_ca_file", tls.client_ca),
    ):
        try:
            text = file.read_text(encoding="ascii") if file is not None else ""
        except OSError as error:
            raise ConfigError(f"scaling.{name}: cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError:
            text = "not PEM"
        if file is not None and "-----BEGIN " not in text:
            raise ConfigError(f"scaling.{name}: {file} is not in PEM form")
        if name == "key_file" and "ENCRYPTED" in text:
            raise ConfigError(f"scaling.key_file: {file} has a password, and there is no setting for one")
    try:
        trusted.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        raise ConfigError(
            f"scaling.key_file: {tls.key} is not the key of the certificate in {tls.certificate}"
            if mismatch
            else f"scaling.certificate_file: {tls.certificate} and {tls.key} hold no certificate with its key"
        ) from error
    if tls.client_ca is not None:
        try:
            trusted.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"scaling.client_ca_file: {tls.client_ca} holds no certificate") from error


def _credentials(tls: TlsFiles) -> Any:
    require_tls_files(tls)
    client_ca = tls.client_ca.read_bytes() if tls.client_ca else None
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )
