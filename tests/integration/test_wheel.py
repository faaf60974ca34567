"""The wheel, not the checkout: built, unpacked beside the installed packages, and used from another folder."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

root = Path(__file__).parents[2]
prelude = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]  # the checkout's
sys.path.insert(0, {site!r})
"""
program = """
import json, penstock, penstock.engine, penstock.connectors, penstock.schemas
from penstock.engine.native import _avro, _trees
from penstock.engine.codec.contracts import contract
from penstock.engine.native._trees import instruction_set
print(json.dumps({
    "from": [penstock.__file__, penstock.engine.__file__, penstock.connectors.__file__, penstock.schemas.__file__, _avro.__file__, _trees.__file__],
    "contract": contract("prediction")["name"], "isa": instruction_set(),
}))
"""


@pytest.mark.slow
def test_the_wheel_carries_everything_it_needs(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--wheel",
        "--no-build-isolation",
        "--out-dir",
        str(tmp_path),
        str(root),
    ]
    built = subprocess.run(build, capture_output=True, text=True, timeout=280, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("penstock_streaming-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"penstock"}
    assert "penstock/py.typed" in names
    assert not [name for name in names if name.endswith((".cpp", ".h", ".a", "CMakeLists.txt"))]
    assert "penstock/engine/native/cuda/tree_shap.cu" in names  # compiled where there is a GPU
    site = prelude.format(site=str(tmp_path / "site"))
    found = json.loads(_python(site + program, cwd=tmp_path))
    assert [path for path in found["from"] if not path.startswith(str(tmp_path / "site"))] == []
    assert found["contract"] == "Prediction"
    said = _python(site + "from penstock.engine.cli.main import main\nmain(['--help'])", cwd=tmp_path)
    assert "penstock COMMAND --help" in said


def _python(text: str, *, cwd: Path) -> str:
    command = [sys.executable, "-c", text]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=True).stdout
