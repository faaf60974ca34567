"""What the pages are told of a worker's model and records, put together from its settings."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import load_schema
from penstock.engine.codec.decode import writer_finder
from penstock.engine.codec.framing import confluent_header_bytes, header_bytes
from penstock.engine.codec.part_read import JsonPart, PartRead
from penstock.engine.codec.passed_fields import json_objects
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.loader import ServedModel
from penstock.engine.pages.worker.answers import WorkerAnswers
from penstock.engine.pages.worker.background import BackgroundStrengths
from penstock.engine.pages.worker.masking import Masks, sensitive_names
from penstock.engine.pages.worker.model_document import ModelDocument
from penstock.engine.pages.worker.record_document import ReadPart, RecordDocuments
from penstock.engine.pages.worker.view import WorkerView
from penstock.engine.settings.model import Settings

if TYPE_CHECKING:
    from penstock.engine.codec.avro.part_read import AvroPart
    from penstock.engine.codec.avro.reference import ReferenceReader

readers_kept = 16
"""Writers' schemas whose readers are kept; with more, all are made anew."""


def show_worker(
    view: WorkerView,
    answers: WorkerAnswers,
    settings: Settings,
    *,
    bundle: Bundle,
    model: ServedModel,
    name: str,
    schemas: Any,
    clock: Clock,
) -> None:
    """The model is loaded: from now on its records are shown. `schemas`: as make_worker has them."""
    documents, masks = record_documents(settings, bundle=bundle, name=name, schemas=schemas)
    answers.model = ModelDocument(bundle, model, masks=masks)
    answers.background = BackgroundStrengths(bundle, settings.explain, clock=clock)
    view.tells_with(documents)


def record_documents(
    settings: Settings, *, bundle: Bundle, name: str, schemas: Any
) -> tuple[RecordDocuments, Masks]:
    """What makes documents of records that this bundle scored, and what it masks in them."""
    path = settings.input.record_schema
    reader_schema = load_schema(path) if path else bundle.input_schema
    masks = Masks(
        (*settings.http.masked, *sensitive_names(reader_schema), *sensitive_names(bundle.input_schema))
    )
    read_input, read_part = (
        _read_json(settings)
        if settings.input.format == "json"
        else _read_avro(settings, reader_schema, schemas, masks)
    )
    documents = RecordDocuments(bundle, worker=name, masks=masks, read_input=read_input, read_part=read_part)
    return documents, masks


def _read_json(settings: Settings) -> tuple[Callable[[bytes], Any], ReadPart]:
    skip = confluent_header_bytes if settings.input.framing == "confluent" else 0
    return json_objects(skip=skip), JsonPart(skip=skip).read


def _read_avro(
    settings: Settings, reader_schema: Any, schemas: Any, masks: Masks
) -> tuple[Callable[[bytes], Any], ReadPart]:
    """Read a value once more, by its writer's schema alone, as a whole or as far as it goes, and mask what that marks besides."""
    find = writer_finder(settings, reader_schema, schemas)
    size = header_bytes[settings.framing]
    readers: dict[bytes, tuple[ReferenceReader, AvroPart]] = {}

    def reader_of(header: bytes) -> "tuple[ReferenceReader, AvroPart]":
        from penstock.engine.codec.avro.part_read import AvroPart  # late: not on the way to the first record
        from penstock.engine.codec.avro.reference import ReferenceReader

        reader = readers.get(header)
        if reader is None:
            writer = find(header)
            masks.add(sensitive_names(writer))
            if len(readers) >= readers_kept:
                readers.clear()
            reader = readers[header] = (
                ReferenceReader(writer, writer, skip=size),
                AvroPart(writer, skip=size),
            )
        return reader

    def read(value: bytes) -> Any:
        return reader_of(value[:size])[0].read(value)

    def read_part(value: bytes) -> PartRead | None:
        return reader_of(value[:size])[1].read(value)

    return read, read_part
