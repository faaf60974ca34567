"""PMML: the interpreter of the tests, and with it the bundles, beside JPMML, which most of the world evaluates PMML with.

Its jars are fetched with Maven by their coordinates, once, into the cache; without Maven, Java or its repository the test is skipped.
"""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.connectors.embedded.jars import cache_folder
from tests.pmml_files import drawn, families, records
from tests.pmml_reference import Interpreter, NothingError

_folder = Path(__file__).parents[2] / "pmml_oracle"
_seeds, _records = 3, 60


@pytest.fixture(scope="module")
def jars() -> Path:
    """The folder of JPMML's jars."""
    maven, java = shutil.which("mvn"), shutil.which("javac")
    if maven is None or java is None:
        pytest.skip("JPMML needs Maven and a JDK")
    pom = _folder / "pmml-jars.xml"
    place = cache_folder() / f"jpmml-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            made = place.with_suffix(".part")
            command = [maven, "--batch-mode", "--quiet", "--file", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={made}"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, timeout=300, check=False)
            if done.returncode:
                pytest.skip("JPMML's jars cannot be fetched")
            made.rename(place)
    return place


def _asked(jars: Path, files: list[tuple[Path, Path]]) -> list[list[str]]:
    words = [str(each) for pair in files for each in pair]
    command = ["java", "-cp", f"{jars}/*", str(_folder / "Evaluate.java"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [part.splitlines()[1:] for part in f"\n{done.stdout}".split("\n# ")[1:]]


def _answer(interpreter: Interpreter, record: dict[str, Any]) -> Any:
    try:
        return interpreter.answer(record)
    except NothingError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_interpreter_of_the_tests_answers_as_jpmml(jars: Path, tmp_path: Path) -> None:
    cases: list[tuple[str, Interpreter, list[dict[str, Any]]]] = []
    files: list[tuple[Path, Path]] = []
    for family in families:
        for seed in range(_seeds):
            model, rows = tmp_path / f"{len(files)}.pmml", tmp_path / f"{len(files)}.tsv"
            text, asked = drawn(family, seed), records(seed, _records)
            model.write_text(text)
            lines = [
                "\t".join("" if value is None else str(value) for value in each.values()) for each in asked
            ]
            rows.write_text("\n".join(["\t".join(asked[0]), *lines]))
            cases.append((f"{family}, seed={seed}", Interpreter(text), asked))
            files.append((model, rows))
    compared, answered = 0, _asked(jars, files)
    for (where, interpreter, asked), lines in zip(cases, answered, strict=True):
        assert len(lines) == len(asked), f"{where}: {lines[:1]}"
        for record, line in zip(asked, lines, strict=True):
            wanted = _answer(interpreter, record)
            if "cannot accept missing value" in line:
                continue  # some of JPMML's functions fail where the standard's are missing
            if line.startswith("nothing"):
                assert wanted is None, f"{where}, {record}: JPMML answers {line}, the interpreter {wanted}"
                continue
            assert wanted is not None, f"{where}, {record}: JPMML answers {line}, the interpreter nothing"
            if isinstance(wanted, dict) and "=" not in line:  # votes: JPMML says the class only
                assert wanted[line] == max(wanted.values()), f"{where}, {record}"
            elif isinstance(wanted, dict):
                found = {
                    name: float(share) for name, share in (cell.rsplit("=", 1) for cell in line.split("\t"))
                }
                for name, share in found.items():
                    assert share == pytest.approx(wanted.get(name, 0.0), abs=1e-9), f"{where}, {record}"
            else:
                assert float(line) == pytest.approx(wanted, rel=1e-9, abs=1e-9), f"{where}, {record}"
            compared += 1
    assert compared > len(cases) * _records // 4
