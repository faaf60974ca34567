"""Results of a bundle to payloads, in the format that the settings name."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.avro.encode import ExplanationEncoder, PredictionEncoder
from penstock.engine.codec.decode import SchemaStore, writer_finder
from penstock.engine.codec.framing import Schema, confluent_header_bytes, header_bytes
from penstock.engine.codec.json_encode import JsonExplanationEncoder, JsonPredictionEncoder
from penstock.engine.codec.passed_fields import PassedFields, avro_objects, json_objects, to_avro, to_json
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.pipeline.scorer import EncodeExplanations, EncodePredictions
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.settings.model import Settings
from penstock.schemas.records import Records


def prediction_encoder(settings: Settings, cluster: str, bundle: Bundle, prefix: bytes) -> EncodePredictions:
    """`prefix` is the framing; JSON has none."""
    names = tuple(output.name for output in bundle.outputs)
    common = _common(settings, cluster, bundle) | {"output_names": names, "classes": bundle.classes}
    as_json = settings.output.format == "json"
    encoders: dict[
        str | None, PredictionEncoder | JsonPredictionEncoder
    ] = {}  # one, until the topic is made anew

    def encode(source: Records, predictions: Predictions, predicted_at_ms: int) -> list[bytes]:
        topic_id = source.topic_id
        if topic_id not in encoders:
            encoders[topic_id] = (
                JsonPredictionEncoder(topic_id=topic_id, **common)
                if as_json
                else PredictionEncoder(prefix=prefix, topic_id=topic_id, **common)
            )
        return encoders[topic_id].encode(
            source.partitions,
            source.offsets,
            source.timestamps_ms,
            [predictions.outputs[name] for name in names],
            predictions.labels,
            predicted_at_ms,
        )

    return encode


def explanation_encoder(
    settings: Settings, cluster: str, bundle: Bundle, prefix: bytes
) -> EncodeExplanations:
    """Likewise; a method, a background and a topic's id has an encoder of its own."""
    as_json = settings.output.format == "json"
    make: Callable[..., ExplanationEncoder | JsonExplanationEncoder] = (
        JsonExplanationEncoder if as_json else ExplanationEncoder
    )
    common = _common(settings, cluster, bundle) | {
        "columns": bundle.signature.columns,
        "tables": [feature.categories or None for feature in bundle.signature.column_features],
        "top": settings.explain.top,
        **({} if as_json else {"prefix": prefix}),
    }
    encoders: dict[tuple[str | None, ...], ExplanationEncoder | JsonExplanationEncoder] = {}

    def encode(source: Records, matrix: NDArray[np.generic], attributions: Attributions) -> list[bytes]:
        kind = (
            attributions.method,
            attributions.background,
            attributions.output_name,
            attributions.space,
            source.topic_id,
        )
        if kind not in encoders:
            encoders[kind] = make(
                **common,
                topic_id=source.topic_id,
                method=attributions.method,
                background=attributions.background,
                output_name=attributions.output_name,
                classes=_classes_of(bundle, attributions.output_name),
                space=attributions.space,
            )
        return encoders[kind].encode(
            source.partitions,
            source.offsets,
            source.timestamps_ms,
            matrix,
            attributions.values,
            attributions.base,
            attributions.output_index,
            attributions.additivity_error,
            attributions.sampling_error,
        )

    return encode


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


def _common(settings: Settings, cluster: str, bundle: Bundle) -> dict[str, Any]:
    return {
        "topic": settings.input.topic,
        "cluster": cluster,
        "model_name": bundle.name,
        "model_version": bundle.version,
        "model_digest": bundle.digest,
    }


def _classes_of(bundle: Bundle, output_name: str) -> Sequence[str]:
    """What the numbers of an output are of, by their place; nothing where they are not one for each class."""
    width = next((output.width for output in bundle.outputs if output.name == output_name), 0)
    return bundle.classes if width == len(bundle.classes) else ()
