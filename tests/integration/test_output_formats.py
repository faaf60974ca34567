"""Results in each format and framing on a real Kafka, with fields and headers of their records, and letters that are read again."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from tests.integration.test_poison import good, write_bundle
from tests.stream import Stream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "model")
    return tmp_path


def open_stream(folder: Path, servers: str, **changes: Any) -> Iterator[Stream]:
    stream = Stream(
        folder, servers, f"formats-{time.time_ns()}", folder / "model", explained=False, **changes
    )
    try:
        yield stream
    finally:
        stream.close()


def sent(servers: str, topic: str) -> dict[bytes | None, tuple[bytes, list[tuple[str, bytes | None]]]]:
    reader = KafkaReader(ClientConfig(bootstrap_servers=servers), topic, SystemClock())
    try:
        return {
            records.keys[place]: (records.values[place] or b"", list(records.headers(place)))
            for records in reader.read_to_end(30.0)
            for place in range(len(records))
        }
    finally:
        reader.close()


@pytest.mark.parametrize("format", ["json", "avro"])
def test_results_and_letters_are_in_the_format_asked_for(
    kafka: str, folder: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = {
        "format": format, "framing": "none", "pass_fields": ["c", "g", "absent"], "headers": ["traceparent", "id"],
    }  # fmt: skip
    for stream in open_stream(folder, kafka, output=output):
        producer = Producer({"bootstrap.servers": kafka})
        for number in range(12):
            headers: Any = [("id", b"%d" % number), ("other", b"x")] if number % 2 else None
            value = b"bad" if number == 11 else good(number)
            producer.produce(
                stream.name, value=value, key=b"%d" % number, partition=number % 6, headers=headers
            )
        assert producer.flush(30) == 0
        stream.expected = 12
        stream.start("a")
        stream.wait(1.0, 60.0)

        def read(name: str, value: bytes) -> Any:
            if format == "json":
                return json.loads(value)
            stream_ = io.BytesIO(value)
            found = fastavro.schemaless_reader(stream_, fastavro.parse_schema(contract(name)), None)
            assert stream_.read() == b""
            return found

        results = {
            key: (read("prediction", value), headers)
            for key, (value, headers) in sent(kafka, stream.outputs["predictions"]).items()
        }
        assert results.keys() == {b"%d" % number for number in range(11)}
        for key, (body, headers) in results.items():
            number = int(key or b"")
            assert body["passed"] == {"c": "xyz"[number % 3], "g": str(float(number % 4))}
            assert headers == ([("id", key)] if number % 2 else [])
            assert (body["classes"], body["label_index"], list(body["outputs"])) == ([], None, ["y"])
        [(value, headers)] = sent(kafka, stream.outputs["dead_letters"]).values()
        assert read("dead_letter", value)["reason"] == "bad_framing"
        assert headers == [("id", b"11")]

        assert main(["dlq", "show", str(stream.settings), "5:1", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["payload_hex"], shown["headers"]) == (
            b"bad".hex(),
            [["id", b"11".hex()], ["other", b"x".hex()]],
        )
        assert main(["dlq", "replay", str(stream.settings), "--yes", "--json"]) == 0
        outcome = json.loads(capsys.readouterr().out)
        assert outcome["replayed"] == 1, (outcome, stream.said())
