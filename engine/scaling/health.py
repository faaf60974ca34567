"""gRPC's own health service, for probes and load balancers: serving while there is a number that can be trusted."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from penstock.schemas.grpc_health import HealthCheckRequest, HealthCheckResponse

services = ("", "externalscaler.ExternalScaler")
serving, not_serving = 1, 2


def health_handlers(serves: Callable[[], bool]) -> Any:
    """Check of grpc.health.v1.Health; its Watch is left unimplemented, as the contract allows."""

    def check(request: bytes, context: Any) -> HealthCheckResponse:
        try:
            service = HealthCheckRequest.FromString(request).service
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is not a HealthCheckRequest")
            raise
        if service not in services:
            context.abort(grpc.StatusCode.NOT_FOUND, f"the services are {' and '.join(map(repr, services))}")
        return HealthCheckResponse(status=serving if serves() else not_serving)

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {"Check": grpc.unary_unary_rpc_method_handler(check, None, HealthCheckResponse.SerializeToString)},
    )
