"""The README's commands: each is run here or is what CI itself runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from penstock.engine.settings.model import parse_settings

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
    "penstock run penstock.yaml": "tests/integration/test_chaos.py",
    "penstock lag penstock.yaml": "tests/integration/test_lag_and_scaler.py",
    "penstock dlq list penstock.yaml": "tests/integration/test_dead_letters_kafka.py",
}
here = {
    "penstock package model.txt --out models/fraud --background train.parquet",
    "penstock explain models/fraud --row record.json",
    "penstock check penstock.yaml",
}


def test_every_command_of_the_readme_is_run_somewhere() -> None:
    assert set(commands()) == by_ci | set(by_other_tests) | here
    for file in by_other_tests.values():
        assert (root / file).exists(), file
    assert "make test" in (root / ".ci" / "run").read_text()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (root / target).exists(), target
    for target in re.findall(r"`((?:tests|docs|examples|deploy)/[^`]+)`", readme):
        assert (root / target).exists(), target


def test_the_shortest_settings_are_settings(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    parse_settings(yaml.safe_load(block), origin="README.md", folder=tmp_path)


def test_package_explain_and_check_do_as_the_readme_says(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    table = pandas.DataFrame(rng.normal(size=(400, 4)), columns=["amount", "age", "hour", "limit"])
    target = (table["amount"] + table["hour"] > 0.5).astype(int)
    parameters = {"objective": "binary", "verbose": -1, "num_leaves": 7, "num_threads": 1}
    lightgbm.train(parameters, lightgbm.Dataset(table, target), 10).save_model(tmp_path / "model.txt")
    table.to_parquet(tmp_path / "train.parquet")
    (tmp_path / "record.json").write_text(json.dumps({"amount": 1.5, "age": 0.1, "hour": 0.4, "limit": None}))
    fields = [{"name": name, "type": ["null", "double"]} for name in table.columns]
    schema = {"type": "record", "name": "Transaction", "fields": fields}
    (tmp_path / "transaction.avsc").write_text(json.dumps(schema))
    settings = yaml.safe_load(blocks("yaml")[0]) | {
        "input": {"topic": "transactions", "schema": "transaction.avsc"}
    }
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(settings))

    packaged = penstock(
        *["package", "model.txt", "--out", "models/fraud", "--background", "train.parquet"], cwd=tmp_path
    )
    assert packaged.returncode == 0, packaged.stderr
    explained = penstock(*["explain", "models/fraud", "--row", "record.json", "--json"], cwd=tmp_path)
    assert explained.returncode == 0, explained.stderr
    (record,) = json.loads(explained.stdout)["records"]
    total = record["base_value"] + sum(each["attribution"] for each in record["attributions"])
    score = record["outputs"]["probabilities"][1]
    sign = 1 if record["label"] == "1" else -1
    assert total * sign == pytest.approx(np.log(score / (1 - score)), abs=1e-4)
    checked = penstock(*["check", "penstock.yaml", "--no-kafka", "--json"], cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "command", ["", "demo", "broker", "package", "check", "run", "scaler", "lag", "dlq", "explain", "bench"]
)
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
        for line in readme.partition("## Figures")[2].partition("## Where")[0].splitlines()
        if line.startswith("| ")
    ]
    figures = [row for row in rows[1:] if re.search(r"\d", row)]
    assert figures
    for row in figures:
        named = re.findall(r"`(penstock [^`]+|make [^`]+)`", row)
        assert named, row
        for command in named:
            words = command.split()
            if words[0] == "penstock":
                assert penstock(*words[1:3], "--help", cwd=root).returncode == 0, command


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
