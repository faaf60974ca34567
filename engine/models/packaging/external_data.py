"""Weights of an ONNX model that lie in files beside it, taken into the model; none from anywhere else."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from penstock.schemas.errors import ConfigError

bytes_max = 1 << 30
_depth_max = 32


def with_external_data(data: bytes, folder: Path) -> bytes:
    """The model with its weights inside. Raises ConfigError for a file that is not a plain file in `folder` itself."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return data  # not a protobuf: the next reader of the file reports it
    tensors = [tensor for tensor in _tensors(model.graph, 0) if tensor.data_location == TensorProto.EXTERNAL]
    if not tensors:
        return data
    taken = len(data)
    for tensor in tensors:
        facts = {item.key: item.value for item in tensor.external_data}
        raw = _read(folder, facts, tensor.name)
        taken += len(raw)
        if taken > bytes_max:
            raise ConfigError(f"the model and the files beside it have more than {bytes_max} bytes")
        tensor.raw_data = raw
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return bytes(model.SerializeToString(deterministic=True))


def _tensors(graph: onnx.GraphProto, depth: int) -> Iterator[TensorProto]:
    if depth > _depth_max:
        raise ConfigError(f"the ONNX model nests graphs more than {_depth_max} deep")
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner, depth + 1)


def _read(folder: Path, facts: dict[str, str], tensor: str) -> bytes:
    location = facts.get("location", "")
    if not location or location in (".", "..") or "/" in location or "\\" in location or "\0" in location:
        raise ConfigError(
            f"tensor {tensor or '(unnamed)'} of the ONNX model lies in {location or 'no file'!r}: only files in the model's "
            "own folder are read"
        )
    try:
        start, length = int(facts.get("offset", "0")), int(facts.get("length", "-1"))
        descriptor = os.open(folder / location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise ConfigError(
            f"tensor {tensor} of the ONNX model does not say where in {location} it lies"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"tensor {tensor} of the ONNX model lies in {location}, which cannot be read: {error.strerror} (links are refused)"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        end = status.st_size if length < 0 else start + length
        if not stat.S_ISREG(status.st_mode) or not 0 <= start <= end <= status.st_size:
            raise ConfigError(f"tensor {tensor} of the ONNX model lies past the end of {location}")
        if end - start > bytes_max:
            raise ConfigError(f"the model and the files beside it have more than {bytes_max} bytes")
        file.seek(start)
        return file.read(end - start)
