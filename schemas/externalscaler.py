"""The messages of externalscaler.proto, KEDA's contract, made by the protobuf runtime that is installed.

Generated code works only with the major version of protobuf that it was generated for and the next one; a descriptor
works with all of them. A test compares this one with what protoc makes of the file. The pool is our own: another
library in the process may have registered the same contract.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_types = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
_messages = {
    "ScaledObjectRef": ["string name", "string namespace", "map scalerMetadata"],
    "IsActiveResponse": ["bool result"],
    "GetMetricSpecResponse": ["repeated MetricSpec metricSpecs"],
    "MetricSpec": ["string metricName", "int64 targetSize", "double targetSizeFloat"],
    "GetMetricsRequest": ["ScaledObjectRef scaledObjectRef", "string metricName"],
    "GetMetricsResponse": ["repeated MetricValue metricValues"],
    "MetricValue": ["string metricName", "int64 metricValue", "double metricValueFloat"],
}
"""Fields in order of their numbers, from 1; `map` is map<string, string>."""


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The messages of externalscaler.proto, without its service."""
    file = descriptor_pb2.FileDescriptorProto(
        name="externalscaler.proto", package="externalscaler", syntax="proto3"
    )
    for name, fields in _messages.items():
        message = file.message_type.add(name=name)
        for number, declaration in enumerate(fields, start=1):
            _add_field(message, name, number, declaration)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, owner: str, number: int, declaration: str) -> None:
    *kinds, name = declaration.split()
    repeated = kinds[0] in ("repeated", "map")
    labels = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(
        name=name,
        number=number,
        json_name=name,
        label=labels.LABEL_REPEATED if repeated else labels.LABEL_OPTIONAL,
    )
    if kinds[0] == "map":
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        for place, member in enumerate(("key", "value"), start=1):
            _add_field(entry, owner, place, f"string {member}")
        field.type, field.type_name = labels.TYPE_MESSAGE, f".externalscaler.{owner}.{entry.name}"
    elif kinds[-1] in _types:
        field.type = _types[kinds[-1]]
    else:
        field.type, field.type_name = labels.TYPE_MESSAGE, f".externalscaler.{kinds[-1]}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(file_descriptor())
_made: dict[str, Any] = {
    name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"externalscaler.{name}"))
    for name in _messages
}

ScaledObjectRef = _made["ScaledObjectRef"]
IsActiveResponse = _made["IsActiveResponse"]
GetMetricSpecResponse = _made["GetMetricSpecResponse"]
MetricSpec = _made["MetricSpec"]
GetMetricsRequest = _made["GetMetricsRequest"]
GetMetricsResponse = _made["GetMetricsResponse"]
MetricValue = _made["MetricValue"]
