"""Environments of the rivals: made once, kept whole or not at all, and a sentence where they cannot be had."""

import os
import shutil
from pathlib import Path

import pytest
from penstock_bench import environments as peers_environments
from penstock_bench.environments import java_rivals, python_of, sources

from penstock.schemas.errors import ConfigError


class Machine:
    """A PATH of scripts, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environ = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "PENSTOCK_CACHE": str(folder / "cache"),
            "CALLS": str(self.calls),
        }
        self.said: list[str] = []

    def script(self, name: str, body: str) -> None:
        file = self.bin / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        file.chmod(0o755)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.script("javac", "")
    return found


# What Maven leaves beside the pom that stands after --file.
builds = 'while [ "$1" != --file ]; do shift; done; cd "$(dirname "$2")"; mkdir -p target/lib; touch target/lib/kafka.jar target/rivals.jar'


def test_java_is_built_once_and_kept_with_its_jars(machine: Machine) -> None:
    machine.script("mvn", builds)
    jars = java_rivals(machine.said.append, machine.environ)
    assert sorted(file.name for file in jars.iterdir()) == ["kafka.jar", "rivals.jar"]
    assert java_rivals(machine.said.append, machine.environ) == jars
    assert len(machine.called()) == 1
    assert machine.said == ["making the environment of java, once ..."]
    assert not list((sources / "java").glob("target")), "the clone is not built into"


def test_what_failed_is_told_in_one_line_and_tried_again(machine: Machine) -> None:
    machine.script("mvn", "echo '[INFO] hm'; echo '[ERROR] cannot reach  the repository'; echo; exit 1")
    with pytest.raises(ConfigError, match=r"Maven could not build the rivals in Java: cannot reach the repository$"):  # fmt: skip
        java_rivals(machine.said.append, machine.environ)
    machine.script("mvn", builds)
    assert (java_rivals(machine.said.append, machine.environ) / "rivals.jar").exists()


def test_a_change_of_the_sources_makes_another_environment(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sources / "java", tmp_path / "sources" / "java")
    monkeypatch.setattr(peers_environments, "sources", tmp_path / "sources")
    machine.script("mvn", builds)
    first = java_rivals(machine.said.append, machine.environ)
    (tmp_path / "sources" / "java" / "pom.xml").write_text("<project/>")
    assert java_rivals(machine.said.append, machine.environ) != first


def test_without_the_tools_or_the_folder_it_is_a_sentence(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {**machine.environ, "PATH": str(tmp_path)}
    with pytest.raises(ConfigError, match="built by Maven, and there is none here"):
        java_rivals(machine.said.append, nothing)
    monkeypatch.setattr(peers_environments, "sources", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="needs the folder benchmarks of a clone"):
        python_of("quix", machine.said.append, machine.environ)


def test_a_python_environment_that_fails_half_way_is_not_taken_for_whole(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))  # and uv beside it
    machine.script("python", "")
    makes = 'for last; do :; done; mkdir -p "$last/bin"; touch "$last/bin/python"'
    machine.script("uv", f'[ "$1" = pip ] && {{ echo "error: no such package" ; exit 1; }}\n{makes}')
    for _ in range(2):
        with pytest.raises(ConfigError, match="uv could not make the environment of faust: error: no such package"):  # fmt: skip
            python_of("faust", machine.said.append, machine.environ)
    machine.script("uv", f'[ "$1" = pip ] && exit 0\n{makes}')
    python = python_of("faust", machine.said.append, machine.environ)
    assert python.exists()
    assert f"-r {sources / 'faust' / 'requirements.txt'}" in machine.called()[-1]
