"""Continuous integration, wherever it runs, runs the repository's own commands, on every Python that is promised."""

import re
from pathlib import Path
from typing import Any

import yaml

root = Path(__file__).parents[3]
gitlab: dict[str, Any] = yaml.safe_load((root / ".gitlab-ci.yml").read_text())
github: dict[str, Any] = yaml.safe_load((root / ".github/workflows/ci.yaml").read_text())
installs = "apt-get update -q && apt-get install -y -q --no-install-recommends "
jenkins = (root / "Jenkinsfile").read_text()
targets = set(re.findall(r"^([a-z-]+):.*## ", (root / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[str]:
    jobs = [job for job in gitlab.values() if isinstance(job, dict)]
    steps = [
        step
        for job in github["jobs"].values()
        for step in job["steps"]
        if "run" in step and not step["run"].startswith(installs)  # GitLab has before_script for that
    ]
    return [line for job in jobs for line in job["script"]] + [step["run"] for step in steps]


def test_what_runs_is_in_the_repository() -> None:
    assert len(commands()) >= 5
    for command in commands():
        match = re.fullmatch(r"bash \.ci/run|make ([a-z-]+)", command)
        assert match, f"{command}: write it in the Makefile"
        assert match[1] is None or match[1] in targets


def test_jenkins_makes_what_the_others_make_in_the_same_order() -> None:
    steps = re.findall(r"^\s*steps \{ (.*) \}$", jenkins, re.MULTILINE)
    assert len(steps) == len(re.findall(r"\bsteps\b", jenkins))
    made = [re.fullmatch(r"sh 'make ([a-z-]+)'", step) for step in steps]
    assert all(made), f"{steps}: one make target each"
    names = [match[1] for match in made if match]
    run = re.findall(r"^make ([a-z-]+)$", (root / ".ci" / "run").read_text(), re.MULTILINE)
    assert names == [*run, *gitlab["advisories"]["script"][0].split()[1:]]
    assert set(names) <= targets


def test_every_promised_python_is_tested() -> None:
    (promised,) = re.findall(r'requires-python = ">=(3\.\d+)', (root / "pyproject.toml").read_text())
    on_gitlab = gitlab["test"]["parallel"]["matrix"][0]["PYTHON"]
    assert on_gitlab == github["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert on_gitlab[0] == promised
    (on_jenkins,) = re.findall(r"^\s*values (.*)$", jenkins, re.MULTILINE)
    assert re.findall(r"'([^']+)'", on_jenkins) == on_gitlab


def test_reports_are_kept_also_of_what_failed() -> None:
    kept = gitlab["test"]["artifacts"]
    assert (kept["when"], kept["paths"]) == ("always", ["reports"])
    (upload,) = [
        step for step in github["jobs"]["test"]["steps"] if "upload-artifact" in step.get("uses", "")
    ]
    assert (upload["if"], upload["with"]["path"]) == ("always()", "reports")
    makefile = (root / "Makefile").read_text()
    read = re.findall(r"post \{ always \{ junit '(.*)' \} \}", jenkins)
    assert len(read) == 2
    for report in read:
        assert f"--junit-xml={report}" in makefile
    assert "archiveArtifacts artifacts: 'reports/**'" in jenkins


def test_every_job_ends() -> None:
    for name, job in gitlab.items():
        assert not isinstance(job, dict) or "timeout" in job, name
    for name, job in github["jobs"].items():
        assert "timeout-minutes" in job, name
    assert jenkins.count("timeout(time: ") == jenkins.count("agent { docker")


def test_the_browser_s_job_installs_what_the_pages_are_tried_in() -> None:
    """A browser that is missing is a failure there: where one happens to be, .ci/run tries the pages as well."""
    (on_gitlab,) = gitlab["browser"]["before_script"]
    (on_github,) = [
        step["run"] for step in github["jobs"]["browser"]["steps"] if step.get("run", "").startswith(installs)
    ]
    assert on_gitlab == on_github
    assert set(on_gitlab.removeprefix(installs).split()) >= {"chromium", "chromium-driver", "fonts-noto-cjk"}
    assert gitlab["browser"]["script"] == ["make test-pages"]
    script = (root / ".ci/run").read_text()
    assert script.index("command -v chromium") < script.index("make test-pages")
