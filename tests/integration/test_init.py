"""`penstock init`: settings that run as they are written, and the topics that they name."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.cli.main import main
from tests.bundles import write_stump


def _init(folder: Path, *words: str) -> int:
    write_stump(folder / "model")
    return main(["init", str(folder / "model"), "--out", str(folder / "penstock.yaml"), *words])


def test_the_file_is_settings_and_says_where_the_bundle_is(tmp_path: Path) -> None:
    assert _init(tmp_path, "--topic", "events", "--bootstrap-servers", "kafka:9092") == 0
    text = (tmp_path / "penstock.yaml").read_text()
    tree = yaml.safe_load(text)
    assert tree["model"]["path"] == "model"
    assert tree["kafka"] | {"group": ""} == {
        "bootstrap_servers": "kafka:9092",
        "group": "",
        "delivery": "exactly_once",
    }
    assert tree["input"] == {"topic": "events", "format": "json"}  # this bundle has no schema
    assert "#" in text


@pytest.mark.parametrize("odd", ["2024", "on", "it's", "a: b", "# none", "@x"])
def test_a_group_of_any_name_stays_a_text(tmp_path: Path, odd: str) -> None:
    assert _init(tmp_path, "--topic", "events", "--group", odd) == 0
    assert yaml.safe_load((tmp_path / "penstock.yaml").read_text())["kafka"]["group"] == odd


@pytest.mark.parametrize("odd", ["2024", "on", "null", "0x1F", "12_3", "2024-01-01", "events"])
def test_a_topic_of_any_name_stays_a_text(tmp_path: Path, odd: str) -> None:
    assert _init(tmp_path, "--topic", odd) == 0
    tree = yaml.safe_load((tmp_path / "penstock.yaml").read_text())
    assert tree["input"]["topic"] == odd
    assert tree["output"]["predictions"] == f"{odd}.predictions"


def test_a_file_that_stands_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "penstock.yaml").write_text("mine")
    assert _init(tmp_path, "--topic", "events") == 2
    assert (tmp_path / "penstock.yaml").read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_a_topic_name_that_is_none_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _init(tmp_path, "--topic", "no topic") == 2
    assert not (tmp_path / "penstock.yaml").exists()
    assert "input.topic" in capsys.readouterr().err


def test_topics_that_cannot_be_made_leave_no_file_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = "127.0.0.1:1"
    assert _init(tmp_path, "--topic", "events", "--bootstrap-servers", closed, "--create-topics") == 1
    assert "cannot look up topic events" in capsys.readouterr().err
    assert not (tmp_path / "penstock.yaml").exists()  # the same command can be repeated


@pytest.mark.kafka
def test_what_init_writes_runs_as_it_is(tmp_path: Path, kafka: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic("events", partitions=3)
    assert _init(tmp_path, "--topic", topic, "--bootstrap-servers", kafka, "--create-topics") == 0
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=kafka))
    outputs = [f"{topic}.{name}" for name in ("predictions", "explanations", "dead-letters", "status")]
    assert admin.partition_counts(outputs) == dict.fromkeys(outputs[:3], 3) | {outputs[3]: 1}
    assert main(["init", str(tmp_path / "model"), "--out", str(tmp_path / "again.yaml"), "--topic", topic,
                 "--bootstrap-servers", kafka, "--create-topics"]) == 0  # fmt: skip

    config = ClientConfig(bootstrap_servers=kafka)
    writer = KafkaWriter(config, topic)
    try:
        writer.write([json.dumps({"a": 1.0, "b": 2.0, "c": 3.0}).encode()] * 30)
        writer.flush(30.0)
    finally:
        writer.close()
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", "run", str(tmp_path / "penstock.yaml")],
        env={**os.environ, "PENSTOCK_HTTP__PORT": "0"},
        stdin=subprocess.DEVNULL,
    )
    offsets = KafkaOffsets(config, f"{topic}-scorer")
    try:
        end_s = time.monotonic() + 60
        while sum(each.committed or 0 for each in offsets.read(topic)) < 30:
            assert worker.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.1)
    finally:
        offsets.close()
        worker.terminate()
        assert worker.wait(30) == 0
