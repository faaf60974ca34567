"""The batch half of one program: the same records by stream and by `penstock score` come out the same to the bit."""

import io
import json
import time
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from penstock.engine.demo.stage import memory_stage, topics

pytestmark = pytest.mark.slow
records = 100_000
schema: dict[str, Any] = {
    "type": "record",
    "name": "Flight",
    "fields": [
        {"name": "carrier", "type": ["null", "string"]},
        {"name": "delay", "type": ["null", "double"]},
        {"name": "hour", "type": "int"},
        {"name": "distance", "type": "float"},
    ],
}


def flights(count: int) -> Any:
    """A table with everything that a stream holds: numbers of three types, gaps, unseen categories, what is set aside."""
    rng = np.random.default_rng(7)
    carriers = np.array(["AA", "B6", "DL", "ZZ", None], dtype=object)
    delay = rng.normal(size=count) * 40
    delay[rng.random(count) < 0.01] = np.inf  # set aside: not finite
    return pa.table({
        "carrier": pa.array(carriers[rng.choice(5, count, p=[0.4, 0.3, 0.2, 0.05, 0.05])].tolist(), pa.string()),
        "delay": pa.array(delay, mask=rng.random(count) < 0.1),
        "hour": pa.array(rng.integers(0, 24, count).astype(np.int32)),
        "distance": pa.array(rng.gamma(2.0, 500.0, count).astype(np.float32)),
        "number": pa.array(np.arange(count)),
    })  # fmt: skip


def make_bundle(path: Path, data: Any) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    frame = data.slice(0, 5000).to_pandas()[["carrier", "delay", "hour", "distance"]]
    frame = frame.replace([np.inf], 0.0)
    frame["carrier"] = frame["carrier"].where(frame["carrier"] != "ZZ").astype("category")
    target = (frame["delay"].fillna(0) + frame["hour"] * 2 > 30).astype(int)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 15}
    booster = lightgbm.train(settings, lightgbm.Dataset(frame, target), 30)
    schema_file = path.parent / "flight.avsc"
    schema_file.write_text(json.dumps(schema))
    penstock.package(booster, path, classes=["on time", "late"], input_schema=schema_file)


def streamed(bundle: Path, folder: Path, rows: list[dict[str, Any]]) -> dict[str, dict[int, Any]]:
    """Through the broker in memory; by number of the record, what its messages say."""
    parsed, prefix = fastavro.parse_schema(schema), single_object_prefix(schema)
    values: list[bytes | None] = []
    for row in rows:
        stream = io.BytesIO()
        stream.write(prefix)
        fastavro.schemaless_writer(stream, parsed, row)
        values.append(stream.getvalue())
    clock = SystemClock()
    found: dict[str, dict[int, Any]] = {}
    with memory_stage(bundle, folder, clock) as stage:
        numbers: dict[tuple[int, int], int] = {}
        keys: list[bytes | None] = [str(number).encode() for number in range(len(rows))]
        for start in range(0, len(rows), 5000):
            stage.writer.write(values[start : start + 5000], keys=keys[start : start + 5000])
        stage.writer.flush(60.0)
        end_s = time.monotonic() + 120
        kinds = {"prediction": topics[1], "explanation": topics[2], "dead_letter": topics[3]}
        readers = {kind: stage.reader(topic) for kind, topic in kinds.items()}
        schemas = {kind: fastavro.parse_schema(contract(kind)) for kind in kinds}
        found = {kind: {} for kind in kinds}
        while len(found["prediction"]) + len(found["dead_letter"]) < len(rows) or len(
            found["explanation"]
        ) < len(found["prediction"]):
            assert time.monotonic() < end_s, {kind: len(each) for kind, each in found.items()}
            assert stage.worker_failed() is None
            for kind, reader in readers.items():
                part = reader.read(5000, 0.05)
                for key, value in zip(part.keys, part.values, strict=True) if part is not None else ():
                    assert key is not None
                    assert value is not None
                    body = fastavro.schemaless_reader(
                        io.BytesIO(value[single_object_header_bytes:]), schemas[kind], None
                    )
                    found[kind][int(key)] = body
        assert not numbers
    return found


def test_a_hundred_thousand_records_come_out_the_same_by_stream_and_by_score(tmp_path: Path) -> None:
    data = flights(records)
    make_bundle(tmp_path / "bundle", data)
    pq.write_table(data, tmp_path / "in.parquet", row_group_size=30_000)
    rows = data.drop_columns("number").to_pylist()
    stream = streamed(tmp_path / "bundle", tmp_path, rows)

    words = ["--explain", "--output", "late", "--keep", "number", "--runtime", "native"]
    out = tmp_path / "out.parquet"
    assert (
        main(["score", str(tmp_path / "bundle"), str(tmp_path / "in.parquet"), "--out", str(out), *words])
        == 0
    )
    scored = pq.read_table(out)
    letters = [
        json.loads(line) for line in (tmp_path / "out.parquet.dead-letters.jsonl").read_text().splitlines()
    ]

    assert len(letters) > 500
    assert {each["source"]["row"]: (each["stage"], each["reason"], each["detail"]) for each in letters} == {
        number: (each["stage"], each["reason"], each["detail"])
        for number, each in stream["dead_letter"].items()
    }
    numbers = scored["number"].to_pylist()
    assert sorted(numbers) == sorted(stream["prediction"])
    (name,) = stream["prediction"][numbers[0]]["outputs"]
    by_score = np.array([each[name] for each in scored["outputs"].to_pylist()])
    by_stream = np.array([stream["prediction"][number]["outputs"][name] for number in numbers])
    assert by_score.tobytes() == by_stream.tobytes()
    assert scored["label"].to_pylist() == [stream["prediction"][number]["label"] for number in numbers]
    explanations = [stream["explanation"][number] for number in numbers]
    for column in ("base_value", "additivity_error", "rest"):
        expected = np.array([each[column] for each in explanations])
        assert scored[column].to_numpy().tobytes() == expected.tobytes(), column
    attributions = np.array([[one["attribution"] for one in each["attributions"]] for each in explanations])
    flat = scored["attributions"].combine_chunks().flatten()
    assert flat.field("attribution").to_numpy().tobytes() == attributions.reshape(-1).tobytes()
    features = [one["feature"] for each in explanations for one in each["attributions"]]
    assert flat.field("feature").to_pylist() == features
    values = [one["value"] for each in explanations for one in each["attributions"]]
    given = [
        text if text is not None else number
        for text, number in zip(flat.field("text").to_pylist(), flat.field("number").to_pylist(), strict=True)
    ]
    assert given == values
    assert {each["method"] for each in explanations} == set(scored["method"].to_pylist())
    assert {each["space"] for each in explanations} == set(scored["space"].to_pylist())
