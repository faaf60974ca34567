"""The Terraform modules: formatted, valid, and what they plan is what `penstock acl` and the chart say."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penstock.engine.cli.main import main
from penstock.engine.manifest.templates import Chart
from penstock.engine.settings.model import load_settings
from tests.terraform_provider import provider

root = Path(__file__).parents[3]
modules = root / "deploy" / "terraform"
terraform = shutil.which("terraform")
needs_terraform = pytest.mark.skipif(terraform is None, reason="terraform is not at hand")
settings_tree = {
    "kafka": {"bootstrap_servers": "kafka:9092", "group": "fraud"},
    "input": {"topic": "in", "format": "json"},
    "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead", "status": "status"},
    "model": {"path": "/models/current"},
    "scaling": {"max_age_s": 20},
    "admin": {"port": 9480, "audit_topic": "audit"},
}


class Workspace:
    """A copy of a module, and Terraform in it."""

    def __init__(self, folder: Path, module: str, environ: dict[str, str]) -> None:
        self.folder = shutil.copytree(modules / module, folder / module)
        self._environ = {
            **os.environ, **environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1",
        }  # fmt: skip
        self.run("init", "-input=false")

    def run(self, *words: str, fails: bool = False) -> str:
        assert terraform is not None
        done = subprocess.run(
            [terraform, *words, *([] if words[0] == "show" else ["-no-color"])], cwd=self.folder, env=self._environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout if not fails else " ".join(re.sub(r"[│╷╵]", " ", done.stderr).split())

    def plan(self, **variables: Any) -> list[dict[str, Any]]:
        """Every resource with its values."""
        self.run("plan", "-input=false", "-out=plan", *self._words(variables))
        shown = json.loads(self.run("show", "-json", "plan"))
        return [
            {"type": each["type"], **each["values"]}
            for each in shown["planned_values"]["root_module"]["resources"]
        ]

    def refused(self, **variables: Any) -> str:
        return self.run("plan", "-input=false", *self._words(variables), fails=True)

    @staticmethod
    def _words(variables: dict[str, Any]) -> list[str]:
        return [
            f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in variables.items()
        ]


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "penstock.yaml"
    path.write_text(yaml.safe_dump(settings_tree))
    return path


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Workspace]]:
    with provider("mongey/kafka", "hashicorp/helm") as environ:
        folder = tmp_path_factory.mktemp("terraform")
        yield {name: Workspace(folder, name, environ) for name in ("kafka", "release")}


@pytest.fixture
def needs(settings_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["acl", str(settings_file), "--json"]) == 0
    (tmp_path / "needs.json").write_text(capsys.readouterr().out)
    return {"needs_file": str(tmp_path / "needs.json"), "input_partitions": 12}


def told(needs: dict[str, Any]) -> Any:
    return json.loads(Path(needs["needs_file"]).read_text())


def test_every_variable_and_output_says_what_it_is() -> None:
    for path in modules.rglob("*.tf"):
        blocks = re.findall(
            r'^(variable|output) "(\w+)" \{\n(.*?)^\}', path.read_text(), re.MULTILINE | re.DOTALL
        )
        assert blocks or path.name == "main.tf"
        for kind, name, body in blocks:
            assert re.search(r'description = "[^"].{10,}"', body), f"{path.name}: {kind} {name}"


@needs_terraform
def test_the_modules_are_formatted_and_valid(workspaces: dict[str, Workspace]) -> None:
    for workspace in workspaces.values():
        workspace.run("fmt", "-check", "-diff", "-recursive")
        assert "Success" in workspace.run("validate")


@needs_terraform
@pytest.mark.parametrize(("module", "runs"), [("kafka", 10), ("release", 3)])
def test_the_modules_own_tests_pass_with_mocked_providers(
    workspaces: dict[str, Workspace], module: str, runs: int
) -> None:
    assert f"Success! {runs} passed, 0 failed." in workspaces[module].run("test")


@needs_terraform
def test_a_modules_own_tests_notice_what_they_are_for(workspaces: dict[str, Workspace]) -> None:
    main_file = workspaces["kafka"].folder / "main.tf"
    right = main_file.read_text()
    try:
        main_file.write_text(
            right.replace("merge(local.durable, each.value.config, ", "merge(each.value.config, ")
        )
        assert "topics_are_made_from_the_list" in workspaces["kafka"].run("test", fails=True)
    finally:
        main_file.write_text(right)


def test_the_list_of_the_modules_own_tests_is_what_penstock_acl_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = modules / "kafka" / "tests"
    assert main(["acl", str(folder / "penstock.yaml"), "--json"]) == 0
    assert capsys.readouterr().out == (folder / "needs.json").read_text()


@needs_terraform
def test_the_permissions_are_those_of_penstock_acl(
    workspaces: dict[str, Workspace], needs: dict[str, Any]
) -> None:
    roles = ["worker", "scaler", "lag", "letters", "replay", "audit", "tail", "offsets"]
    planned = workspaces["kafka"].plan(**needs, roles=roles, principals={"worker": "User:fraud-worker"})
    found = sorted(
        (each["acl_principal"], each["resource_type"], each["resource_name"], each["resource_pattern_type_filter"],
         each["acl_operation"], each["acl_permission_type"], each["acl_host"])
        for each in planned if each["type"] == "kafka_acl"
    )  # fmt: skip
    keys = (
        "principal",
        "resource_type",
        "resource_name",
        "pattern_type",
        "operation",
        "permission_type",
        "host",
    )
    wanted = sorted(
        tuple({**acl, "principal": "User:fraud-worker" if role == "worker" else f"User:{role}"}[key] for key in keys)
        for role in roles for acl in told(needs)["roles"][role]
    )  # fmt: skip
    assert found == wanted
    assert len(found) == len(set(found)) > 20


@needs_terraform
def test_the_topics_are_those_of_the_settings(
    workspaces: dict[str, Workspace], needs: dict[str, Any]
) -> None:
    changed = {"dead": {"retention.ms": "1000", "max.message.bytes": "2000000"}}
    planned = workspaces["kafka"].plan(**needs, topic_config=changed, roles=[])
    found = {each["name"]: each for each in planned if each["type"] == "kafka_topic"}
    assert {name: topic["partitions"] for name, topic in found.items()} == {
        "out": 12, "why": 12, "dead": 12, "status": 1, "audit": 1,
    }  # fmt: skip
    assert {topic["replication_factor"] for topic in found.values()} == {3}
    assert {topic["config"]["min.insync.replicas"] for topic in found.values()} == {"2"}
    assert found["status"]["config"]["cleanup.policy"] == "compact"
    assert found["dead"]["config"] == {
        "cleanup.policy": "delete",
        "min.insync.replicas": "2",
        **changed["dead"],
    }
    assert found["audit"]["config"]["cleanup.policy"] == "delete"
    with_input = workspaces["kafka"].plan(**needs, create_input=True, roles=[])
    assert {each["name"] for each in with_input} == {*found, "in"}


@needs_terraform
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"input_partitions": 0}, "input_partitions must be a whole number from 1"),
        ({"input_partitions": 1.5}, "input_partitions must be a whole number from 1"),
        ({"replication_factor": 2}, "in_sync_min must be less than replication_factor"),
        ({"replication_factor": 1}, "with one replica it is 1"),
        ({"in_sync_min": 0}, "in_sync_min must be at least 1"),
        ({"principals": {"worker": "fraud"}}, "principals are written with their type"),
        ({"principals": {"tail": "User:x"}}, "principals names a role that is not among roles: tail"),
        ({"roles": ["worker", "reader"]}, "needs_file has no permissions for every one of roles"),
        ({"topic_config": {"outt": {}}}, "topic_config names a topic that is not made here; there are"),
        ({"needs_file": "nothing.json"}, "nothing.json"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_sentence(
    workspaces: dict[str, Workspace], needs: dict[str, Any], wrong: dict[str, Any], says: str
) -> None:
    assert says in workspaces["kafka"].refused(**(needs | wrong))


@needs_terraform
def test_the_release_gives_the_chart_values_that_it_takes(
    workspaces: dict[str, Workspace], tmp_path: Path
) -> None:
    tree = {**settings_tree, "output": {"predictions": "out", "dead_letters": "dead", "status": "status"}}
    settings_file = tmp_path / "settings.yaml"
    settings_file.write_text(yaml.safe_dump(tree))
    digest = f"sha256:{'a' * 64}"
    mine = yaml.safe_dump(
        {"worker": {"podLabels": {"team": "fraud"}}, "settings": {"scaling": {"max_replicas": 12}}}
    )
    (release,) = workspaces["release"].plan(
        name="prod", namespace="fraud", chart=str(root / "deploy/helm/penstock"), settings_file=str(settings_file),
        image="penstock:cpu", image_digest=digest, secret_name="login", monitoring=True, values=[mine],
    )  # fmt: skip
    assert (release["name"], release["namespace"], release["wait"]) == ("prod", "fraud", True)
    values: dict[str, Any] = {}
    for text in release["values"]:
        values = merged(values, yaml.safe_load(text))
    schema = json.loads((root / "deploy/helm/penstock/values.schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(Chart(root / "deploy/helm/penstock").values(values))
    made = [
        each
        for name, text in Chart(root / "deploy/helm/penstock").render(values).items()
        if name.endswith(".yaml")
        for each in yaml.safe_load_all(text)
        if each
    ]
    kinds = {each["kind"] for each in made}
    assert {"StatefulSet", "Deployment", "ScaledObject", "PodMonitor", "PrometheusRule"} <= kinds
    (settings,) = [each["data"]["penstock.yaml"] for each in made if each["kind"] == "ConfigMap"]
    (tmp_path / "penstock.yaml").write_text(settings)
    loaded = load_settings(tmp_path / "penstock.yaml", environ={})
    assert (loaded.scaling.host, loaded.http.host) == ("0.0.0.0", "0.0.0.0")
    assert (loaded.scaling.max_age_s, loaded.scaling.max_replicas) == (20, 12)
    assert loaded.output.explanations is None, "the chart's own example has a topic here"
    assert loaded.output.status == "status"
    (worker,) = [each for each in made if each["kind"] == "StatefulSet"]
    assert worker["spec"]["template"]["spec"]["containers"][0]["image"].endswith(digest)


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """As Helm lays values over each other: objects key by key, all else whole."""
    both = dict(left)
    for key, value in right.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both
