"""The wheel, not the checkout: beside packages of other people, and run from a folder that holds modules of theirs."""

import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import write_stump
from tests.stream import Stream, event, event_schema

root = Path(__file__).parents[2]
strangers = ("schemas", "connectors")
records = 200


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` does."""
    folder = tmp_path_factory.mktemp("dist")
    build = ["-m", "uv", "build", "--wheel", "--no-build-isolation", "--out-dir", str(folder), str(root)]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = folder.glob("penstock_streaming-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the strangers and the wheel; what these need is lent by the one of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    into = ["pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--no-deps"]
    _uv(*into, "--require-hashes", "-r", str(Path(__file__).with_name("strangers.txt")))
    before = _digests(folder)
    assert {path.split("/")[0].removesuffix(".py") for path in before} >= set(strangers)
    _uv(*into, str(wheel))
    assert {path: before[path] for path in before} == {path: _digests(folder)[path] for path in before}
    (site,) = folder.glob("lib/python*/site-packages")
    lent = Path(np.__file__).parents[1]
    (site / "lent.pth").write_text(
        f"{lent}\n"
    )  # .pth files in there, of the editable checkout, are not followed
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory with modules of somebody else under the names of ours and of libraries that we use."""
    folder = tmp_path / "hostile"
    for name in ("engine", "connectors", "penstock", "numpy", "onnxruntime"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(
            f"raise RuntimeError('imported {name} of the working directory')\n"
        )
    for name in ("schemas", "orjson", "yaml", "confluent_kafka", "secrets", "logging"):
        (folder / f"{name}.py").write_text(
            f"raise RuntimeError('imported {name} of the working directory')\n"
        )
    return folder


@pytest.mark.slow
def test_the_wheel_holds_one_package_and_all_that_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"penstock"}
    assert "penstock/py.typed" in names
    assert not [name for name in names if name.endswith((".cpp", ".h", ".a", "CMakeLists.txt"))]
    assert not [name for name in names if "bench/" in name], "the laboratory stays in the clone"
    assert "penstock/engine/native/cuda/tree_shap.cu" in names  # compiled where there is a GPU


@pytest.mark.slow
def test_every_module_comes_from_the_wheel(environment: Path, hostile: Path) -> None:
    program = """
import importlib.util, json, penstock, penstock.engine, penstock.connectors, penstock.schemas
from penstock.engine.native import _avro, _trees
from penstock.engine.codec.contracts import contract
ours = [penstock, penstock.engine, penstock.connectors, penstock.schemas, _avro, _trees]
print(json.dumps({"ours": [module.__file__ for module in ours], "theirs": [importlib.util.find_spec(name).origin for name in ("schemas", "connectors")],
                  "contract": contract("prediction")["name"]}))
"""
    command = [str(environment / "bin" / "python"), "-P", "-c", program]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    (site,) = environment.glob("lib/python*/site-packages")
    assert [path for path in found["ours"] if not path.startswith(f"{site}/penstock/")] == []
    assert [path for path in found["theirs"] if not path.startswith(f"{site}/")] == []
    assert found["contract"] == "Prediction"


@pytest.mark.slow
def test_the_laboratory_belongs_to_a_clone(environment: Path, hostile: Path) -> None:
    command = [str(environment / "bin" / "penstock"), "bench", "codec", "--records", "1000"]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "clone of the repository" in done.stderr


@pytest.mark.slow
@pytest.mark.kafka
def test_a_worker_runs_beside_strangers_in_a_hostile_folder(
    environment: Path, hostile: Path, kafka: str, tmp_path: Path
) -> None:
    write_stump(tmp_path / "model", input_schema=json.dumps(event_schema).encode())
    stream = Stream(tmp_path, kafka, f"strangers-{os.getpid()}", tmp_path / "model")
    try:
        stream.feed([event(number) for number in range(records)], per_s=1000)
        stream.start("beside", command=[str(environment / "bin" / "penstock")], cwd=hostile)
        stream.wait(1.0, 60)
        stream.await_readers(20)
        assert stream.books().check() == []
    finally:
        stream.close()


def _uv(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _digests(environment: Path) -> dict[str, str]:
    """Each file of the strangers by its path below site-packages."""
    (site,) = environment.glob("lib/python*/site-packages")
    files = [path for name in strangers for path in (*site.glob(f"{name}/**/*"), *site.glob(f"{name}.py"))]
    return {
        str(path.relative_to(site)): sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.suffix != ".pyc"
    }
