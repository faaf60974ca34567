"""A Quix Streams application as its documentation shows it: a deserializer, `apply` on each record, a topic at the end."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import onnxruntime as ort
from quixstreams import Application
from quixstreams.models import Deserializer

header_bytes = 10  # Avro's single-object encoding


class EventDeserializer(Deserializer):
    """Avro, without a registry."""

    def __init__(self, schema: dict[str, Any]) -> None:
        super().__init__()
        self._schema = fastavro.parse_schema(schema)

    def __call__(self, value: bytes, ctx: Any) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(value[header_bytes:]), self._schema, None)


def main() -> None:
    """Run until SIGTERM; the one argument is the bench's file of JSON."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(given["model"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def score(event: dict[str, float]) -> dict[str, float]:
        row = np.array([[*event.values()]], dtype=np.float32)
        return {"score": float(session.run(None, {name: row})[-1].reshape(-1)[0])}

    application = Application(
        broker_address=given["servers"],
        consumer_group=given["group"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once" if given["delivery"] == "exactly_once" else "at-least-once",
        auto_create_topics=False,
        state_dir=given["state"],
        loglevel="WARNING",
    )
    schema = json.loads(Path(given["events"]).read_text(encoding="utf-8"))
    events = application.topic(given["input"], value_deserializer=EventDeserializer(schema))
    predictions = application.topic(given["output"], value_serializer="json")
    application.dataframe(events).apply(score).to_topic(predictions)
    application.run()


if __name__ == "__main__":
    main()
