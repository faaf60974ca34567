"""A Faust application as its documentation shows it: a codec, and an agent that takes events in batches."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import faust
import numpy as np
import onnxruntime as ort
from faust.serializers import codecs

header_bytes = 10  # Avro's single-object encoding
batch_rows = 1024


class EventCodec(codecs.Codec):
    """Avro, without a registry."""

    def __init__(self, schema: Any = None, **options: Any) -> None:
        super().__init__(schema=schema, **options)
        self._schema = schema

    def _loads(self, value: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(value[header_bytes:]), self._schema, None)


def main() -> None:
    """Run until SIGTERM; the one argument is the bench's file of JSON."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(given["model"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    schema = json.loads(Path(given["events"]).read_text(encoding="utf-8"))
    codecs.register("event", EventCodec(fastavro.parse_schema(schema)))

    application = faust.App(
        given["group"],
        broker=f"kafka://{given['servers']}",
        datadir=given["state"],
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    events = application.topic(given["input"], key_type=bytes, value_serializer="event")
    predictions = application.topic(given["output"], key_type=bytes, value_serializer="json")

    @application.agent(events)
    async def score(stream: Any) -> None:
        async for taken in stream.take_events(batch_rows, within=0.05):
            rows = np.array([[*event.value.values()] for event in taken], dtype=np.float32)
            scores = session.run(None, {name: rows})[-1].reshape(-1).tolist()
            for event, each in zip(taken, scores, strict=True):
                await predictions.send(key=event.key, value={"score": each})

    faust.Worker(application, loglevel="warn").execute_from_commandline()


if __name__ == "__main__":
    main()
