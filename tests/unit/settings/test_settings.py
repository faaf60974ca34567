"""The settings tree: strict, with the path of the fault, overridable by the environment."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.engine.settings.model import Settings, load_settings, parse_settings
from penstock.schemas.errors import ConfigError


def tree() -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "models/m"},
    }


def parse(changes: dict[str, Any]) -> Settings:
    whole = tree()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        place = whole
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return parse_settings(whole, origin="penstock.yaml", folder=Path("/etc/penstock"))


def test_defaults_work_and_paths_are_relative_to_the_file() -> None:
    settings = parse({})
    assert settings.model.path == Path("/etc/penstock/models/m")
    assert settings.framing == "single_object"
    assert parse({"registry.url": "http://localhost:8081"}).framing == "confluent"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kafka.grup": "x"}, "kafka.grup is not a setting; did you mean group?"),
        ({"input.topic": "in put"}, "input.topic"),
        ({"output.predictions": "in"}, "must differ"),
        ({"input.framing": "confluent"}, "needs a registry"),
        ({"kafka.client": {"group.id": "x"}}, "group.id may not be set here"),
        (
            {"kafka.client": {"isolation.level": "read_uncommitted"}},
            "isolation.level is always read_committed",
        ),
        (
            {"kafka.client": {"session.timeout.ms": 400_000}},
            "session.timeout.ms is more than max.poll.interval.ms, which is 300000",
        ),
        (
            {"kafka.client": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 6000}},
            "heartbeat.interval.ms, 6000, has to be less than session.timeout.ms, which is 6000, at most a third",
        ),
        (
            {"kafka.client": {"heartbeat.interval.ms": 20_000}},
            "heartbeat.interval.ms, 20000, has to be less than session.timeout.ms, which is 8000 unless set",
        ),
        ({"explain.policy": "sample:2"}, "explain.policy: sample wants a share"),
        ({"model.device": "gpu"}, "model.device"),
        (
            {"kafka.group": "${GROUP}"},
            "kafka.group: holds a placeholder, as ${NAME}, and none is filled in here",
        ),
        ({"kafka.bootstrap_servers": "$(BROKER):9092"}, "kafka.bootstrap_servers: holds a placeholder"),
        ({"model.path": "models/{{ .Values.model }}"}, "model.path: holds a placeholder"),
        ({"kafka.group": "scorer\n"}, "kafka.group: begins or ends with white space"),
        ({"kafka.group": " scorer"}, "kafka.group: begins or ends with white space"),
        ({"kafka.security": {"protocol": "SASL_SSL"}}, "needs a mechanism"),
        ({"scaling": {"min_replicas": 5, "max_replicas": 2}}, "min_replicas is more than max_replicas"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_its_path(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump(tree()))
    environ = {
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": "broker:9093",
        "PENSTOCK_WORKERS": "3",
        "PENSTOCK_CACHE": "/tmp/x",
    }
    settings = load_settings(file, environ)
    assert settings.kafka.bootstrap_servers == "broker:9093"
    assert settings.workers == 3


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    security = {"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "u", "password": "canary-7f3a"}
    assert "canary-7f3a" not in repr(parse({"kafka.security": security}))
    with pytest.raises(ConfigError) as caught:
        parse({"kafka.security": {**security, "passwort": "canary-7f3a"}})
    assert "canary-7f3a" not in str(caught.value)


def test_a_file_that_is_not_settings_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(tmp_path / "absent.yaml", {})
    for text in ("{", "just words"):
        file = tmp_path / "wrong.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError):
            load_settings(file, {})
