"""A model that runs: proved against its golden batch, prewarmed, and honest about device and failures."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.clock import SystemClock
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.models.runtime.session import OnnxModel
from penstock.engine.models.runtime.timing import buckets
from penstock.schemas.errors import ConfigError, ModelError
from tests.bundles import (
    constant,
    gather_model,
    graph_bytes,
    linear_model,
    linear_scores,
    linear_signature,
    numbers,
    tensor,
    write_linear,
)

without_gpu = pytest.mark.skipif(cuda_devices() > 0, reason="there is a GPU here")
with_gpu = pytest.mark.skipif(cuda_devices() == 0, reason="no GPU here")


def _model(
    model: bytes, signature: Signature, outputs: dict[str, int], labels: Labels | None = None, **more: Any
) -> OnnxModel:
    return OnnxModel(
        model=model,
        signature=signature,
        outputs=[ModelOutput(name=name, width=width) for name, width in outputs.items()],
        labels=labels,
        device=more.pop("device", Device()),
        threads=1,
        batch_rows_max=more.pop("batch_rows_max", 16),
    )


def _linear(**more: Any) -> OnnxModel:
    labels = Labels(classes=("no", "yes"), output="scores", values=None)
    return _model(linear_model(), linear_signature(), {"scores": 2}, labels, **more)


def _rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_linear(tmp_path_factory.mktemp("session") / "linear")


def test_an_opened_model_predicts_and_is_warm_at_every_bucket(bundle: Bundle) -> None:
    model = open_model(bundle, device="cpu", batch_rows_max=100, clock=SystemClock())
    assert [timing.rows for timing in model.warmup] == buckets(100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert all(timing.ms > 0 and timing.first_ms > 0 for timing in model.warmup)
    rows = _rows(5)
    found = model.predict(rows)
    np.testing.assert_allclose(found.outputs["scores"], linear_scores(rows), atol=1e-6)
    assert found.outputs["scores"].dtype == np.float64
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, linear_scores(rows).argmax(axis=1))
    assert found.classes == ("no", "yes")


class _Stopwatch:
    """Every run seems to take three seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 3.0
        return self._now_s

    def wall_ms(self) -> int:
        raise AssertionError

    def sleep(self, duration_s: float) -> None:
        raise AssertionError


def test_a_model_too_slow_for_large_batches_is_given_smaller_ones(bundle: Bundle) -> None:
    model = open_model(bundle, device="cpu", batch_rows_max=4096, clock=_Stopwatch())
    assert [timing.rows for timing in model.warmup] == [1]
    assert model.batch_rows_max == 1
    assert len(model.predict(_rows(5)).outputs["scores"]) == 5


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 50])
def test_a_batch_beyond_the_largest_bucket_is_run_in_pieces(count: int) -> None:
    rows = _rows(50)
    whole = _linear(batch_rows_max=64).predict(rows)
    found = _linear(batch_rows_max=16).predict(rows[:count])
    np.testing.assert_array_equal(found.outputs["scores"], whole.outputs["scores"][:count])
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert len(found.labels) == count


def test_a_model_that_says_something_else_than_when_packaged_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    golden = bundle.golden
    for wrong in (
        replace(golden, outputs={"scores": golden.outputs["scores"] + np.eye(8, 2) * 1e-3}),
        replace(golden, outputs={"scores": golden.outputs["scores"] * np.nan}),
        replace(golden, labels=None if golden.labels is None else 1 - golden.labels),
    ):
        stale = replace(bundle, golden=wrong)
        with pytest.raises(ConfigError, match="golden row 0"):
            open_model(stale, device="cpu", batch_rows_max=4, clock=SystemClock())


@without_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_a_device_that_is_not_there_is_an_error(bundle: Bundle, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device {device} was asked for, but there is no GPU here"):
        open_model(bundle, device=device, batch_rows_max=4, clock=SystemClock())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", ""])
def test_an_unknown_device_is_an_error(bundle: Bundle, device: str) -> None:
    if device == "cuda:":
        device = "cuda:1:2"
    with pytest.raises(ConfigError, match="is not known"):
        open_model(bundle, device=device, batch_rows_max=4, clock=SystemClock())


@without_gpu
def test_auto_without_a_gpu_says_one_calm_line(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = open_model(bundle, device="auto", batch_rows_max=4, clock=SystemClock())
    assert model.device.name == "cpu"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "there is no GPU here: the model runs on the CPU")
    ]


@without_gpu
def test_the_runtime_itself_says_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """In a process of its own: ONNX Runtime writes to the file descriptor, and from its import on."""
    write_linear(tmp_path / "linear")
    program = (
        "import sys; from penstock.engine.clock import SystemClock; from penstock.engine.models.bundle.bundle import Bundle;"
        "from penstock.engine.models.runtime.loader import open_model;"
        "open_model(Bundle.load(sys.argv[1]), device='auto', batch_rows_max=4, clock=SystemClock())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "linear")],
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.gpu
@with_gpu
def test_the_gpu_says_what_the_cpu_said(bundle: Bundle) -> None:
    model = open_model(bundle, device="cuda:0", batch_rows_max=16, clock=SystemClock())
    assert model.device.name == "cuda:0"
    np.testing.assert_allclose(model.predict(_rows(9)).outputs["scores"], linear_scores(_rows(9)), atol=1e-6)


def _gather() -> OnnxModel:
    """y = table[i]: throws on an index outside the table."""
    model, signature = gather_model()
    return _model(model, signature, {"y": 1})


def test_a_row_that_makes_the_model_throw_leaves_it_usable() -> None:
    model = _gather()
    with pytest.raises(ModelError, match="ONNX Runtime"):
        model.predict(np.array([[1.0], [99.0]]))
    np.testing.assert_array_equal(model.predict(np.array([[3.0], [1.0]])).outputs["y"], [[30.0], [10.0]])


@pytest.mark.parametrize("value", [1.5, 2.0**63, -(2.0**70), np.inf])
def test_a_number_that_an_integer_input_cannot_hold_is_not_rounded(value: float) -> None:
    with pytest.raises(ModelError, match="whole number"):
        _gather().predict(np.array([[0.0], [value]]))


@pytest.mark.parametrize(
    "matrix", [_rows(2).astype(np.float64), _rows(2)[:, :2], _rows(2)[0]], ids=["dtype", "width", "rank"]
)
def test_a_matrix_of_another_shape_is_refused(matrix: NDArray[Any]) -> None:
    with pytest.raises(ModelError, match="3 columns of float32"):
        _linear().predict(matrix)


def test_named_inputs_of_many_types_are_cut_from_the_matrix() -> None:
    kinds = {
        "f": TensorProto.FLOAT,
        "d": TensorProto.DOUBLE,
        "n": TensorProto.INT32,
        "b": TensorProto.BOOL,
        "s": TensorProto.STRING,
    }
    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in "fdnb"]
    encode = helper.make_node(
        "LabelEncoder", ["s"], ["s_f"], domain="ai.onnx.ml", keys_strings=["red", "blue", ""],
        values_floats=[7.0, 8.0, 9.0], default_float=-1.0,
    )  # fmt: skip
    join = helper.make_node("Concat", [f"{name}_f" for name in kinds], ["y"], axis=1)
    model = graph_bytes(
        [*nodes, encode, join],
        [tensor(name, ["N", 2 if name == "f" else 1], kind) for name, kind in kinds.items()],
        [tensor("y", ["N", 6])],
    )
    signature = Signature(
        features=(
            Feature(name="f", kind="vector", width=2),
            *numbers("d"),
            *numbers("n", "b", missing="reject"),
            Feature(name="s", kind="category", categories=("red", "blue")),
        ),
        inputs=(
            ModelInput(name="f", dtype="float32", start=0, width=2),
            ModelInput(name="d", dtype="float64", start=2, width=1),
            ModelInput(name="n", dtype="int32", start=3, width=1),
            ModelInput(name="b", dtype="bool", start=4, width=1),
            ModelInput(name="s", dtype="string", start=5, width=1),
        ),
    )
    opened = _model(model, signature, {"y": 6})
    rows = np.array(
        [[1, 2, 0.5, -3, 1, 1], [4, np.nan, 6, 7, 0, np.nan], [0, 0, 0, 0, 0, 0]], dtype=np.float64
    )
    expected = rows.copy()
    expected[:, 5] = [8, 9, 7]
    np.testing.assert_array_equal(opened.predict(rows).outputs["y"], expected)
    rows[0, 5] = 2.0
    with pytest.raises(ModelError, match="outside its table"):
        opened.predict(rows)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_for_one_number_of_rows_is_fed_that_many(batch: int) -> None:
    labels = Labels(classes=("no", "yes"), output="scores", values=None)
    model = _model(linear_model(batch), linear_signature(), {"scores": 2}, labels)
    rows = _rows(7)
    found = model.predict(rows)
    np.testing.assert_allclose(found.outputs["scores"], linear_scores(rows), atol=1e-6)
    assert found.labels is not None
    assert len(found.labels) == 7


@pytest.mark.parametrize("values", [(3, 5), ("no", "yes")])
def test_labels_are_read_from_the_graph_where_it_has_them(values: Any) -> None:
    is_text = isinstance(values[0], str)
    table = np.array(values, dtype=object if is_text else np.int64)
    model = graph_bytes(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMin", ["scores"], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["table", "place"], ["label"], axis=0),
        ],
        [tensor("x", ["N", 3])],
        [
            tensor("scores", ["N", 2]),
            tensor("label", ["N"], TensorProto.STRING if is_text else TensorProto.INT64),
        ],
        [constant("w", np.eye(3, 2, dtype=np.float32)), constant("table", table)],
    )
    rows = np.array([[0, 1, 0], [1, 0, 0]], dtype=np.float32)
    labels = Labels(classes=("no", "yes"), output="label", values=values)
    found = _model(model, linear_signature(), {"scores": 2}, labels).predict(rows)
    np.testing.assert_array_equal(found.labels, [0, 1])
    unknown = Labels(classes=("no", "yes"), output="label", values=("a", "b") if is_text else (0, 1))
    with pytest.raises(ModelError, match="does not know"):
        _model(model, linear_signature(), {"scores": 2}, unknown).predict(rows)


@pytest.mark.parametrize(
    ("signature", "outputs", "message"),
    [
        (Signature(features=numbers("a", "b"), inputs=(ModelInput(name="x", dtype="float32", start=0, width=2),)),
         {"scores": 2}, "takes 3 numbers a row, the features give it 2: a, b"),
        (Signature(features=numbers("a", "b", "c"), inputs=(ModelInput(name="x", dtype="float64", start=0, width=3),)),
         {"scores": 2}, "takes float32"),
        (Signature(features=numbers("a", "b", "c"), inputs=(ModelInput(name="y", dtype="float32", start=0, width=3),)),
         {"scores": 2}, "same inputs: x, y"),
        (linear_signature(), {"scores": 2, "more": 1}, "no output more"),
    ],
)  # fmt: skip
def test_a_signature_that_does_not_fit_the_graph_is_refused(
    signature: Signature, outputs: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _model(linear_model(), signature, outputs)


def test_a_graph_that_the_runtime_refuses_is_a_config_error() -> None:
    model = graph_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        [tensor("x", ["N", 3])],
        [tensor("scores", ["N", 2])],
        [constant("w", np.zeros((5, 2), dtype=np.float32))],
    )
    with pytest.raises(ConfigError, match="ONNX Runtime refuses the model"):
        _model(model, linear_signature(), {"scores": 2})
