"""KEDA's external-push service: answers from a snapshot in memory, so that no call ever waits for a broker."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError

from penstock.engine.clock import Clock
from penstock.engine.scaling.health import health_handlers
from penstock.engine.scaling.steadier import Plan
from penstock.engine.scaling.tls import credentials
from penstock.engine.settings.tls_files import TlsFiles
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

    def once(self, wanted: "threading.Event") -> Iterator[None]:
        """Once now, and the end when closed or `wanted` is cleared."""
        yield None
        with self._changed:
            while not self._closed and wanted.is_set():
                self._changed.wait()


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
            handlers=(self._handlers(), health_handlers(self._serves)),
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
        secured = credentials(tls) if tls else None
        try:
            self.port = int(
                self._server.add_secure_port(address, secured)
                if secured
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
                "StreamMetricSpec": stream(
                    self._stream_metric_spec, taken_as_bytes, GetMetricSpecResponse.SerializeToString
                ),
            },
        )

    def _is_active(self, request: bytes, context: Any) -> IsActiveResponse:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        return IsActiveResponse(result=self._plan(context).active)

    def _stream_is_active(self, request: bytes, context: Any) -> Iterator[IsActiveResponse]:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        for active in self._streamed(self._published.activity, context):
            yield IsActiveResponse(result=active)

    def _stream_metric_spec(self, request: bytes, context: Any) -> Iterator[GetMetricSpecResponse]:
        """KEDA 2.21: the spec as it is now, and again at a change, which never comes."""
        self._check(_parsed(ScaledObjectRef, request, context), context)
        for _ in self._streamed(self._published.once, context):
            yield _spec()

    def _streamed(self, told: "Callable[[threading.Event], Iterator[Any]]", context: Any) -> Iterator[Any]:
        """What is told, until the client goes away or the service ends."""
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{streams_max} streams are open already")
        try:
            wanted = threading.Event()
            wanted.set()

            def gone() -> None:
                wanted.clear()
                self._published.wake()

            if context.add_callback(gone):
                yield from told(wanted)
        finally:
            self._streams.release()

    def _metric_spec(self, request: bytes, context: Any) -> GetMetricSpecResponse:
        self._check(_parsed(ScaledObjectRef, request, context), context)
        return _spec()

    def _serves(self) -> bool:
        try:
            self._published.current()
        except UnavailableError:
            return False
        return True

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


def _spec() -> GetMetricSpecResponse:
    spec = MetricSpec(metricName=metric_name, targetSize=1, targetSizeFloat=1.0)
    return GetMetricSpecResponse(metricSpecs=[spec])


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
