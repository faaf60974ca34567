"""Dates and times in files: the numbers that the stream reads of Avro's, and no other unit than the records have."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.engine.cli.main import main
from penstock.engine.python.model import load
from tests.bundles import write_stump

moment = datetime(2026, 11, 29, 22, 41, 48, 250_000, tzinfo=UTC)


@pytest.fixture
def field(tmp_path: Path) -> str:
    """A bundle whose first feature is a time stamp in milliseconds, by the schema of its records."""
    names = [each.field for each in write_stump(tmp_path / "plain").signature.features]
    fields: list[dict[str, Any]] = [
        {"name": name, "type": ["null", "double"], "default": None} for name in names
    ]
    fields[0]["type"] = ["null", {"type": "long", "logicalType": "timestamp-millis"}]
    schema = {"type": "record", "name": "Event", "fields": fields}
    write_stump(tmp_path / "timed", input_schema=json.dumps(schema).encode())
    return names[0]


def file_of(folder: Path, field: str, unit: str) -> str:
    with load(folder / "plain") as model:
        names = model.feature_names
    columns = {name: pa.array([1.5, None]) for name in names}
    columns[field] = pa.array([moment, None], pa.timestamp(unit, tz="UTC"))
    path = folder / f"{unit}.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_time_stamp_is_scored_as_its_number_and_explained(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = file_of(tmp_path, field, "ms")
    out = tmp_path / "scored.jsonl"
    assert main(["score", str(tmp_path / "timed"), rows, "--out", str(out), "--explain"]) == 0
    first = json.loads(out.read_text().splitlines()[0])
    (value,) = [each["number"] for each in first["attributions"] if each["feature"] == field]
    with load(tmp_path / "timed") as model:
        numbers = [{field: 1_795_992_108_250}]
        assert value == pytest.approx(1_795_992_108_250, rel=1e-6)  # float32, as the model takes it
        label = model.predict(numbers).outputs
        assert {name: each[0].tolist() for name, each in label.items()} == first["outputs"]
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "timed"), rows]) == 0
    assert field in capsys.readouterr().out


@pytest.mark.parametrize("command", ["score", "explain"])
def test_another_unit_than_the_records_have_is_refused(
    command: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = file_of(tmp_path, field, "us")
    out = ["--out", str(tmp_path / "out.jsonl")] if command == "score" else []
    assert main([command, str(tmp_path / "timed"), rows, *out]) == 2
    said = capsys.readouterr().err
    assert (
        f"column {field} holds times in microseconds, and the schema of the model's records has them in"
        in said
    )
    assert (
        main([command, str(tmp_path / "plain"), rows, *out]) == 0
    )  # without a schema the column's own unit counts
