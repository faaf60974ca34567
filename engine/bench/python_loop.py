"""The rival in `penstock bench pipeline`: the exactly-once loop that a good engineer writes by hand in Python.

confluent-kafka, fastavro, numpy and ONNX Runtime, batches of 1,024, a transaction a batch, with the client settings that make
transactions fast. It handles no rebalance, no bad record and no abort, which real code has to.
"""

import io
import json
import sys
from typing import Any

import confluent_kafka
import fastavro
import numpy as np
import onnxruntime as ort

from engine.codec.contracts import contract

batch_rows = 1024


def main() -> None:
    """Run until killed; the one argument is JSON: servers, topics, model and schema."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    reader_schema = fastavro.parse_schema(given["schema"])
    writer_schema = fastavro.parse_schema(contract("prediction"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(given["model"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    servers = {"bootstrap.servers": given["servers"]}
    consumer = confluent_kafka.Consumer(
        {**servers, "group.id": given["group"], "auto.offset.reset": "earliest", "enable.auto.commit": False, "isolation.level": "read_committed"}
    )  # fmt: skip
    producer = confluent_kafka.Producer(
        {
            **servers,
            "transactional.id": given["group"],
            "retry.backoff.ms": 1,
            "retry.backoff.max.ms": 10,
            "linger.ms": 5,
        }
    )
    producer.init_transactions(60)
    consumer.subscribe([given["input"]])
    model = {"name": "bench", "version": "1", "digest": "f" * 64}
    while True:
        messages: list[Any] = [
            message for message in consumer.consume(batch_rows, 0.1) if message.error() is None
        ]
        if not messages:
            continue
        records: list[Any] = [
            fastavro.schemaless_reader(io.BytesIO(message.value()[10:]), reader_schema, None)
            for message in messages
        ]
        X = np.array([[*record.values()] for record in records], dtype=np.float32)
        found = session.run(None, {name: X})
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for message, score in zip(messages, found[-1].reshape(len(X), -1).tolist(), strict=True):
            out = io.BytesIO()
            place = {"cluster": "bench", "topic": given["input"], "partition": message.partition(), "offset": message.offset(), "timestamp_ms": message.timestamp()[1]}  # fmt: skip
            fastavro.schemaless_writer(
                out,
                writer_schema,
                {
                    "source": place,
                    "model": model,
                    "outputs": {"value": score},
                    "label": None,
                    "predicted_at_ms": 0,
                },
            )
            producer.produce(
                given["output"], out.getvalue(), key=message.key(), partition=message.partition()
            )
            producer.poll(0)
            ends[message.partition()] = message.offset() + 1
        offsets = [confluent_kafka.TopicPartition(given["input"], p, offset) for p, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()


if __name__ == "__main__":
    main()
