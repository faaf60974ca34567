"""The stand-in for KEDA: asks a scaler over gRPC as its external-push trigger does, wakes from zero and stops what has nothing to do."""

import threading
from dataclasses import dataclass
from typing import Any, Final

import grpc

from penstock.engine.clock import Clock
from penstock.schemas.externalscaler import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    ScaledObjectRef,
)

call_timeout_s: Final = 3.0
"""As long as KEDA's adapter gives its own call."""
retry_s: Final = 2.0
_service: Final = "/externalscaler.ExternalScaler/"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """As the chart's ScaledObject has it. `polling_s`: between two questions; `cooldown_s`: without work before all are stopped."""

    polling_s: float
    cooldown_s: float
    min_replicas: int = 0


class Keda:
    """Used by one thread, with one of its own for the stream."""

    def __init__(self, address: str, spec: Spec, *, clock: Clock) -> None:
        self._spec, self._clock = spec, clock
        self._channel = grpc.insecure_channel(address)
        self._name = ScaledObjectRef(name="worker", namespace="replay", scalerMetadata={"group": "replay"})
        self._active_s = -1e9
        self._polled_s = -1e9
        self._pushed = threading.Event()
        self._closed = threading.Event()
        self.unanswered = 0
        self.pushed_s: list[float] = []  # since 1970
        self._stream: Any = None
        self._listener = threading.Thread(target=self._listen, name="push", daemon=True)
        self._listener.start()

    def turn(self, replicas: int) -> int:
        """From none to one and from any to none; else the same number."""
        now_s, least = self._clock.monotonic_s(), max(self._spec.min_replicas, 1)
        if self._pushed.is_set():
            self._pushed.clear()
            self._active_s = now_s
            if replicas == 0:
                return least
        if now_s - self._polled_s < self._spec.polling_s:
            return replicas
        self._polled_s = now_s
        active = self._call("IsActive", self._name, IsActiveResponse)
        if active is None:
            return replicas
        if active.result:
            self._active_s = now_s
            return replicas or least
        if replicas and not self._spec.min_replicas and now_s - self._active_s >= self._spec.cooldown_s:
            return 0
        return replicas

    def value(self) -> float:
        """The metric over its target; NaN without an answer, on which an autoscaler holds."""
        spec = self._call("GetMetricSpec", self._name, GetMetricSpecResponse)
        if spec is None or not spec.metricSpecs:
            return float("nan")
        name = spec.metricSpecs[0].metricName
        asked = GetMetricsRequest(scaledObjectRef=self._name, metricName=name)
        told = self._call("GetMetrics", asked, GetMetricsResponse)
        if told is None or not told.metricValues:
            return float("nan")
        return float(told.metricValues[0].metricValueFloat / (spec.metricSpecs[0].targetSizeFloat or 1.0))

    def close(self) -> None:
        """The stream ends."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()
        self._channel.close()
        self._listener.join()

    def _call(self, method: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            _service + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return call(request, timeout=call_timeout_s)
        except grpc.RpcError:
            self.unanswered += 1
            return None

    def _listen(self) -> None:
        while not self._closed.is_set():
            self._stream = self._channel.unary_stream(
                _service + "StreamIsActive",
                request_serializer=ScaledObjectRef.SerializeToString,
                response_deserializer=IsActiveResponse.FromString,
            )(self._name)
            try:
                for told in self._stream:
                    if told.result:
                        self.pushed_s.append(self._clock.wall_ms() / 1e3)
                        self._pushed.set()
            except (grpc.RpcError, ValueError):  # ValueError: the channel was closed
                self._closed.wait(retry_s)
