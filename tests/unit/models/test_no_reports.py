"""ONNX Runtime's official packages report what they run to their maker; loaded by Penstock they report to nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import write_stump

session = "; import onnx; from onnx import helper, TensorProto as T; v = helper.make_tensor_value_info; m = helper.make_model(" \
    "helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [v('x', T.FLOAT, [1])], [v('y', T.FLOAT, [1])]), " \
    "opset_imports=[helper.make_opsetid('', 17)], ir_version=8); " \
    "o.InferenceSession(m.SerializeToString(), providers=['CPUExecutionProvider'])"  # fmt: skip


def written_at_home(folder: Path, code: str, **variables: str) -> set[str]:
    """Files that a process leaves in its home, when nothing tells it that it is tested."""
    folder.mkdir()
    hidden = ("CI", "BUILD", "GITHUB", "GITLAB", "JENKINS", "TF_", "PYTEST", "ORT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    subprocess.run(
        [sys.executable, "-c", code], env={**environment, "HOME": str(folder), "TMPDIR": str(folder), **variables},
        check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_about_what_is_run(tmp_path: Path) -> None:
    bare = written_at_home(tmp_path / "bare", "import onnxruntime as o" + session)
    if not any("onnxruntime" in name for name in bare):
        pytest.skip("this ONNX Runtime reports nothing by itself")
    ours = "from penstock.engine.models.runtime.onnx_runtime import onnx_runtime; o = onnx_runtime()"
    assert written_at_home(tmp_path / "ours", ours + session) == set()
    write_stump(tmp_path / "model")
    load = f"import penstock; penstock.load({str(tmp_path / 'model')!r})"
    assert written_at_home(tmp_path / "loaded", load) == set()
    wished = written_at_home(tmp_path / "wished", ours + session, ORT_DISABLE_TELEMETRY="0")
    assert wished  # what the environment says wins
