"""Results of a bundle to payloads, in the format that the settings name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.engine.codec.avro.encode import ExplanationEncoder, PredictionEncoder
from penstock.engine.codec.decode import SchemaStore, writer_finder
from penstock.engine.codec.framing import Schema, confluent_header_bytes, header_bytes
from penstock.engine.codec.json_encode import JsonExplanationEncoder, JsonPredictionEncoder
from penstock.engine.codec.lineage import Lineage
from penstock.engine.codec.passed_fields import PassedFields, avro_objects, json_objects, to_avro, to_json
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pipeline.scorer import EncodeExplanations, EncodePredictions
from penstock.engine.settings.model import Settings


def prediction_encoder(settings: Settings, cluster: str, bundle: Bundle, prefix: bytes) -> EncodePredictions:
    """`prefix` is the framing; JSON has none."""
    lineage = _lineage(settings, cluster, bundle)
    names = tuple(output.name for output in bundle.outputs)
    if settings.output.format == "json":
        return JsonPredictionEncoder(lineage=lineage, output_names=names, classes=bundle.classes).encode
    return PredictionEncoder(
        prefix=prefix, lineage=lineage, output_names=names, classes=bundle.classes
    ).encode


def explanation_encoder(
    settings: Settings, cluster: str, bundle: Bundle, prefix: bytes
) -> EncodeExplanations:
    """Likewise."""
    lineage = _lineage(settings, cluster, bundle)
    columns, top = bundle.signature.columns, settings.explain.top
    tables = [feature.categories or None for feature in bundle.signature.column_features]
    classes = _classes(bundle)
    if settings.output.format == "json":
        return JsonExplanationEncoder(
            lineage=lineage, columns=columns, tables=tables, classes=classes, top=top
        ).encode
    return ExplanationEncoder(
        prefix=prefix, lineage=lineage, columns=columns, tables=tables, classes=classes, top=top
    ).encode


def passed_fields(
    settings: Settings, reader_schema: Schema | None, schemas: SchemaStore | None
) -> PassedFields | None:
    """What `output.pass_fields` asks for; None where it asks for nothing."""
    names = settings.output.pass_fields
    if not names:
        return None
    if settings.input.format == "json":
        framed = settings.input.framing == "confluent"
        objects: Callable[[bytes], Any] = json_objects(skip=confluent_header_bytes if framed else 0)
    else:
        find = writer_finder(settings, reader_schema, schemas)
        objects = avro_objects(find, skip=header_bytes[settings.framing])
    return PassedFields(names, objects=objects, add=to_json if settings.output.format == "json" else to_avro)


def _lineage(settings: Settings, cluster: str, bundle: Bundle) -> Lineage:
    return Lineage(
        cluster=cluster,
        topic=settings.input.topic,
        model_name=bundle.name,
        model_version=bundle.version,
        model_digest=bundle.digest,
    )


def _classes(bundle: Bundle) -> Mapping[str, Sequence[str]]:
    """What the numbers of each output are of, by their place; no entry where they are not one for each class."""
    return {output.name: bundle.classes for output in bundle.outputs if output.width == len(bundle.classes)}
