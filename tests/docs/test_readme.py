"""The README's commands: each is run here or is what CI itself runs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.cli.main import commands as all_commands
from penstock.engine.settings.model import parse_settings
from tests.example_readmes import Service

root = Path(__file__).parents[2]
readme = (root / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", readme, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def penstock(*words: str, cwd: Path, timeout_s: float = 120.0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "penstock", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


by_ci = {"make test"}  # .ci/run
by_other_tests = {
    "make demo": "tests/integration/test_demo.py",
    "penstock broker --port 9092 --topic transactions": "tests/integration/test_embedded_kafka.py",
}


def test_what_is_not_run_here_is_run_elsewhere() -> None:
    assert by_ci | set(by_other_tests) <= set(commands())
    for file in by_other_tests.values():
        assert (root / file).exists(), file
    assert "make test" in (root / ".ci" / "run").read_text()


@pytest.mark.kafka
@pytest.mark.slow
def test_the_quick_start_runs_as_it_is_written(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path: Path
) -> None:
    """Every block of the page, in its order, against a broker of its own."""
    pytest.importorskip("lightgbm")
    for text in blocks("python"):
        name = text.split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    kafka = start_kafka()
    KafkaAdmin(ClientConfig(bootstrap_servers=kafka.bootstrap_servers)).create_topics({"transactions": 6})
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "PENSTOCK_HTTP__PORT": "0",
    }
    printed: dict[str, str] = {}
    services: list[Service] = []
    try:
        for command in commands():
            if command in by_ci or command in by_other_tests:
                continue
            if command.startswith("penstock run"):
                services.append(Service(command, folder=tmp_path, environ=environ, log=tmp_path / "run.log"))
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=180, check=False,
            )  # fmt: skip
            logs = "".join(each.log.read_text(errors="replace") for each in services)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{logs}"
            printed[command] = done.stdout
    finally:
        for service in services:
            service.stop()
        kafka.close()
    assert printed["python produce.py"] == "0 records are still waiting\n"
    lines = printed["python read.py"].splitlines()
    assert len(lines) == 3
    assert any("fraud" in line for line in lines)
    # The shortest settings are the same stream as the ones that init wrote.
    (block,) = blocks("yaml")
    (tmp_path / "short.yaml").write_text(block)
    checked = penstock("check", "short.yaml", "--no-kafka", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (root / target).exists(), target
    for target in re.findall(r"`((?:tests|docs|examples|deploy)/[^`]+)`", readme):
        assert (root / target).exists(), target


def test_the_shortest_settings_are_settings(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    parse_settings(yaml.safe_load(block), origin="README.md", folder=tmp_path)


@pytest.mark.parametrize("command", ["", *all_commands])
def test_every_command_has_help_with_an_example(command: str) -> None:
    said = penstock(*([command] if command else []), "--help", cwd=root)
    assert said.returncode == 0, said.stderr
    assert "usage: penstock" in said.stdout
    if command:
        assert "example:" in said.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["run", "absent.yaml"], 2),
        (["check", "absent.yaml"], 2),
        (["package", "absent.onnx", "--out", "x"], 2),
        (["explain", "absent", "--row", "x"], 2),
        (["demo", "--seconds", "0"], 2),
        (["broker", "--nodes", "0"], 2),
        ([], 2),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(words: list[str], code: int, tmp_path: Path) -> None:
    said = penstock(*words, cwd=tmp_path)
    assert said.returncode == code
    assert "Traceback" not in said.stderr


def test_figures_name_the_command_that_gives_them() -> None:
    rows = [
        line
        for line in (
            readme.partition("## Figures")[2].partition("## When")[0]
            + (root / "docs/figures/README.md").read_text(encoding="utf-8")
        ).splitlines()
        if line.startswith("| ")
    ]
    figures = [row for row in rows[1:] if re.search(r"\d", row)]
    assert figures
    commands = set()
    for row in figures:
        named = re.findall(r"`(penstock [^`]+|make [^`]+)`", row)
        assert named, row
        commands |= {tuple(each.split()[1:3]) for each in named if each.startswith("penstock ")}
    for command in sorted(commands):
        assert penstock(*command, "--help", cwd=root).returncode == 0, command


def test_nothing_committed_names_a_registry_or_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    forbidden = re.compile(
        "|".join(
            [
                r"p[y]pi\.org",
                r"pythonhoste[d]",
                r"repo1\.mave[n]",
                r"npmj[s]\.org",
                rf"{re.escape(os.sep)}work{os.sep}",
            ]
        )
    )
    for name in listed.stdout.splitlines():
        path = root / name
        if path.suffix in {".npy", ".png", ".onnx"} or not path.is_file():
            continue
        found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{name}: {found}"
