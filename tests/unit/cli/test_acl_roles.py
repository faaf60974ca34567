"""Every role that permissions know can be asked for."""

import json
from pathlib import Path

import pytest
import yaml

from penstock.engine.cli.main import main
from penstock.engine.settings.roles import roles


@pytest.mark.parametrize("role", roles)
def test_a_role_can_be_asked_for_alone(role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "penstock.yaml"
    tree = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead"},
        "model": {"path": "m"},
        "admin": {"port": 0, "audit_topic": "audit"},
    }
    path.write_text(yaml.safe_dump(tree))
    assert main(["acl", str(path), "--role", role, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["roles"]
    assert list(found) == [role]
    assert found[role]


@pytest.mark.parametrize(
    "without", [(), ("explanations",), ("status",), ("admin",), ("explanations", "status", "admin")]
)
def test_the_topics_are_all_that_permissions_are_for(
    without: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = {"predictions": "out", "explanations": "why", "dead_letters": "dead", "status": "status"}
    tree = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {key: value for key, value in output.items() if key not in without},
        "model": {"path": "m"},
        "admin": {"port": 0, "audit_topic": "audit"},
    }
    tree = {key: value for key, value in tree.items() if key not in without}
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(tree))
    assert main(["acl", str(tmp_path / "penstock.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    named = {
        acl["resource_name"]
        for acls in found["roles"].values()
        for acl in acls
        if acl["resource_type"] == "Topic"
    }
    assert found["topics"][0]["name"] == "in"
    assert sorted(each["name"] for each in found["topics"]) == sorted(named)
    compacted = {
        each["name"] for each in found["topics"] if each["config"].get("cleanup.policy") == "compact"
    }
    assert compacted == {"status"} - set(without), "a worker refuses to start on any other that is compacted"
