"""Through a real Kafka and through `penstock score` the same records come out the same to the bit."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.engine.cli.main import main
from tests.bundles import write_stump
from tests.stream import Stream, event, event_schema

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
records = 2_000


def test_records_through_kafka_and_through_files_are_the_same(kafka: str, tmp_path: Path) -> None:
    write_stump(tmp_path / "bundle", input_schema=json.dumps(event_schema).encode())
    values = [event(number) for number in range(records)]
    stream = Stream(tmp_path, kafka, "scored", tmp_path / "bundle")
    try:
        stream.feed(values, per_s=1e6, keys=[str(number).encode() for number in range(records)])
        stream.start("a")
        stream.wait(1.0, 120.0)
        stream.await_readers(60.0)
        books = stream.books()
    finally:
        stream.close()
    assert books.check() == []
    x = np.array([np.frombuffer(value[-24:]) for value in values])
    table = pa.table({name: x[:, place] for place, name in enumerate("abc")} | {"number": np.arange(records)})
    pq.write_table(table, tmp_path / "in.parquet")
    words = [
        "--out",
        str(tmp_path / "out.parquet"),
        "--explain",
        "--keep",
        "number",
        "--runtime",
        "onnxruntime",
    ]
    assert main(["score", str(tmp_path / "bundle"), str(tmp_path / "in.parquet"), *words]) == 0
    scored = {row["number"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert len(scored) == records
    for seen in (each for part in books.predictions.values() for each in part):
        assert seen.key is not None
        assert seen.body["outputs"] == scored[int(seen.key)]["outputs"]
    for seen in (each for part in books.explanations.values() for each in part):
        assert seen.key is not None
        row = scored[int(seen.key)]
        assert [one["attribution"] for one in seen.body["attributions"]] == [
            one["attribution"] for one in row["attributions"]
        ]
        assert (seen.body["base_value"], seen.body["method"]) == (row["base_value"], row["method"])
