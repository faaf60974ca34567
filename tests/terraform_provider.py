"""A Terraform provider that makes nothing: plans are checked against the schemas of the resources that the modules use.

Terraform's plugin protocol 5 over gRPC, as far as `validate` and `plan` speak it. Messages are put together by hand from the few
fields that matter; the attributes are those of Mongey/kafka 0.13 and hashicorp/helm 2 and 3 that the modules set.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

_required, _optional, _computed = 4, 5, 6  # fields of Schema.Attribute
resources: Mapping[str, Mapping[str, tuple[Any, int]]] = {
    "kafka_topic": {
        "name": ("string", _required), "partitions": ("number", _required), "replication_factor": ("number", _required),
        "config": (["map", "string"], _optional), "id": ("string", _computed),
    },
    "kafka_acl": {
        "resource_name": ("string", _required), "resource_type": ("string", _required),
        "resource_pattern_type_filter": ("string", _optional), "acl_principal": ("string", _required),
        "acl_host": ("string", _required), "acl_operation": ("string", _required),
        "acl_permission_type": ("string", _required), "id": ("string", _computed),
    },
    "helm_release": {
        "name": ("string", _required), "namespace": ("string", _optional), "chart": ("string", _required),
        "values": (["list", "string"], _optional), "wait": ("bool", _optional), "timeout": ("number", _optional),
        "id": ("string", _computed),
    },
}  # fmt: skip


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _true(number: int) -> bytes:
    return _varint(number << 3) + b"\x01"


def _field(message: bytes, wanted: int) -> bytes:
    """The last value of a field of bytes; empty where there is none."""
    found, at = b"", 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(message):
        tag = number()
        if tag & 7 == 0:
            number()
            continue
        assert tag & 7 == 2, "no other wire type is in what is read here"
        size = number()
        if tag >> 3 == wanted:
            found = message[at : at + size]
        at += size
    return found


def _schema(attributes: Mapping[str, tuple[Any, int]]) -> bytes:
    block = b"".join(
        _bytes(2, _bytes(1, name.encode()) + _bytes(2, json.dumps(kind).encode()) + _true(use))
        for name, (kind, use) in attributes.items()
    )
    return _bytes(2, block)


def _schemas() -> bytes:
    return _bytes(1, _schema({})) + b"".join(
        _bytes(2, _bytes(1, name.encode()) + _bytes(2, _schema(attributes)))
        for name, attributes in resources.items()
    )


def _answer(method: str, request: bytes) -> bytes | None:
    if method == "GetSchema":
        return _schemas()
    if method == "PrepareProviderConfig":
        return _bytes(1, _field(request, 1))
    if method == "PlanResourceChange":
        return _bytes(1, _field(request, 3))  # as proposed
    if method in ("ValidateResourceTypeConfig", "Configure"):
        return b""
    if method == "Stop":
        return b""
    return None


class _Service(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = handler_call_details.method.strip("/").partition("/")
        if service != "tfplugin5.Provider" or _answer(method, b"") is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, _: _answer(method, request))


@contextmanager
def provider(*sources: str) -> Iterator[dict[str, str]]:
    """The environment in which Terraform takes the providers with these sources from here."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Service()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    reached = {
        "Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True,
        "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
    }  # fmt: skip
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps(dict.fromkeys(sources, reached))}
    finally:
        server.stop(None).wait(5)
