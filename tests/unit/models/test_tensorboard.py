"""`penstock package --tensorboard`: TensorBoard's own reader finds the graph, importance and parity."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper

from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.tensorboard import importance as importance_module
from penstock.engine.tensorboard.event_file import EventFile, as_markdown, shown_name
from penstock.engine.tensorboard.importance import importance
from penstock.engine.tensorboard.onnx_graph import graph_def
from tests.bundles import constant, graph_bytes, linear_model, tensor, weights, write_stump

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
nasty = "<script>alert(1)</script> \u202e| [x](http://y) \x1b[31m"


def _read(folder: Path) -> Any:
    found = accumulator.EventAccumulator(str(folder), size_guidance=dict.fromkeys(
        (accumulator.SCALARS, accumulator.HISTOGRAMS, accumulator.TENSORS), 0
    ))  # fmt: skip
    found.Reload()
    return found


def _text(found: Any, tag: str) -> str:
    return str(found.Tensors(tag)[0].tensor_proto.string_val[0].decode())


def _lightgbm(path: Path) -> np.ndarray[Any, Any]:
    lightgbm = pytest.importorskip("lightgbm")
    rows = np.random.default_rng(0).normal(size=(400, 3))
    labels = (rows[:, 0] + 0.3 * rows[:, 1] > 0).astype(int)
    data = lightgbm.Dataset(rows, labels, params={"verbose": -1})
    lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_leaves": 7, "seed": 0, "num_threads": 1}, data, 10
    ).save_model(path)
    return rows


def _package(tmp_path: Path, *words: str) -> int:
    command = ["package", str(tmp_path / "m.txt"), "--out", str(tmp_path / "bundle"), "--json"]
    return main([*command, "--tensorboard", str(tmp_path / "events"), *words])


def test_tensorboard_reads_what_packaging_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _lightgbm(tmp_path / "m.txt")
    np.save(tmp_path / "background.npy", rows[:300])
    words = ["--background", str(tmp_path / "background.npy"), "--feature-names", "speed,<b>wind</b>,unused"]
    assert _package(tmp_path, *words) == 0
    report = json.loads(capsys.readouterr().out)
    assert Path(report["tensorboard"]).parent == tmp_path / "events"
    assert [each.name for each in (tmp_path / "events").iterdir()] == [Path(report["tensorboard"]).name]
    found = _read(tmp_path / "events")
    scalars = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    parity = report["parity"]
    assert set(parity["differences"]) == {each["name"] for each in report["outputs"]}
    for output, difference in parity["differences"].items():
        assert scalars[f"parity/largest difference of {output}"] == np.float32(difference)
    assert scalars["parity/largest difference"] == np.float32(parity["difference_max"])
    assert scalars["parity/rows given"] == 300

    # Importance is what the explainer says of the background, asked here of ONNX Runtime's scores.
    values = _shap_of(tmp_path / "bundle", rows[:300])
    for name, of_feature in zip(("speed", "<b>wind</b>", "unused"), values.T, strict=True):
        assert scalars[f"importance/{name}"] == pytest.approx(np.abs(of_feature).mean(), rel=1e-4, abs=1e-7)
        histogram = found.Histograms(f"attributions/{name}")[0].histogram_value
        assert histogram.num == 300 == sum(histogram.bucket)
        assert histogram.min == pytest.approx(of_feature.min(), rel=1e-4, abs=1e-7)
        assert histogram.max == pytest.approx(of_feature.max(), rel=1e-4, abs=1e-7)
    assert "300 of 300 background rows" in _text(found, "importance/table")
    assert "<b>" not in _text(found, "importance/table")
    assert report["digest"] in _text(found, "parity/report")

    graph = found.Graph()
    assert "TreeEnsemble" in " ".join(node.op for node in graph.node)
    names = {node.name for node in graph.node}
    assert len(names) == len(graph.node)
    for node in graph.node:
        assert {each.partition(":")[0] for each in node.input} <= names
    assert [node for node in graph.node if node.op == "Output" and node.input]
    assert len(graph.SerializeToString()) < 10_000  # the numbers of the trees stay out


def _shap_of(bundle: Path, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from penstock.engine.explain.factory import make_explainer
    from penstock.engine.models.runtime.loader import open_model
    from penstock.engine.settings.model import ExplainSettings

    opened = Bundle.load(bundle)
    model = open_model(opened, device="cpu", runtime="onnxruntime", batch_rows_max=512, clock=SystemClock())
    matrix = rows.astype(opened.signature.dtype)
    found = make_explainer(opened, model, ExplainSettings()).explain(matrix, model.predict(matrix))
    return np.asarray(found.values)


def test_what_was_not_compared_has_no_scalar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(linear_model())
    words = ["package", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "bundle"), "--unproved"]
    assert main([*words, "--tensorboard", str(tmp_path / "events")]) == 0
    found = _read(tmp_path / "events")
    assert not [tag for tag in found.Tags()["scalars"] if "largest difference" in tag]
    assert "not compared" in _text(found, "parity/report")
    assert [node.op for node in found.Graph().node] == ["Placeholder", "Const", "MatMul", "Softmax", "Output"]


@pytest.mark.parametrize("kind", ["held", "file", "inside"])
def test_a_place_that_is_not_free_is_refused_before_anything_is_packaged(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _lightgbm(tmp_path / "m.txt")
    folder = {"held": tmp_path / "events", "file": tmp_path / "a file", "inside": tmp_path / "bundle/events"}[
        kind
    ]
    if kind == "held":
        folder.mkdir()
        (folder / "events.out.tfevents.1.other").touch()
    elif kind == "file":
        folder.touch()
    command = [
        "package",
        str(tmp_path / "m.txt"),
        "--out",
        str(tmp_path / "bundle"),
        "--tensorboard",
        str(folder),
    ]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert str(folder) in said
    assert "Traceback" not in said
    assert not (tmp_path / "bundle").exists()


def test_without_the_extra_a_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorboardX'] = None; from penstock.engine.cli.main import main; "
        "raise SystemExit(main(sys.argv[1:]))"
    )
    words = ["package", "m.txt", "--out", "bundle", "--tensorboard", "events"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "[tensorboard]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.schemas.errors import ConfigError

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    file = EventFile(wall_s=1.0)
    file.scalar("a", 1.0)
    with pytest.raises(ConfigError, match="No space left"):
        file.write(tmp_path / "events")
    assert not list((tmp_path / "events").iterdir())


def test_every_kind_of_number_comes_back(tmp_path: Path) -> None:
    file = EventFile(wall_s=1.7e9)
    spreads: dict[str, list[float]] = {
        "one": [2.5],
        "equal": [0.0] * 9,
        "tiny": [1e-320, 2e-320],
        "wide": [-1e300, 1e300],
        "usual": [1, 2, 2],
    }
    for name, values in spreads.items():
        file.histogram(name, np.array(values, dtype=np.float64))
    for number in (1.0, 2.0):
        file.scalar("same name", number)
    file.text("text", as_markdown(nasty))
    path = file.write(tmp_path)
    assert path.name == "events.out.tfevents.1700000000.penstock"
    found = _read(tmp_path)
    for name, values in spreads.items():
        histogram = found.Histograms(name)[0].histogram_value
        assert sum(histogram.bucket) == len(values), name
        assert found.Histograms(name)[0].wall_time == 1.7e9
    assert [found.Scalars(tag)[0].value for tag in ("same name", "same name (2)")] == [1.0, 2.0]


def test_text_and_names_carry_no_markup() -> None:
    from markdown import markdown

    drawn = markdown(as_markdown(nasty), extensions=["markdown.extensions.tables"])
    for each in ("<script", "<a ", "\u202e", "\x1b"):
        assert each not in drawn
        assert each not in as_markdown(nasty)
    plain = "x_y: a|b *c* <d> 1. [e](f) - `g` ~~h~~ a@b.ch \\\\ #i &amp;"
    assert "".join(ElementTree.fromstring(markdown(as_markdown(plain))).itertext()) == plain
    assert shown_name(nasty).isprintable()
    assert shown_name("x" * 1_000_000) == "x" * 120 + "... (1,000,000 characters)"


def test_names_that_tensorboard_does_not_take_stay_apart() -> None:
    nodes = [
        helper.make_node("Relu", ["/in put"], ["a b"], name=""),
        helper.make_node("Split", ["a b"], ["a_b", "c"], name="", num_outputs=2),
        helper.make_node("Concat", ["a_b", "c", "w"], ["out"], axis=0, name="//x//y/"),
    ]
    graph = onnx.load_from_string(
        graph_bytes(nodes, [tensor("/in put", ["N", 4])], [tensor("out", ["N", 2])], [constant("w", weights)])
    )
    found = {node.name: (node.op, list(node.input)) for node in graph_def(graph).node}
    assert found == {
        "in_put": ("Placeholder", []),
        "w": ("Const", []),
        "a_b": ("Relu", ["in_put"]),
        "a_b_2": ("Split", ["a_b"]),
        "x/y": ("Concat", ["a_b_2", "a_b_2:1", "w"]),
        "output/out": ("Output", ["x/y"]),
    }


def test_importance_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_stump(tmp_path / "bundle")
    assert "8 of 8 golden rows" in importance(bundle, SystemClock()).said
    monkeypatch.setattr(importance_module, "rows_max", 5)
    found = importance(bundle, SystemClock())
    assert len(found.values) == 5
    assert "3 rows left out" in found.said
    bare = write_stump(tmp_path / "bare", cover=False)
    found = importance(bare, SystemClock())
    assert not len(found.values)
    assert found.said.startswith("Nothing is explained: ")
