"""The rival in Python: the loop that a good engineer writes by hand, with or without shap beside it.

confluent-kafka, fastavro, numpy and ONNX Runtime, batches of 1,024, a transaction a batch, with the client settings that make
transactions fast. It handles no rebalance, no bad record and no abort, which real code has to.
"""

import importlib
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka
import fastavro
import lightgbm
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from penstock.engine.codec.contracts import contract

batch_rows = 1024
header_bytes = 10
model_name = {"name": "bench", "version": "1", "digest": "f" * 64}


def main() -> None:
    """Run until killed; the one argument is a file of JSON: servers, group, topics, delivery, model and schemas."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    exactly_once = given["delivery"] == "exactly_once"
    schema = fastavro.parse_schema(json.loads(Path(given["events"]).read_text(encoding="utf-8")))
    predict = _predictor(given["model"])
    encode_prediction = _writer("prediction")
    explain = _explainer(given) if given["explanations"] else None
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": given["servers"], "group.id": given["group"], "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "isolation.level": "read_committed",
    })  # fmt: skip
    producer = _producer(given, exactly_once=exactly_once)
    consumer.subscribe([given["input"]])
    while True:
        messages = _consume(consumer)
        if not messages:
            continue
        records: list[Any] = [
            fastavro.schemaless_reader(io.BytesIO(message.value()[header_bytes:]), schema, None)
            for message in messages
        ]
        X = np.array([[*record.values()] for record in records], dtype=np.float32)
        scores = predict(X)
        places = [_place(message, given["input"]) for message in messages]
        outputs = [(given["output"], encode_prediction(_prediction(*each))) for each in zip(places, scores, strict=True)]  # fmt: skip
        if explain is not None:
            outputs += [(given["explanations"], value) for value in explain(X, scores, places)]
        if exactly_once:
            producer.begin_transaction()
        for index, (topic, value) in enumerate(outputs):
            message = messages[index % len(messages)]
            producer.produce(topic, value, key=message.key(), partition=message.partition())
            producer.poll(0)
        ends = {message.partition(): message.offset() + 1 for message in messages}
        offsets = [confluent_kafka.TopicPartition(given["input"], *end) for end in ends.items()]
        if exactly_once:
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
        else:
            producer.flush()
            consumer.commit(offsets=offsets, asynchronous=True)


def _consume(consumer: Any) -> list[Any]:
    """The first record as soon as it comes, and what else is there: waiting for a whole batch would be latency."""
    first = consumer.poll(0.1)
    if first is None:
        return []
    return [message for message in [first, *consumer.consume(batch_rows - 1, 0)] if message.error() is None]


def _producer(given: dict[str, Any], *, exactly_once: bool) -> Any:
    settings: dict[str, Any] = {"bootstrap.servers": given["servers"], "linger.ms": 5}
    if not exactly_once:
        return confluent_kafka.Producer({**settings, "enable.idempotence": True})
    transactional = {
        "transactional.id": given["group"],
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": 10,
    }
    producer = confluent_kafka.Producer({**settings, **transactional})
    producer.init_transactions(60)
    return producer


def _predictor(model: str) -> Callable[[NDArray[np.float32]], list[list[float]]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda X: session.run(None, {name: X})[-1].reshape(len(X), -1).tolist()


def _explainer(
    given: dict[str, Any],
) -> Callable[[NDArray[np.float32], list[list[float]], Sequence[Any]], list[bytes]]:
    """shap.TreeExplainer on the model that the bundle was made from; all attributions are sent."""
    explainer = importlib.import_module("shap").TreeExplainer(lightgbm.Booster(model_file=given["booster"]))
    base = float(np.ravel(explainer.expected_value)[0])
    encode = _writer("explanation")

    def explain(X: NDArray[np.float32], scores: list[list[float]], places: Sequence[Any]) -> list[bytes]:
        values = np.asarray(explainer.shap_values(X, check_additivity=False))
        errors = base + values.sum(axis=1) - np.ravel(scores)
        return [
            encode(_explanation(place, row.tolist(), why.tolist(), base, float(error)))
            for place, row, why, error in zip(places, X, values, errors, strict=True)
        ]

    return explain


def _writer(name: str) -> Callable[[dict[str, Any]], bytes]:
    schema = fastavro.parse_schema(contract(name))

    def write(value: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, value)
        return out.getvalue()

    return write


def _place(message: Any, topic: str) -> dict[str, Any]:
    return {
        "cluster": "bench",
        "topic": topic,
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp_ms": message.timestamp()[1],
    }


def _prediction(place: dict[str, Any], score: list[float]) -> dict[str, Any]:
    return {
        "source": place,
        "model": model_name,
        "outputs": {"value": score},
        "label": None,
        "predicted_at_ms": time.time_ns() // 1_000_000,
    }


def _explanation(
    place: dict[str, Any], row: list[float], why: list[float], base: float, error: float
) -> dict[str, Any]:
    return {
        "source": place,
        "model": model_name,
        "method": "tree_path_dependent",
        "output": {"name": "value", "index": 0},
        "space": "value",
        "base_value": base,
        "attributions": [
            {"feature": f"f{i}", "value": row[i], "attribution": why[i]} for i in range(len(row))
        ],
        "additivity_error": error,
    }


if __name__ == "__main__":
    main()
