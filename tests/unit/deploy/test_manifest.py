"""`penstock manifest` makes what Helm makes of the chart, and refuses what Helm refuses."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.engine.cli.main import main
from penstock.engine.manifest.objects import chart_folder, manifest
from penstock.schemas.errors import ConfigError
from tests.chart_values import bad_by_chart, bad_by_schema, good

helm = shutil.which("helm")
refused = bad_by_schema | bad_by_chart


def objects(text: str) -> dict[tuple[str, str], Any]:
    """By kind and name, without the word for who made them; the settings as what they say, since both write YAML in their own way."""
    found: dict[tuple[str, str], Any] = {}
    for each in yaml.safe_load_all(text):
        if each:
            labels = each["metadata"].get("labels", {})
            assert labels.pop("app.kubernetes.io/managed-by") in ("Helm", "penstock")
            key = each["kind"], each["metadata"]["name"]
            assert key not in found
            if "penstock.yaml" in each.get("data", {}):
                # PyYAML takes Helm's 1e-06 for a text, and the settings take both.
                text = re.sub(r"(?m)(?<= )(\d)e(?=[-+]\d+$)", r"\1.0e", each["data"]["penstock.yaml"])
                each["data"]["penstock.yaml"] = yaml.safe_load(text)
            pod = each.get("spec", {}).get("template", {}).get("metadata")
            if pod is not None:
                assert len(pod["annotations"].pop("penstock/settings-digest")) == 64
            found[key] = each
    return found


@pytest.mark.skipif(helm is None, reason="helm is not at hand")
@pytest.mark.parametrize("name", good)
def test_helm_makes_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(json.dumps(good[name]))
    done = subprocess.run(
        [str(helm), "template", "fraud", str(chart_folder), "-n", "ns", "-f", str(tmp_path / "values.yaml"), "--kube-version", "1.31.0"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert objects(manifest(good[name], name="fraud", namespace="ns")) == objects(done.stdout)


@pytest.mark.parametrize("name", refused)
def test_every_fault_is_told_by_its_path_or_in_a_sentence_and_no_value_with_it(name: str) -> None:
    values, words = refused[name]
    with pytest.raises(ConfigError) as error:
        manifest(values, name="prod", namespace="ns")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_user_gets_a_file_that_says_how_it_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "values.yaml").write_text("settings: {input: {topic: payments}}\nkeda: {enabled: false}\n")
    assert main(["manifest", str(tmp_path / "values.yaml"), "--name", "fraud", "--namespace", "streams"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "# Made by `penstock manifest`: kubectl apply --namespace streams --filename FILE\n"
    )
    found = objects(text)
    assert {kind for kind, _ in list(found)[:2]} == {"ServiceAccount", "ConfigMap"}, (
        "what the others name comes first"
    )
    assert ("StatefulSet", "fraud-worker") in found
    assert found[("ConfigMap", "fraud-settings")]["data"]["penstock.yaml"]["input"] == {"topic": "payments"}
    assert not [kind for kind, _ in found if kind == "ScaledObject"]
    assert main(["manifest", "--values"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(
        (chart_folder / "values.yaml").read_text()
    )


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["--name", "Fraud"], "", "--name"),
        (["--namespace", "a.b"], "", "--namespace"),
        ([], "a: [", "no YAML, line"),
        ([], "- a", "must hold keys"),
        ([], None, "No such file"),
        ([], "setings: {}", "setings is not known: settings?"),
        ([], "scaler: {replicas: 0}\nkeda: {fallback: {replicas: 0}}", "scaler.replicas is 0"),
    ],
)
def test_wrong_input_is_one_sentence(
    words: list[str], text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "values.yaml").write_text(text)
    assert main(["manifest", str(tmp_path / "values.yaml"), *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert said in line


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        manifest({"setings": {}, "worker": {"replicas": -1}}, name="prod", namespace="ns")
    assert str(error.value) == "setings is not known: settings?; worker.replicas must be at least 0"
