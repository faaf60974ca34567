"""The Ansible role: the unit as systemd reads it; and with `make test-ansible` the role itself, linted and run on a root folder."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from penstock.engine.settings.model import parse_settings

root = Path(__file__).parents[3]
ansible = root / "deploy" / "ansible"
role = ansible / "roles" / "penstock"
defaults: dict[str, Any] = yaml.safe_load((role / "defaults" / "main.yml").read_text())
specs: dict[str, Any] = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
options = specs["argument_specs"]["main"]["options"]
programs, wheel = os.environ.get("PENSTOCK_ANSIBLE"), os.environ.get("PENSTOCK_WHEEL")
needs_ansible = pytest.mark.skipif(not programs or not wheel, reason="make test-ansible")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not at hand"
)
exposure_max = 2.0
"""Of 10, as `systemd-analyze security` reckons; a unit that says nothing has 9.6."""
settings: dict[str, Any] = {
    "kafka": {"bootstrap_servers": "kafka:9092", "group": "fraud", "drain_budget_s": 7.5},
    "input": {"topic": "in"},
    "output": {"predictions": "out", "dead_letters": "aside"},
    "model": {"path": "/var/lib/penstock/model"},
}


def unit(**changes: Any) -> str:
    """The unit as the role writes it."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string((role / "templates" / "penstock.service.j2").read_text())
    given = {**defaults, "penstock_settings": settings, "ansible_managed": "by a test", **changes}
    return template.render(given)


def entries(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_every_option_is_described_and_has_a_default_or_must_be_given() -> None:
    required = {name for name, option in options.items() if option.get("required")}
    assert options.keys() == required | defaults.keys()
    assert not required & defaults.keys()
    used = set(
        re.findall(
            r"\bpenstock_[a-z_]+", "".join(p.read_text() for p in sorted(role.rglob("*")) if p.is_file())
        )
    )
    own = {name for name in used if name.startswith(("penstock_environment_", "penstock_user_"))}
    assert used - own - {"penstock_streaming"} == set(options)


def test_it_is_given_the_time_that_its_drain_takes_as_in_the_chart() -> None:
    assert entries(unit())["TimeoutStopSec"] == ["23"]
    chart = (root / "deploy/helm/penstock/templates/_names.tpl").read_text()
    assert "(.Values.settings.kafka.drain_budget_s | ceil | int64) 15" in chart
    assert entries(unit(penstock_settings={"kafka": {}}))["TimeoutStopSec"] == ["18"]


def test_a_crash_leaves_no_file_with_what_was_in_memory() -> None:
    assert entries(unit())["LimitCORE"] == ["0"]


def test_what_is_given_stands_in_it_and_cannot_end_a_line_or_a_word() -> None:
    text = unit(
        penstock_environment={"OMP_NUM_THREADS": 1, "ODD": 'a "word", 5 % of \\n', "LINES": "a\nUser=root"},
        penstock_credentials={"kafka-password": "/root/secret"},
        penstock_memory_max="4G",
    )
    found = entries(text)
    assert '"OMP_NUM_THREADS=1"' in found["Environment"]
    assert '"ODD=a \\"word\\", 5 %% of \\\\n"' in found["Environment"]
    assert '"LINES=a\\nUser=root"' in found["Environment"]
    assert found["User"] == ["penstock"]
    assert found["LoadCredential"] == ["kafka-password:/root/secret"]
    assert found["MemoryMax"] == ["4G"]


def test_the_example_gives_what_must_be_given_and_its_settings_are_right() -> None:
    (group,) = yaml.safe_load((ansible / "inventory.example.yml").read_text()).values()
    given = group["vars"]
    assert (
        {name for name, option in options.items() if option.get("required")} <= given.keys() <= options.keys()
    )
    tree = given["penstock_settings"]
    parse_settings(tree, origin="the example", folder=ansible)
    folder, name = tree["kafka"]["security"]["password_file"].rsplit("/", 1)
    assert folder == "/run/credentials/penstock.service"
    assert name in given["penstock_credentials"]


@needs_systemd
@pytest.mark.parametrize("gpu", [False, True])
def test_systemd_understands_all_of_it_and_finds_it_well_protected(tmp_path: Path, gpu: bool) -> None:
    file = tmp_path / "penstock.service"
    text = unit(penstock_gpu=gpu, penstock_memory_max="4G", penstock_credentials={"a": "/root/a"})
    # Verified as it would run here: this Python and this user exist on every machine that runs the tests.
    here = text.replace("/opt/penstock/current/bin/python", "/bin/sh").replace("=penstock\n", "=root\n")
    file.write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "penstock.service" not in done.stderr, done.stderr
    file.write_text(text)
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", "--threshold", str(int(exposure_max * 10)), str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    weak = [each for each in json.loads(judged.stdout or "[]") if each["set"] is False]
    assert judged.returncode == 0, judged.stderr + "\n".join(each["description"] for each in weak)


@needs_ansible
def test_ansible_lint_has_nothing_to_say(tmp_path: Path) -> None:
    done = _run("ansible-lint", "--offline", "--profile", "production", ".", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_ansible
def test_it_makes_a_service_that_starts_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    assert wheel is not None
    place = tmp_path / "root"
    place.mkdir()
    given: dict[str, Any] = {
        "penstock_root": str(place), "penstock_wheel": str(Path(wheel).resolve()), "penstock_settings": settings,
        "penstock_python": shutil.which("python3"),
    }  # fmt: skip
    play = _player(tmp_path)
    first = play(given)
    assert first["failures"] == 0, first["said"]
    assert first["changed"] > 5
    assert "penstock:x:10001:" in (place / "etc/passwd").read_text()
    python = place / "opt/penstock/current/bin/python"
    said = subprocess.run(
        [python, "-P", "-m", "penstock", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(r"\d+\.\d+", said.stdout)
    written = place / "etc/penstock/penstock.yaml"
    assert yaml.safe_load(written.read_text()) == settings
    assert entries((place / "etc/systemd/system/penstock.service").read_text()) == entries(unit())

    assert play(given)["changed"] == 0

    wider = {**settings, "kafka": {**settings["kafka"], "drain_budget_s": 20}}
    assert (
        play({**given, "penstock_settings": wider})["changed"] == 2
    )  # the settings, and the unit's time to stop
    wrong = {**settings, "kafka": {**settings["kafka"], "drain_bugdet_s": 20}}
    refused = play({**given, "penstock_settings": wrong})
    assert (refused["failures"], refused["changed"]) == (1, 0)
    assert "drain_bugdet_s" in refused["said"]
    assert yaml.safe_load(written.read_text()) == wider, "what was there stays"


def _run(program: str, *words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    assert programs is not None
    path = f"{Path(programs).resolve()}:{os.environ['PATH']}"
    environment = {
        "PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(folder / "temporary"),
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    return subprocess.run(
        [str(Path(programs).resolve() / program), *words], cwd=ansible, env={**kept, **environment}, capture_output=True,
        text=True, timeout=800, check=False,
    )  # fmt: skip


def _player(folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Plays the example's playbook on this machine; how much it changed, how often it failed, and what it said."""
    inventory = folder / "inventory.yml"
    local = {"ansible_connection": "local", "ansible_python_interpreter": shutil.which("python3")}
    inventory.write_text(yaml.safe_dump({"penstock": {"hosts": {"here": local}}}))

    def play(given: dict[str, Any]) -> dict[str, Any]:
        (folder / "given.json").write_text(json.dumps({**given, "ansible_become": False}))
        done = _run(
            "ansible-playbook",
            "-i",
            str(inventory),
            "-e",
            f"@{folder / 'given.json'}",
            "site.yml",
            folder=folder,
        )
        recap = re.search(r"^here +: .*changed=(\d+) .*failed=(\d+) ", done.stdout, re.MULTILINE)
        assert recap, done.stdout[-2000:] + done.stderr[-2000:]
        changed, failures = int(recap[1]), int(recap[2])
        assert failures == (done.returncode != 0), done.stdout[-3000:]
        return {"changed": changed, "failures": failures, "said": done.stdout}

    return play
