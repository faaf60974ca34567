"""The demo as a new user runs it: it ends with balanced books and exit code 0."""

import json
import subprocess
import sys

import pytest

from penstock.connectors.embedded.jars import find_java
from penstock.engine.demo.show import warm_up_records
from penstock.schemas.errors import ConfigError


def demo(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "penstock", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka), "memory"])
def test_the_demo_accounts_for_every_record(broker: str) -> None:
    pytest.importorskip("lightgbm")
    if broker == "kafka":
        try:
            find_java()
        except ConfigError as error:
            pytest.skip(str(error))
    said = demo("--seconds", "4", "--rate", "1500", "--broker", broker, "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    books = json.loads(said.stdout)
    assert books["records"] == books["predicted"] == books["explained"] == 6000 + warm_up_records
    assert (books["lost"], books["duplicated"], books["unexplained"], books["rejected"]) == (0, 0, 0, 0)
    assert books["quality"]["auc"] > 0.85
    assert "late" in said.stderr


def test_without_java_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    said = demo("--seconds", "1")
    assert said.returncode == 2
    assert "Java" in said.stderr
    assert "--broker memory" in said.stderr
    assert "Traceback" not in said.stderr
