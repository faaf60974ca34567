"""Files that are broken or hostile: one clear ConfigError, soon, and in little memory."""

import base64
import contextlib
import copy
import itertools
import resource
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.trees.covers import property_key
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest
from tests.onnx_models import Nodes, classifier, ensemble_v5, member, model_of, regressor, v3_attributes


def _attributes() -> dict[str, Any]:
    """x0 <= 1: 10, else (x1 <= 2: 20, else 30)."""
    return {
        "nodes_treeids": [0, 0, 0, 0, 0],
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0, 0, 1, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [1.0, 0.0, 2.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0],
        "target_treeids": [0, 0, 0],
        "target_nodeids": [1, 3, 4],
        "target_ids": [0, 0, 0],
        "target_weights": [10.0, 20.0, 30.0],
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes_falsenodeids": [2, 0, 0, 0, 0]}, "cycle"),
        ({"nodes_falsenodeids": [2, 0, 2, 0, 0]}, "cycle"),
        ({"nodes_falsenodeids": [1, 0, 4, 0, 0]}, "no root leads to"),
        ({"nodes_truenodeids": [1, 0, 9, 0, 0]}, "child that is not there"),
        ({"nodes_truenodeids": [1, 0, -1, 0, 0]}, "child that is not there"),
        ({"nodes_nodeids": [0, 1, 2, 3, 3]}, "same number"),
        ({"nodes_treeids": [0, 0, 0, 1, 1]}, "not there"),
        ({"nodes_treeids": [0, 1, 0, 0, 0]}, "stand together"),
        ({"nodes_values": [float("nan"), 0.0, 2.0, 0.0, 0.0]}, "threshold that is NaN"),
        ({"nodes_modes": ["BRANCH_SOMETIMES", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"]}, "unknown mode 'BRANCH_SOMETIMES'"),
        ({"nodes_modes": ["BRANCH_LEQ", "LEAF"]}, "5 nodes and 2 nodes_modes"),
        ({"nodes_modes": [0, 7, 0, 7, 7]}, "nodes_modes of the tree ensemble is not a list of texts"),
        ({"nodes_modes": "LEAF!"}, "nodes_modes of the tree ensemble is not a list of texts"),
        ({"nodes_featureids": [-1, 0, 1, 0, 0]}, "feature outside"),
        ({"nodes_featureids": [1 << 40, 0, 1, 0, 0]}, "feature outside"),
        ({"nodes_featureids": [7, 0, 1, 0, 0]}, "feature 7 of a row of 2"),
        ({"nodes_missing_value_tracks_true": [1]}, "flags"),
        ({"target_ids": [0, 0, 1]}, "outside its 1"),
        ({"target_ids": [0, 0, -1]}, "outside its 1"),
        ({"target_weights": [10.0, 20.0, float("inf")]}, "weight that is not finite"),
        ({"target_weights": [10.0, 20.0]}, "differ in length"),
        ({"target_nodeids": [1, 3, 3]}, "two weights"),
        ({"target_nodeids": [1, 3, 8]}, "leaf with a weight that is not there"),
        ({"base_values": [1.0, 2.0]}, "2 base values for 1"),
        ({"base_values": [float("nan")]}, "base value that is not finite"),
        ({"post_transform": "MAYBE"}, "post_transform 'MAYBE'"),
        ({"aggregate_function": "MEDIAN"}, "aggregate_function 'MEDIAN'"),
        ({"n_targets": 0}, "cannot be explained"),
        ({"n_targets": 1 << 40}, "cannot be explained"),
        ({"nodes_values": 3.0}, "not a list of numbers"),
        ({"nodes_truenodeids": [1.5, 0.0, 3.0, 0.0, 0.0]}, "not a list of integers"),
        ({"n_targets": "one"}, "not an integer"),
    ],
)  # fmt: skip
def test_broken_attributes(changes: dict[str, Any], says: str) -> None:
    assert read_forest(regressor(_attributes(), features=2)).nodes == 5, "sound without the change"
    attributes = {"n_targets": 1} | _attributes() | changes
    node = helper.make_node("TreeEnsembleRegressor", ["X"], ["y"], domain="ai.onnx.ml", **attributes)
    with pytest.raises(ConfigError, match=says):
        read_forest(model_of([node], features=2, outputs=[("y", TensorProto.FLOAT, [None, 1])]))


def _v5(changes: dict[str, Any]) -> onnx.ModelProto:
    node = ensemble_v5(Nodes(3, trees=2, depth=3, features=3, outputs=1, modes=member + 1))
    kept = [item for item in node.attribute if item.name not in changes]
    del node.attribute[:]
    node.attribute.extend(kept + [helper.make_attribute(name, value) for name, value in changes.items()])
    return model_of([node], features=3, outputs=[("y", TensorProto.FLOAT, [None, 1])])


def _tensor(values: Sequence[float], kind: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=kind))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tree_roots": [0, 999]}, "root that is not there"),
        ({"tree_roots": [0, 0]}, "root"),
        ({"nodes_modes": _tensor([0] * 3 + [9], np.uint8)}, "nodes_modes|unknown mode"),
        ({"nodes_splits": _tensor([0.0])}, "nodes_splits"),
        ({"leaf_targetids": [0]}, "differ in length"),
        ({"membership_values": _tensor([1.0])}, "lists of members"),
        ({"membership_values": _tensor([1.0] + [float("nan")] * 40)}, "lists of members"),
        ({"post_transform": 9}, "post_transform 9"),
        ({"aggregate_function": -1}, "aggregate_function -1"),
        ({"leaf_weights": helper.make_tensor("w", TensorProto.STRING, [1], [b"x"])}, "not a list of numbers"),  # type: ignore[list-item]  # the stub knows of no texts
        ({"leaf_weights": TensorProto(data_type=1, dims=[1 << 40])}, "not a readable tensor"),
    ],
)
def test_broken_attributes_of_the_newer_operator(changes: dict[str, Any], says: str) -> None:
    assert read_forest(_v5({})).trees == 2
    with pytest.raises(ConfigError, match=says):
        read_forest(_v5(changes))


def test_a_node_shared_by_parents_that_test_no_category_is_refused_by_name() -> None:
    attributes = _attributes() | {"nodes_falsenodeids": [2, 0, 1, 0, 0]}
    for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids"):
        attributes[f"nodes_{name}"] = attributes[f"nodes_{name}"][:4]
    for name in ("treeids", "nodeids", "ids", "weights"):
        attributes[f"target_{name}"] = attributes[f"target_{name}"][:2]
    with pytest.raises(ConfigError, match="shares a node"):
        read_forest(regressor(attributes, features=2))


def test_diamonds_over_diamonds_do_not_multiply() -> None:
    """60 levels of two nodes that both lead to both nodes of the next: 2^60 paths in 240 numbers."""
    levels = 60
    inner = 2 * levels + 1
    below = [(1, 2)] + [
        (place + 2 - (place + 1) % 2, place + 3 - (place + 1) % 2) for place in range(1, inner)
    ]
    attributes = {
        "nodes_treeids": [0] * (inner + 2),
        "nodes_nodeids": list(range(inner + 2)),
        "nodes_featureids": [0] * (inner + 2),
        "nodes_modes": ["BRANCH_EQ"] * inner + ["LEAF"] * 2,
        "nodes_values": [float(place) for place in range(inner + 2)],
        "nodes_truenodeids": [true for true, _ in below] + [0, 0],
        "nodes_falsenodeids": [false for _, false in below] + [0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [inner, inner + 1],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    started = time.monotonic()
    with pytest.raises(ConfigError, match="shares a node"):
        read_forest(regressor(attributes, features=1))
    assert time.monotonic() - started < 5


def test_a_chain_as_long_as_the_file_ends_soon() -> None:
    count = 200_000
    attributes = {
        "nodes_treeids": [0] * (count + 2),
        "nodes_nodeids": list(range(count + 2)),
        "nodes_featureids": [0] * (count + 2),
        "nodes_modes": ["BRANCH_EQ"] * count + ["LEAF"] * 2,
        "nodes_values": [float(place) for place in range(count + 2)],
        "nodes_truenodeids": [count] * count + [0, 0],
        "nodes_falsenodeids": [*range(1, count), count + 1, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [count, count + 1],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    model = regressor(attributes, features=1)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="path of more than"):
        read_forest(model)
    assert time.monotonic() - started < 20


def test_a_classifier_with_too_many_classes_for_its_leaves_takes_no_memory() -> None:
    nodes = Nodes(1, trees=200, depth=8, features=2, outputs=1, modes=2)
    attributes = v3_attributes(nodes, "class") | {"classlabels_int64s": list(range(1 << 17))}
    model = classifier(attributes, features=2, classes=3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match="cannot be explained"):
        read_forest(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def _around(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.ModelProto:
    """Operators around `_attributes`' trees, which read `rows` and make `scores`; X in, y out."""
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["rows"], ["scores"], domain="ai.onnx.ml", n_targets=1, **_attributes()
    )
    before = [node for node in nodes if node.output[0].startswith("rows")]
    if not before:
        before = [helper.make_node("Identity", ["X"], ["rows"])]
    after = [node for node in nodes if node not in before]
    model = model_of([*before, trees, *after], features=2, outputs=[("y", TensorProto.FLOAT, [None, 1])])
    model.graph.initializer.extend(constants)
    return model


def _elsewhere(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL, dims=[1])
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


@pytest.mark.parametrize("location", ["beside.bin", "not-there.bin", "../up.bin", "/etc/hostname"])
def test_what_is_kept_in_another_file_is_refused_and_never_opened(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.bin").write_bytes(np.float32(1).tobytes())
    tensor = _elsewhere(location)
    with pytest.raises(ConfigError, match="kept in another file"):
        read_forest(_around([helper.make_node("Add", ["scores", "c"], ["y"])], tensor))
    node = helper.make_node(
        "TreeEnsembleRegressor", ["X"], ["y"], domain="ai.onnx.ml", n_targets=1, base_values_as_tensor=tensor,
        **_attributes(),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="base_values of the tree ensemble is not a readable tensor"):
        read_forest(model_of([node], features=2, outputs=[("y", TensorProto.FLOAT, [None, 1])]))


def _doubled(count: int) -> list[onnx.NodeProto]:
    names = ["scores", *(f"s{step}" for step in range(count - 1)), "y"]
    return [helper.make_node("Add", [name, name], [after]) for name, after in itertools.pairwise(names)]


def _fibonacci(count: int) -> list[onnx.NodeProto]:
    names = ["scores", "first", *(f"s{step}" for step in range(count)), "y"]
    sums = [
        helper.make_node("Add", [names[place], names[place + 1]], [names[place + 2]])
        for place in range(len(names) - 2)
    ]
    return [helper.make_node("Identity", ["scores"], ["first"]), *sums]


def _widened(count: int) -> list[onnx.NodeProto]:
    names = ["X", *(f"rows{step}" for step in range(count - 1)), "rows"]
    return [
        helper.make_node("Concat", [name, name], [after], axis=1) for name, after in itertools.pairwise(names)
    ] + [helper.make_node("Identity", ["scores"], ["y"])]


def _scaled(count: int) -> list[onnx.NodeProto]:
    names = ["scores", *(f"s{step}" for step in range(count - 1)), "y"]
    return [helper.make_node("Mul", [name, "c"], [after]) for name, after in itertools.pairwise(names)]


def test_scores_scaled_beyond_all_numbers_are_refused() -> None:
    model = _around(_scaled(20), numpy_helper.from_array(np.array([3e38], np.float32), "c"))
    with pytest.raises(ConfigError, match="not finite"):
        read_forest(model)


@pytest.mark.parametrize(
    "nodes",
    [
        _doubled(60),
        _fibonacci(80),
        [helper.make_node("Sum", ["scores"] * 10_000_000, ["y"])],
        _widened(60),
        _scaled(50_000),
    ],
    ids=["doubled", "fibonacci", "named again and again", "widened", "scaled"],
)
def test_operators_that_blow_the_trees_up_take_neither_time_nor_memory(nodes: list[onnx.NodeProto]) -> None:
    model = _around(nodes, numpy_helper.from_array(np.array([1 + 2**-23], np.float32), "c"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(ConfigError):
        read_forest(model)
    assert time.monotonic() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # KiB


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08", b"\xff" * 100])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ConfigError):
        read_forest(data)


_model = write_forest(random_forest(1, trees=2, depth=3, features=4))
_whole = _model.SerializeToString()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_changed_bytes_never_do_worse_than_one_error(data: st.DataObject) -> None:
    changed = bytearray(_whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)) | st.just(len(changed)))
    _forest_or_error(bytes(changed[:cut]))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_attributes_never_do_worse_than_one_error(data: st.DataObject) -> None:
    """Numbers where numbers belong, but others: lists cut, doubled, and with odd values in them."""
    newer = ensemble_v5(Nodes(3, trees=2, depth=3, features=3, outputs=1, modes=member + 1))
    newer_model = model_of([newer], features=3, outputs=[("y", TensorProto.FLOAT, [None, 1])])
    model = copy.deepcopy(data.draw(st.sampled_from([_model, newer_model])))
    attributes = model.graph.node[0].attribute
    odd = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 40)
    for _ in range(data.draw(st.integers(1, 3))):
        attribute = attributes[data.draw(st.integers(0, len(attributes) - 1))]
        for values, strategy in (
            (attribute.ints, odd),
            (attribute.floats, st.floats(width=32)),
            (attribute.strings, st.sampled_from([b"BRANCH_EQ", b"BRANCH_NEQ", b"LEAF", b"\xff", b""])),
        ):
            if len(values):
                what = data.draw(st.sampled_from(["change", "cut", "double"]))
                if what == "change":
                    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(strategy)
                elif what == "cut":
                    del values[data.draw(st.integers(0, len(values) - 1)) :]
                else:
                    values.extend(list(values))
        if attribute.HasField("i"):
            attribute.i = data.draw(odd)
        if attribute.HasField("t") and attribute.t.raw_data:
            raw = bytearray(attribute.t.raw_data)
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
            attribute.t.raw_data = bytes(raw)
    _forest_or_error(model.SerializeToString())


@pytest.mark.parametrize("kind", sorted(onnx.AttributeProto.AttributeType.values()))
def test_attributes_of_another_type_never_do_worse_than_one_error(kind: int) -> None:
    """Each says of itself what it is; of none it has the value then."""
    newer = ensemble_v5(Nodes(3, trees=2, depth=3, features=3, outputs=1, modes=member + 1))
    newer_model = model_of([newer], features=3, outputs=[("y", TensorProto.FLOAT, [None, 1])])
    for whole in (_model, newer_model):
        for place in range(len(whole.graph.node[0].attribute)):
            model = copy.deepcopy(whole)
            model.graph.node[0].attribute[place].type = kind
            _forest_or_error(model.SerializeToString())


def _forest_or_error(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        forest = read_forest(data)
        forest.raw_scores(np.zeros((1, forest.features), dtype=np.float32))


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 x y", "2 {digest} {packed}", "1 {digest} !!!", "1 {digest} {half}", "1 {digest} {bomb}", "1 {other} {packed}"],
)  # fmt: skip
def test_broken_covers_in_the_properties_are_refused(text: str) -> None:
    model = copy.deepcopy(_model)
    entry = next(item for item in model.metadata_props if item.key == property_key)
    _, digest, packed = entry.value.split(" ")
    bomb = base64.b64encode(zlib.compress(b"\0" * (1 << 26))).decode()
    half = base64.b64encode(base64.b64decode(packed)[:-20]).decode()
    entry.value = text.format(digest=digest, packed=packed, bomb=bomb, half=half, other="0" * 64)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="covers"):
            read_forest(model)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
