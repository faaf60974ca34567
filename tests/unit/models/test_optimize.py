"""`penstock package --optimize`: what is tried is measured, and what is kept keeps to the error allowed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.run_options import Runtime
from penstock.engine.models.packaging import optimize as module
from penstock.engine.models.packaging.convert import convert
from penstock.engine.models.packaging.converted import Converted, PackageOptions
from penstock.engine.models.packaging.optimize import Variant, choose, optimize
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.quantize import int8
from penstock.engine.models.runtime import session_spec as opening
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.session import OnnxModel, rewritten
from penstock.schemas.errors import ConfigError
from tests.bundles import constant, graph_bytes, linear_model, tensor, write_linear, write_stump
from tests.pretended_gpu import pretend_gpu

width = 24


def network() -> bytes:
    """scores (N, 2) = softmax(relu(x (N, 24) @ a + b) @ c)."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["bent"]),
        helper.make_node("MatMul", ["bent", "c"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"], axis=1),
    ]
    constants = [
        constant("a", random.normal(size=(width, 64)).astype(np.float32) / 4),
        constant("b", random.normal(size=64).astype(np.float32)),
        constant("c", random.normal(size=(64, 2)).astype(np.float32) / 4),
    ]
    return graph_bytes(nodes, [tensor("x", ["N", width])], [tensor("scores", ["N", 2])], constants)


def features(**policies: str) -> list[dict[str, Any]]:
    return [{"name": f"f{place}", "kind": "number", **policies} for place in range(width)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "network.onnx"
    file.write_bytes(network())
    return file


def converted(path: Path, **policies: str) -> Converted:
    return convert(path, PackageOptions(overrides=features(**policies), classes=("no", "yes")))


def rows(count: int = 300) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)


def test_every_form_is_measured_and_only_equal_ones_fit_by_default(path: Path) -> None:
    found = optimize(converted(path), rows(), error_allowed=1e-6, device=Device(), clock=SystemClock())
    by_form = {each.form: each for each in found.variants}
    assert [each.optimization for each in found.variants[:4]] == ["all", "extended", "basic", "disabled"]
    assert set(by_form) == {"converted", "rewritten", "float16", "int8"}
    for each in found.variants:
        assert not each.fault
        assert each.load_ms > 0
        assert [size for size, _ in each.ms] == [1, 256]
        assert each.keeps_to(1e-6) == (each.form in ("converted", "rewritten"))
    assert 0 < by_form["float16"].difference_max < 0.01 < 0.1 > by_form["int8"].difference_max > 0
    assert len(by_form["int8"].model) < len(by_form["float16"].model) < len(by_form["converted"].model)
    # A row's scale is that of its batch: alone it scores otherwise, and that counts.
    assert by_form["int8"].alone_difference_max > 0
    assert by_form["float16"].alone_difference_max == by_form["converted"].alone_difference_max == 0
    assert found.chosen.keeps_to(1e-6)


def test_a_missing_value_that_spoils_its_batch_rules_int8_out(path: Path) -> None:
    some = rows()
    some[7, 3] = np.nan
    found = optimize(converted(path), some, error_allowed=0.5, device=Device(), clock=SystemClock())
    int8 = next(each for each in found.variants if each.form == "int8")
    assert int8.error == np.inf
    assert not int8.keeps_to(0.5)


def _variant(form: Any, *ms: float, error: float = 0.0, labels: int = 0, fault: str = "") -> Variant:
    return Variant(
        form=form,
        optimization="all",
        fault=fault,
        ms=tuple(zip((1, 256), ms, strict=False)),
        difference_max=error,
        labels_different=labels,
    )


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([_variant("int8", 1.0, 5.0)], "int8"),
        ([_variant("int8", 1.0, 9.5)], "converted"),  # hardly faster
        ([_variant("int8", 1.5, 5.0)], "converted"),  # slow on one row
        ([_variant("int8", 1.0, 5.0, error=0.02)], "converted"),
        ([_variant("int8", 1.0, 5.0, labels=1)], "converted"),
        ([_variant("int8", fault="no")], "converted"),
        ([_variant("int8", 1.0, 5.0, error=0.02), _variant("float16", 1.1, 8.0, error=0.01)], "float16"),
        ([_variant("rewritten", 1.0, 8.0), _variant("int8", 1.0, 7.0)], "int8"),
    ],
)
def test_the_fastest_that_keeps_to_the_error_is_kept(others: Sequence[Variant], chosen: str) -> None:
    found, reason = choose([_variant("converted", 1.0, 10.0), *others], 0.01)
    assert found.form == chosen
    assert ("times as fast as" in reason) == (chosen != "converted")


def test_trees_stay_as_they_were_converted(tmp_path: Path) -> None:
    (tmp_path / "stump.onnx").write_bytes(write_stump(tmp_path / "stump").model)
    report = package(tmp_path / "stump.onnx", tmp_path / "bundle", optimize_within=1e-6)
    assert report.optimized is not None
    assert {each.form for each in report.optimized.variants if not each.fault} == {"converted"}
    assert "trees" in report.optimized.variants[-1].fault
    assert report.bundle.manifest.runtime.form == "converted"
    assert report.bundle.manifest.runtime.native.equal


def test_a_graph_without_products_has_no_int8_form(tmp_path: Path) -> None:
    model = graph_bytes(
        [helper.make_node("Tanh", ["x"], ["y"])], [tensor("x", ["N", 3])], [tensor("y", ["N", 3])]
    )
    (tmp_path / "tanh.onnx").write_bytes(model)
    found = optimize(
        convert(tmp_path / "tanh.onnx", PackageOptions()),
        rows()[:, :3],
        error_allowed=1.0,
        device=Device(),
        clock=SystemClock(),
    )
    assert "no matrix product" in next(each.fault for each in found.variants if each.form == "int8")


@pytest.mark.parametrize("form", ["rewritten", "float16", "int8"])
def test_the_form_kept_is_stored_proved_and_served(
    form: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "choose", lambda found, _: (next(each for each in found if each.form == form), "wanted")
    )
    report = package(
        path, tmp_path / "bundle", features=features(missing="reject"), rows=rows(), classes=["a", "b"],
        optimize_within=0.1,
    )  # fmt: skip
    stored = Bundle.load(tmp_path / "bundle").manifest.runtime
    assert (stored.form, stored.optimization) == (form, "all")
    assert stored.difference_max >= (0 if form == "rewritten" else 1e-6)
    assert any("batch" in note for note in report.notes) == (form == "int8")
    model = open_model(report.bundle, device="cpu", batch_rows_max=8, clock=SystemClock())
    plain = package(path, tmp_path / "plain", features=features(missing="reject"), rows=rows()).bundle
    expected = open_model(plain, device="cpu", batch_rows_max=8, clock=SystemClock()).predict(rows())
    found = model.predict(rows()).outputs["scores"]
    np.testing.assert_allclose(found, expected.outputs["scores"], atol=0.05)


def test_the_option_kept_is_used_at_start(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    class Recorded(OnnxModel):
        def __init__(self, **arguments: Any) -> None:
            used.append(arguments["optimization"])
            super().__init__(**arguments)

    monkeypatch.setattr(module, "choose", lambda found, _: (found[3], "wanted"))
    bundle = package(path, tmp_path / "bundle", features=features(), optimize_within=1e-6).bundle
    monkeypatch.setattr(opening, "OnnxModel", Recorded)
    open_model(bundle, device="cpu", batch_rows_max=4, clock=SystemClock())
    assert used == ["disabled"]


def test_the_command_shows_every_variant(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["package", str(path), "--out", str(tmp_path / "bundle")]
    assert main([*words, "--allow-error", "0.1"]) == 2
    assert "goes with --optimize" in capsys.readouterr().err
    assert main([*words, "--unproved", "--optimize", "--allow-error", "1.5"]) == 2
    capsys.readouterr()
    assert main([*words, "--unproved", "--optimize", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["optimized"]
    assert found["error_allowed"] == 1e-6
    assert len(found["variants"]) == 7
    assert found["variants"][-1]["difference_max"] is None  # values may be missing, and one spoils its batch
    assert main([*words, "--unproved", "--optimize"]) == 0
    shown = capsys.readouterr().out
    assert "rewritten/all" in shown
    assert "kept: " in shown


def test_variants_are_measured_on_the_device_that_is_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_gpu(monkeypatch)
    words = ["package", str(path), "--out", str(tmp_path / "bundle"), "--unproved", "--optimize"]
    assert main([*words, "--device", "cuda:0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["optimized"]["device"].startswith("cuda")
    assert found["runtime"]["measured_on"] == found["optimized"]["device"]
    assert [[each["rows"] for each in variant["ms"]] for variant in found["optimized"]["variants"]] == [
        [1, 256, 1024]
    ] * 7
    stored = Bundle.load(tmp_path / "bundle").manifest.runtime
    assert (stored.measured_on, stored.measured_on_gpu) == (found["optimized"]["device"], True)
    assert main(words) == 0
    assert "; measured on cpu" in capsys.readouterr().out
    stored = Bundle.load(tmp_path / "bundle").manifest.runtime
    assert (stored.measured_on, stored.measured_on_gpu) == ("cpu", False)


@pytest.mark.skipif(cuda_devices() > 0, reason="there is a GPU here")
def test_a_device_to_measure_on_that_is_not_there_is_one_error(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["package", str(path), "--out", str(tmp_path / "bundle")]
    assert main([*words, "--unproved", "--optimize", "--device", "cuda:0"]) == 2
    assert "device cuda:0 was asked for, but there is no GPU here" in capsys.readouterr().err
    assert main([*words, "--device", "cpu"]) == 2
    assert "--device goes with --optimize" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("form", "measured_on", "served"),
    [
        ("float16", "cuda (NVIDIA H100)", True),  # rounded by other kernels than here
        ("float16", "cpu", False),
        ("converted", "cuda (NVIDIA H100)", False),
    ],
)
def test_float16_is_held_to_the_error_of_its_form_on_another_kind_of_device(
    tmp_path: Path, form: Any, measured_on: str, served: bool
) -> None:
    bundle = write_linear(tmp_path / "linear")
    moved = Bundle.write(
        tmp_path / "linear",
        manifest=replace(
            bundle.manifest, runtime=Runtime(form=form, difference_max=1e-3, measured_on=measured_on)
        ),
        model=bundle.model,
        golden=replace(bundle.golden, outputs={"scores": bundle.golden.outputs["scores"] + 5e-4}),
    )
    if served:
        open_model(moved, device="cpu", batch_rows_max=4, clock=SystemClock())
        return
    with pytest.raises(ConfigError, match="golden row"):
        open_model(moved, device="cpu", batch_rows_max=4, clock=SystemClock())


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_devices(), reason="no GPU here")
def test_on_a_gpu_every_form_is_measured_and_the_one_kept_is_served(path: Path, tmp_path: Path) -> None:
    report = package(
        path, tmp_path / "bundle", features=features(missing="reject"), rows=rows(), optimize_within=0.01,
        optimize_on="cuda:0",
    )  # fmt: skip
    assert report.optimized is not None
    assert report.optimized.device.startswith("cuda (")
    timed = {each.form for each in report.optimized.variants if each.ms}
    assert {"converted", "rewritten", "float16"} <= timed
    for device in ("cuda:0", "cpu"):
        open_model(report.bundle, device=device, batch_rows_max=64, clock=SystemClock())


def test_what_is_broken_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="refuses the model"):
        rewritten(b"", Device())
    empty = graph_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", ["N", 3])],
        [tensor("y", ["N", 2])],
        [constant("w", np.zeros((3, 2), dtype=np.float64))],
    )
    with pytest.raises(ConfigError, match="cannot be brought into this form"):
        int8(empty)
    assert int8(linear_model())
