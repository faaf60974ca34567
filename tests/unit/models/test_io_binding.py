"""Bound runs say what plain runs say, whatever the batch; on the CPU here, and on a GPU where there is one."""

import gc
import logging
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.gpu.device import Device, cuda_devices
from penstock.engine.gpu.driver import Driver
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.runtime import io_binding as module
from penstock.engine.models.runtime.io_binding import BoundModel
from penstock.engine.models.runtime.one_thread import OneThread
from penstock.engine.models.runtime.session import OnnxModel, choose_device
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, ModelError
from tests.bundles import constant, gather_model, graph_bytes, linear_model, linear_signature, numbers, tensor
from tests.fake_cuda import FakeCuda

gpu = [pytest.mark.gpu, pytest.mark.skipif(not cuda_devices(), reason="no GPU here")]
devices = [
    pytest.param((Device(), False), id="cpu"),
    pytest.param((Device(cuda=0), False), id="cuda", marks=gpu),
    pytest.param((Device(cuda=0), True), id="cuda captured", marks=gpu),
]
Where = tuple[Device, bool]
by_score = Labels(classes=("no", "yes"), output="scores", values=None)


def opened(
    model: bytes, signature: Signature, outputs: dict[str, int], labels: Labels | None, where: Where
) -> OnnxModel:
    if where[0].cuda is not None:
        choose_device(where[0].name)  # makes the CUDA libraries known
    return OnnxModel(
        model=model,
        signature=signature,
        outputs=[ModelOutput(name=name, width=width) for name, width in outputs.items()],
        labels=labels,
        device=where[0],
        threads=1,
        batch_rows_max=100,
        captures=where[1],
    )


def linear(where: Where, *, batch: int | None = None) -> OnnxModel:
    return opened(
        linear_model(batch) if batch else linear_model(), linear_signature(), {"scores": 2}, by_score, where
    )


def rows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def bound(model: OnnxModel, rows: NDArray[np.generic], rows_max: int = 16) -> OneThread:
    return OneThread(BoundModel(model, rows, rows_max=rows_max))


def check(expected: Predictions, found: Predictions, *, exact: bool) -> None:
    assert expected.outputs.keys() == found.outputs.keys()
    for name, scores in expected.outputs.items():
        np.testing.assert_allclose(
            found.outputs[name], scores, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6
        )
        assert found.outputs[name].dtype == np.float64
    assert (expected.labels is None) == (found.labels is None)
    if expected.labels is not None:
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.classes == expected.classes


@pytest.mark.parametrize("where", devices)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows_max=st.integers(1, 70),
    counts=st.lists(st.integers(0, 150), min_size=1, max_size=6),
)
def test_bound_runs_say_what_plain_runs_say(
    where: Where, seed: int, rows_max: int, counts: list[int]
) -> None:
    plain = linear((where[0], False))
    fast = bound(linear(where), rows_of(5), rows_max)
    for place, count in enumerate(counts):
        rows = rows_of(count, seed + place)
        check(plain.predict(rows), fast.predict(rows), exact=where[0].cuda is None)


@pytest.mark.parametrize("where", devices)
def test_results_stay_when_the_arrays_they_came_from_are_used_again(where: Where) -> None:
    model = graph_bytes(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
        [tensor("x", ["N", 3])],
        [tensor("y", ["N", 3], TensorProto.DOUBLE)],
    )
    fast = bound(opened(model, linear_signature(), {"y": 3}, None, where), rows_of(5))
    first = fast.predict(rows_of(7, seed=1))
    fast.predict(rows_of(7, seed=2))
    np.testing.assert_array_equal(first.outputs["y"], rows_of(7, seed=1))


def test_a_batch_is_filled_up_to_the_next_power_of_two_and_no_further() -> None:
    """y is how many rows the graph is given; plain runs are filled up on a GPU only."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["x", "x"], ["nothing"]),
        helper.make_node("Add", ["nothing", "rows"], ["y"]),
    ]
    model = graph_bytes(nodes, [tensor("x", ["N", 3])], [tensor("y", ["N", 3])])
    fast = bound(
        opened(model, linear_signature(), {"y": 3}, None, (Device(), False)), rows_of(5), rows_max=20
    )
    on_cpu = opened(model, linear_signature(), {"y": 3}, None, (Device(), False))
    on_gpu = opened(model, linear_signature(), {"y": 3}, None, (Device(), False))
    on_gpu.batch_rows_max, on_gpu.fills_up = 20, True
    for count, ran in ((1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (17, 20), (20, 20)):
        for filled in (fast, on_gpu):
            np.testing.assert_array_equal(
                filled.predict(rows_of(count)).outputs["y"], np.full((count, 3), ran)
            )
        np.testing.assert_array_equal(on_cpu.predict(rows_of(count)).outputs["y"], np.full((count, 3), count))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_for_one_number_of_rows_is_fed_that_many(batch: int) -> None:
    plain = linear((Device(), False), batch=batch)
    fast = bound(plain, rows_of(2))
    for count in (1, 3, 4, 9):
        check(plain.predict(rows_of(count)), fast.predict(rows_of(count)), exact=True)


@pytest.mark.parametrize("where", devices)
def test_inputs_of_many_types_are_bound(where: Where) -> None:
    kinds = {"f": TensorProto.FLOAT, "d": TensorProto.DOUBLE, "l": TensorProto.INT64, "n": TensorProto.INT32, "b": TensorProto.BOOL}  # fmt: skip
    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in kinds]
    join = helper.make_node("Concat", [f"{name}_f" for name in kinds], ["y"], axis=1)
    model = graph_bytes(
        [*nodes, join],
        [tensor(name, ["N", 2 if name == "f" else 1], kind) for name, kind in kinds.items()],
        [tensor("y", ["N", 6])],
    )
    types = {"f": "float32", "d": "float64", "l": "int64", "n": "int32", "b": "bool"}
    starts = {"f": 0, "d": 2, "l": 3, "n": 4, "b": 5}
    signature = Signature(
        features=(
            Feature(name="f", kind="vector", width=2),
            *numbers("d"),
            *numbers("l", "n", "b", missing="reject"),
        ),
        inputs=tuple(
            ModelInput(name=name, dtype=dtype, start=starts[name], width=2 if name == "f" else 1)  # type: ignore[arg-type]
            for name, dtype in types.items()
        ),
    )
    plain = opened(model, signature, {"y": 6}, None, where)
    rows = np.array(
        [[1, np.nan, 0.5, -(2**40), -3, 1], [4, 2, 6, 7, 0, 0], [0, 0, 0, 9, 0, 1]], dtype=np.float64
    )
    fast = bound(plain, rows)
    np.testing.assert_array_equal(fast.predict(rows).outputs["y"], rows)
    rows[1, 3] = 0.5
    with pytest.raises(ModelError, match="whole number"):
        fast.predict(rows)


@pytest.mark.parametrize("where", devices)
def test_labels_are_read_from_the_graph_where_it_has_them(where: Where) -> None:
    model = graph_bytes(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["table", "place"], ["label"], axis=0),
        ],
        [tensor("x", ["N", 3])],
        [tensor("scores", ["N", 2]), tensor("label", ["N"], TensorProto.INT64)],
        [constant("w", np.eye(3, 2, dtype=np.float32)), constant("table", np.array([5, 3]))],
    )
    labels = Labels(classes=("yes", "no"), output="label", values=(3, 5))
    plain = opened(model, linear_signature(), {"scores": 2}, labels, where)
    for count in (1, 5, 40):
        check(
            plain.predict(rows_of(count)),
            bound(plain, rows_of(4)).predict(rows_of(count)),
            exact=where[0].cuda is None,
        )


def gather() -> OnnxModel:
    """y = table[i]: throws on an index outside the table."""
    model, signature = gather_model()
    return opened(model, signature, {"y": 1}, None, (Device(), False))


def test_a_row_that_makes_the_model_throw_leaves_it_usable() -> None:
    fast = bound(gather(), np.array([[1.0]]))
    with pytest.raises(ModelError, match="ONNX Runtime"):
        fast.predict(np.array([[1.0], [2.0], [0.0], [99.0]]))
    # What fills a batch up must not be what is left of the one before: that row would throw again.
    np.testing.assert_array_equal(fast.predict(np.array([[3.0]] * 3)).outputs["y"], [[30.0]] * 3)


def test_a_matrix_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="3 columns of float32"):
        bound(linear((Device(), False)), rows_of(2)).predict(rows_of(2)[:, :2])


def test_what_cannot_be_bound_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = graph_bytes(
        [helper.make_node("LabelEncoder", ["s"], ["y"], domain="ai.onnx.ml", keys_strings=["red", ""], values_floats=[7.0, 9.0])],
        [tensor("s", ["N", 1], TensorProto.STRING)],
        [tensor("y", ["N", 1])],
    )  # fmt: skip
    signature = Signature(
        features=(Feature(name="s", kind="category", categories=("red",)),),
        inputs=(ModelInput(name="s", dtype="string", start=0, width=1),),
    )
    with pytest.raises(ConfigError, match="s is a tensor of texts"):
        BoundModel(opened(texts, signature, {"y": 1}, None, (Device(), False)), np.zeros((1, 1)), rows_max=4)
    summed = graph_bytes(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [tensor("x", ["N", 3])], [tensor("y", [])]
    )
    with pytest.raises(ConfigError, match="y does not have a row for each row"):
        BoundModel(
            opened(summed, linear_signature(), {"y": 1}, None, (Device(), False)), rows_of(3), rows_max=4
        )
    monkeypatch.setattr(module, "bound_bytes_max", 100)
    with pytest.raises(ConfigError, match="on the device"):
        BoundModel(linear((Device(), False)), rows_of(3), rows_max=16)


def test_every_run_comes_from_one_thread_and_errors_come_back() -> None:
    seen: list[int] = []

    class Model:
        batch_rows_max = 8

        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            seen.append(threading.get_ident())
            if not len(matrix):
                raise ModelError("no rows")
            return Predictions(outputs={}, labels=None, classes=())

    inner = Model()
    model = OneThread(inner)
    callers = [threading.Thread(target=model.predict, args=(rows_of(1),)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    with pytest.raises(ModelError, match="no rows"):
        model.predict(rows_of(0))
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()
    model.batch_rows_max = 2
    assert inner.batch_rows_max == 2


def test_a_batch_leaves_nothing_to_the_garbage_collector() -> None:
    fast = bound(linear((Device(), False)), rows_of(5))
    fast.predict(rows_of(5))
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            fast.predict(rows_of(5))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_without_page_locked_memory_ordinary_memory_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A session on the CPU stands in for one on a GPU."""
    plain = linear((Device(), False))
    expected = plain.predict(rows_of(9))
    plain.device = Device(cuda=0)
    on_device = module._on_device
    monkeypatch.setattr(module, "_on_device", lambda shape, dtype, device: on_device(shape, dtype, Device()))
    monkeypatch.setattr(module, "Driver", lambda: Driver(("libnone.so",)))
    with caplog.at_level(logging.WARNING):
        check(expected, bound(plain, rows_of(3)).predict(rows_of(9)), exact=True)
    assert "inputs go to cuda:0 from ordinary memory: there is no NVIDIA driver here" in caplog.text


def test_inputs_wait_in_page_locked_memory_for_as_long_as_the_model_lives(
    monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> None:
    plain = linear((Device(), False))
    expected = plain.predict(rows_of(9))
    plain.device = Device(cuda=0)
    on_device, held = module._on_device, cuda.held
    monkeypatch.setattr(module, "_on_device", lambda shape, dtype, device: on_device(shape, dtype, Device()))
    monkeypatch.setattr(module, "Driver", lambda: Driver(cuda.libraries.driver))
    model = bound(plain, rows_of(3))
    assert cuda.held > held
    check(expected, model.predict(rows_of(9)), exact=True)
    del model
    gc.collect()
    assert cuda.held == held
