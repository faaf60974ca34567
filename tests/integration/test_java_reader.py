"""Avro for Java, on which Flink, Spark and Connect stand, reads our messages: as they are, as before, and as Flink SQL declares them."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.codec.contracts import contract, older_contracts
from tests.unit.codec.test_contract_readers import messages

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
readers = Path(__file__).parents[1] / "readers"
copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

Read = Callable[[Sequence[bytes], Any, Any], list[Any]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Reads messages written with one schema as another."""
    folder = tmp_path_factory.mktemp("java")
    maven, java = shutil.which("mvn"), shutil.which("java")
    if maven is None or java is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Java and Maven")
        pytest.skip("no Java, or no Maven")
    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(readers / "pom.xml"),
        copy,
        f"-DoutputDirectory={folder / 'jars'}",
    ]
    fetched = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if fetched.returncode:
        pytest.skip(f"Maven gives no Avro: {fetched.stdout[-500:]}")

    def run(given: Sequence[bytes], writer: Any, reader: Any) -> list[Any]:
        paths = [folder / "writer.avsc", folder / "reader.avsc"]
        for path, schema in zip(paths, (writer, reader), strict=True):
            path.write_text(json.dumps(schema))
        ran = subprocess.run(
            [java, "-cp", f"{folder / 'jars'}/*", str(readers / "ReadAvro.java"), *map(str, paths)],
            input="".join(base64.b64encode(message).decode() + "\n" for message in given),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    return run


def test_java_reads_every_contract(read: Read) -> None:
    for name in ("prediction", "explanation", "dead_letter"):
        for reader in (contract(name), *older_contracts(name)):
            assert len(read(messages(name), contract(name), reader)) == len(messages(name))
    first, second = read(messages("prediction"), contract("prediction"), contract("prediction"))
    assert (first["label"], first["label_index"], first["classes"]) == ("yes", 1, ["no", "yes"])
    assert second["outputs"] == {"p": [0.25, 0.75]}


def test_flink_sql_can_declare_an_explanation(read: Read) -> None:
    """Flink makes the reader's schema of a table's declaration: its own names of records, nullable columns, no union of types."""

    def nullable(kind: Any) -> list[Any]:
        return ["null", kind]

    attribution = {
        "type": "record", "name": "record_attributions", "fields": [
            {"name": "feature", "type": nullable("string"), "default": None},
            {"name": "number", "type": nullable("double"), "default": None},
            {"name": "text", "type": nullable("string"), "default": None},
            {"name": "attribution", "type": nullable("double"), "default": None},
        ],
    }  # fmt: skip
    declared = {
        "type": "record", "name": "record", "namespace": "org.apache.flink.avro.generated", "fields": [
            {"name": "space", "type": nullable("string"), "default": None},
            {"name": "attributions", "type": nullable({"type": "array", "items": nullable(attribution)}), "default": None},
        ],
    }  # fmt: skip
    first, *_ = read(messages("explanation"), contract("explanation"), declared)
    assert first["attributions"] == [
        {"feature": "amount", "number": 4.5, "text": None, "attribution": 0.5},
        {"feature": "land", "number": None, "text": "SE", "attribution": -0.5},
    ]
