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
