"""The messages of grpc/health/v1/health.proto, made by the protobuf runtime that is installed; see externalscaler.py."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_field = descriptor_pb2.FieldDescriptorProto
_file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
_file.message_type.add(name="HealthCheckRequest").field.add(
    name="service", number=1, type=_field.TYPE_STRING, label=_field.LABEL_OPTIONAL
)
# An enum of the same numbers on the wire: unknown 0, serving 1, not serving 2, service unknown 3.
_file.message_type.add(name="HealthCheckResponse").field.add(
    name="status", number=1, type=_field.TYPE_INT32, label=_field.LABEL_OPTIONAL
)
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file)


def _made(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"grpc.health.v1.{name}"))


HealthCheckRequest = _made("HealthCheckRequest")
HealthCheckResponse = _made("HealthCheckResponse")
