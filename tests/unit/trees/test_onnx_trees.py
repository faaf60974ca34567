"""The reader against ONNX Runtime: whatever form the trees come in, our forest scores every row as the model does."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.trees.forest import PostTransform
from penstock.engine.trees.onnx.read import NotATreeError, read_forest
from penstock.schemas.errors import ConfigError
from tests.forests import class_scores, run_onnx
from tests.onnx_models import (
    Nodes,
    classifier,
    ensemble_v5,
    grid_rows,
    member,
    model_of,
    modes_v3,
    regressor,
    v3_attributes,
)

seeds = st.integers(0, 2**32 - 1)


def _agrees(model: onnx.ModelProto, features: int, seed: int, *, kind: type = np.float32) -> None:
    X = grid_rows(seed, 200, features)
    answered = run_onnx(model, X.astype(kind))[-1]
    assert np.abs(class_scores(read_forest(model.SerializeToString()), X) - answered).max() <= 2e-6


@settings(max_examples=40, deadline=None)
@given(seed=seeds, outputs=st.integers(1, 3), aggregate=st.sampled_from(["SUM", "AVERAGE"]))
def test_regressors_of_all_modes(seed: int, outputs: int, aggregate: str) -> None:
    nodes = Nodes(seed, trees=4, depth=4, features=3, outputs=outputs, modes=len(modes_v3))
    base = {"base_values": [0.5] * outputs} if seed % 2 else {}
    model = regressor(
        v3_attributes(nodes, "target"), features=3, outputs=outputs, aggregate_function=aggregate, **base
    )
    _agrees(model, 3, seed)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, outputs=st.integers(1, 3), aggregate=st.sampled_from([0, 1]))
def test_the_newer_operator_with_categories(seed: int, outputs: int, aggregate: int) -> None:
    nodes = Nodes(seed, trees=4, depth=4, features=3, outputs=outputs, modes=member + 1)
    X = grid_rows(seed, 200, 3)
    # ONNX Runtime takes a value between two small integers for the lower one in a category test; codes are integers.
    X[np.isfinite(X)] = np.floor(X[np.isfinite(X)])
    node = ensemble_v5(nodes, aggregate_function=aggregate)
    model = model_of([node], features=3, outputs=[("y", TensorProto.FLOAT, [None, outputs])])

    assert np.abs(read_forest(model).raw_scores(X) - run_onnx(model, X)[0]).max() <= 2e-6


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_double_thresholds_route_float32_rows_alike(seed: int) -> None:
    """Thresholds between two float32 numbers, on the rows' neighbours, and out of float32's range."""
    rng = np.random.default_rng(seed)
    nodes = Nodes(seed, trees=4, depth=4, features=3, outputs=1, modes=len(modes_v3))
    X = rng.normal(size=(200, 3)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    for members in nodes.trees:
        for place, node in enumerate(members):
            if len(node) > 1:
                value = float(rng.choice(X[np.isfinite(X)])) * rng.choice([1, 1 + 1e-12, 1 - 1e-12])
                value = float(rng.choice([value, value, value, 1e300, -1e300]))
                members[place] = (*node[:2], value, *node[3:])
    attributes = v3_attributes(nodes, "target")
    tensors = {
        f"{name}_as_tensor": numpy_helper.from_array(np.array(attributes.pop(name), dtype=np.float64))
        for name in ("nodes_values", "target_weights")
    }
    double = helper.make_node(
        "TreeEnsembleRegressor", ["wide"], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes, **tensors
    )
    cast = helper.make_node("Cast", ["X"], ["wide"], to=TensorProto.DOUBLE)
    model = model_of([cast, double], features=3, outputs=[("y", TensorProto.FLOAT, [None, 1])])

    assert np.abs(read_forest(model).raw_scores(X) - run_onnx(model, X)[0]).max() <= 2e-6


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("based", [False, True])
def test_classifiers_of_many_classes(post: str, based: bool) -> None:
    nodes = Nodes(3, trees=6, depth=4, features=3, outputs=3, modes=6)
    base = {"base_values": [0.1, -0.2, 0.3]} if based else {}
    model = classifier(v3_attributes(nodes, "class"), features=3, classes=3, post_transform=post, **base)

    assert read_forest(model).labels == ("0", "1", "2")
    _agrees(model, 3, 4)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_two_classes_that_share_one_score(post: str, based: bool, positive: bool) -> None:
    nodes = Nodes(5, trees=4, depth=3, features=3, outputs=1, modes=6)
    attributes = v3_attributes(nodes, "class")
    if positive:
        attributes["class_weights"] = [abs(weight) / 4 for weight in attributes["class_weights"]]
    base = {"base_values": [0.25]} if based else {}
    model = classifier(attributes, features=3, classes=2, post_transform=post, **base)

    forest = read_forest(model)
    assert (forest.outputs, forest.mirror) == (1, 1.0 if positive and post == "NONE" else 0.0)
    _agrees(model, 3, 6)


def test_two_classes_with_a_score_each() -> None:
    nodes = Nodes(7, trees=4, depth=3, features=3, outputs=2, modes=6)
    model = classifier(v3_attributes(nodes, "class"), features=3, classes=2, post_transform="SOFTMAX")

    assert read_forest(model).outputs == 2
    _agrees(model, 3, 8)


def test_outputs_that_a_row_may_meet_no_weight_for_are_refused() -> None:
    """ONNX Runtime answers 0 for them, not the base value; and two classes it takes for one score."""
    nodes = Nodes(7, trees=4, depth=3, features=3, outputs=2, modes=6)
    sparse = v3_attributes(nodes, "target")
    for name in ("treeids", "nodeids", "ids", "weights"):
        sparse[f"target_{name}"] = sparse[f"target_{name}"][:-1]
        del sparse[f"target_{name}"][1::7]
    assert read_forest(regressor(sparse, features=3, outputs=2)).outputs == 2, (
        "without base values nothing is lost"
    )
    with pytest.raises(NotATreeError, match="meet no weight"):
        read_forest(regressor(sparse, features=3, outputs=2, base_values=[0.5, 0.5]))
    two_classes = {name.replace("target_", "class_"): values for name, values in sparse.items()}
    with pytest.raises(NotATreeError, match="meet no weight"):
        read_forest(classifier(two_classes, features=3, classes=2))


def test_a_share_keeps_its_mirror_when_it_is_scaled() -> None:
    nodes = Nodes(5, trees=4, depth=3, features=3, outputs=1, modes=6)
    attributes = v3_attributes(nodes, "class")
    attributes["class_weights"] = [abs(weight) / 4 for weight in attributes["class_weights"]]
    model = classifier(attributes, features=3, classes=2)
    model.graph.node.append(_node("Mul", ["p", "two"], ["doubled"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, dtype=np.float32), "two"))
    model.graph.output[1].name = "doubled"

    assert read_forest(model).mirror == 2.0
    _agrees(model, 3, 6)


def _chain(members: list[float], *, missing_true: bool, copies: bool) -> dict[str, Any]:
    """x0 in members, as converters write it: one BRANCH_EQ a member. Below yes: x1 <= 0 ? 1 : 5. Below no: -1.

    Shared as by onnxmltools for XGBoost, or with a copy of the yes side for each member, as for LightGBM.
    """
    rows: list[tuple[Any, ...]] = []
    weights: list[tuple[int, float]] = []
    count = len(members)
    first_yes = count
    for place, value in enumerate(members):
        yes = first_yes + 3 * place * copies
        after = place + 1 if place + 1 < count else first_yes + 3 * (1 + (count - 1) * copies)
        rows.append((place, 0, "BRANCH_EQ", value, yes, after, int(missing_true and place == 0)))
    for copy in range(count if copies else 1):
        node = first_yes + 3 * copy
        rows.append((node, 1, "BRANCH_LEQ", 0.0, node + 1, node + 2, 0))
        rows += [(node + 1, 0, "LEAF", 0.0, 0, 0, 0), (node + 2, 0, "LEAF", 0.0, 0, 0, 0)]
        weights += [(node + 1, 1.0), (node + 2, 5.0)]
    rows.append((len(rows), 0, "LEAF", 0.0, 0, 0, 0))
    weights.append((len(rows) - 1, -1.0))
    columns = list(zip(*rows, strict=True))
    names = (
        "nodeids",
        "featureids",
        "modes",
        "values",
        "truenodeids",
        "falsenodeids",
        "missing_value_tracks_true",
    )
    return {f"nodes_{name}": list(column) for name, column in zip(names, columns, strict=True)} | {
        "nodes_treeids": [0] * len(rows),
        "target_treeids": [0] * len(weights),
        "target_nodeids": [node for node, _ in weights],
        "target_ids": [0] * len(weights),
        "target_weights": [weight for _, weight in weights],
    }


@pytest.mark.parametrize("copies", [False, True], ids=["shared", "copied"])
@pytest.mark.parametrize("missing_true", [False, True])
@pytest.mark.parametrize("members", [[3.0], [0.0, 2.0, 5.0], [2.0, 40.0, 31.0, 1.0]])
def test_a_chain_of_equalities_is_one_category_test(
    members: list[float], missing_true: bool, copies: bool
) -> None:
    model = regressor(_chain(members, missing_true=missing_true, copies=copies), features=2)
    forest = read_forest(model)

    assert forest.nodes == 5
    assert forest.set_values.tolist() == sorted(members)
    X = np.array([[v, w] for v in (*range(45), 2.5, np.nan, np.inf) for w in (-1, 1)], dtype=np.float32)
    assert np.array_equal(forest.raw_scores(X), run_onnx(model, X)[0])


def test_missing_goes_to_yes_from_any_link_of_a_chain() -> None:
    attributes = _chain([0.0, 2.0, 5.0], missing_true=False, copies=False)
    attributes["nodes_missing_value_tracks_true"][1] = 1
    model = regressor(attributes, features=2)
    X = np.array([[np.nan, -1], [7, -1], [2, 1]], dtype=np.float32)

    assert read_forest(model).nodes == 5
    assert (
        read_forest(model).raw_scores(X).ravel().tolist()
        == run_onnx(model, X)[0].ravel().tolist()
        == [1, -1, 5]
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("nodes_featureids", 0),
        ("nodes_values", 1.0),
        ("nodes_missing_value_tracks_true", 1),
        ("nodes_modes", "BRANCH_LT"),
        ("target_weights", 9.0),
    ],
)
def test_links_with_different_yes_sides_stay_apart(column: str, value: Any) -> None:
    """The second member's copy of the yes side differs in one number."""
    attributes = _chain([3.0, 2.0], missing_true=False, copies=True)
    attributes[column][5 if column.startswith("nodes") else 2] = value
    model = regressor(attributes, features=2)
    X = np.array([[v, w] for v in (2, 3, 4, np.nan) for w in (-1, 0, 0.5, 2, np.nan)], dtype=np.float32)

    assert read_forest(model).nodes == 9
    # ONNX Runtime 1.31 takes sides that differ in a missing-value flag only for equal; no converter writes such.
    told = slice(None) if column != "nodes_missing_value_tracks_true" else ~np.isnan(X[:, 1])
    assert np.array_equal(read_forest(model).raw_scores(X)[told], run_onnx(model, X)[0][told])


@pytest.mark.parametrize("other", [2, 5], ids=["straight", "from another chain"])
def test_a_link_that_something_else_leads_to_is_not_absorbed(other: int) -> None:
    """x1 <= 0 ? (x0 == 1 ? yes : link) : link, with link: x0 == 2 ? yes : no; or x0 == 7 ? yes : link on the right."""
    model = regressor(
        {
            "nodes_treeids": [0] * (5 + (other == 5)),
            "nodes_nodeids": [0, 1, 2, 3, 4, 5][: 5 + (other == 5)],
            "nodes_featureids": [1, 0, 0, 0, 0, 0][: 5 + (other == 5)],
            "nodes_modes": ["BRANCH_LEQ", "BRANCH_EQ", "BRANCH_EQ", "LEAF", "LEAF", "BRANCH_EQ"][
                : 5 + (other == 5)
            ],
            "nodes_values": [0.0, 1.0, 2.0, 0.0, 0.0, 7.0][: 5 + (other == 5)],
            "nodes_truenodeids": [1, 3, 3, 0, 0, 3][: 5 + (other == 5)],
            "nodes_falsenodeids": [other, 2, 4, 0, 0, 2][: 5 + (other == 5)],
            "target_treeids": [0, 0],
            "target_nodeids": [3, 4],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
        },
        features=2,
    )
    with pytest.raises(NotATreeError, match="shares a node"):
        read_forest(model)


def test_covers_of_a_merged_chain_are_those_of_its_head() -> None:
    attributes = _chain([0.0, 2.0, 5.0], missing_true=False, copies=False)
    attributes["nodes_hitrates"] = [10.0, 10.0, 10.0, 4.0, 1.0, 3.0, 6.0]
    forest = read_forest(regressor(attributes, features=2))

    assert forest.cover is not None
    assert forest.cover.tolist() == [10.0, 4.0, 6.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "hitrates", [[1.0] * 7, [10.0, 10.0, 10.0, 4.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, -1.0, 1.0, -2.0, 2.0]]
)
def test_hitrates_that_cannot_be_covers_are_not_believed(hitrates: list[float]) -> None:
    attributes = _chain([0.0, 2.0, 5.0], missing_true=False, copies=False) | {"nodes_hitrates": hitrates}

    assert read_forest(regressor(attributes, features=2)).cover is None


def _surrounded(
    after: list[onnx.NodeProto], *, outputs: int = 1, constants: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """Named inputs a (1), b (2), cast, selected and joined before the trees; `after` makes z of their y."""
    nodes = Nodes(11, trees=4, depth=4, features=3, outputs=outputs, modes=6)
    before = [
        helper.make_node("Cast", ["a"], ["a32"], to=TensorProto.FLOAT),
        helper.make_node("ArrayFeatureExtractor", ["b", "swap"], ["b2"], domain="ai.onnx.ml"),
        helper.make_node("Concat", ["b2", "a32"], ["X"], axis=1),
    ]
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=outputs,
        **v3_attributes(nodes, "target"),
    )
    stored = {"swap": np.array([1, 0])} | (constants or {})
    return model_of(
        [*before, trees, *after],
        features=None,
        outputs=[("z", TensorProto.FLOAT, None)],  # type: ignore[list-item]
        initializers=[numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
        inputs=[
            helper.make_tensor_value_info("a", TensorProto.INT64, [None, 1]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [None, 2]),
        ],
    )


def _answers(model: onnx.ModelProto, X: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"a": X[:, :1].astype(np.int64), "b": X[:, 1:]})[0]


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


@pytest.mark.parametrize(
    ("after", "outputs", "constants"),
    [
        ([_node("Identity", ["y"], ["z"])], 1, {}),
        ([_node("Mul", ["y", "c"], ["z"])], 2, {"c": np.float32(0.5)}),
        ([_node("Div", ["y", "c"], ["d"]), _node("Add", ["d", "e"], ["z"])], 2, {"c": np.float32(4), "e": np.array([1, 2], dtype=np.float32)}),
        ([_node("Sub", ["y", "c"], ["d"]), _node("Sigmoid", ["d"], ["z"])], 1, {"c": np.float32(0.5)}),
        ([_node("Softmax", ["y"], ["z"], axis=1)], 3, {}),
        ([_node("Exp", ["y"], ["d"]), _node("Mul", ["d", "c"], ["z"])], 2, {"c": np.float32(0.7)}),
        ([_node("Add", ["y", "y"], ["z"])], 2, {}),
        ([_node("Reshape", ["y", "s"], ["z"])], 3, {"s": np.array([-1, 3])}),
        ([_node("Sigmoid", ["y"], ["p"]), _node("Sub", ["c", "p"], ["q"]), _node("Concat", ["q", "p"], ["z"], axis=1)], 1, {"c": np.float32(1)}),
        ([_node("Sub", ["c", "y"], ["q"]), _node("Concat", ["q", "y"], ["z"], axis=1)], 1, {"c": np.float32(1)}),
    ],
)  # fmt: skip
def test_harmless_operators_around_the_trees(
    after: list[onnx.NodeProto], outputs: int, constants: dict[str, Any]
) -> None:
    model = _surrounded(after, outputs=outputs, constants=constants)
    X = grid_rows(12, 200, 3)
    X[:, 0] = np.random.default_rng(0).integers(-3, 9, 200)
    forest = read_forest(model)

    assert (forest.features, forest.output_name) == (3, "z")
    scores = class_scores(forest, X)
    assert (np.abs(scores - _answers(model, X)) <= 3e-6 * np.maximum(1, np.abs(scores))).all()


def test_of_a_score_and_its_exponential_the_score_is_explained() -> None:
    model = _surrounded([_node("Identity", ["y"], ["log_z"]), _node("Exp", ["log_z"], ["z"])])
    assert (read_forest(model).output_name, read_forest(model).space) == ("z", "log")
    model.graph.output.append(helper.make_tensor_value_info("log_z", TensorProto.FLOAT, None))

    assert (read_forest(model).output_name, read_forest(model).space) == ("log_z", "value")
    assert read_forest(model, "z").post_transform is PostTransform.EXP
    with pytest.raises(ConfigError, match="no output q"):
        read_forest(model, "q")


def test_the_row_may_feed_the_inputs_in_another_order() -> None:
    model = _surrounded([_node("Identity", ["y"], ["z"])])
    X = grid_rows(12, 100, 3)
    X[:, 0] = 2
    forest = read_forest(model, inputs=[("b", 2), ("a", 1)])

    assert np.array_equal(
        forest.raw_scores(np.ascontiguousarray(X[:, [1, 2, 0]])), read_forest(model).raw_scores(X)
    )
    with pytest.raises(ConfigError, match="inputs are a, b"):
        read_forest(model, inputs=[("b", 2)])


@pytest.mark.parametrize(
    ("after", "names"),
    [
        ([_node("Tanh", ["y"], ["z"])], "Tanh"),
        ([_node("Exp", ["y"], ["p"]), _node("Mul", ["p", "m"], ["z"])], "Mul"),
        ([_node("Sigmoid", ["y"], ["p"]), _node("Mul", ["p", "c"], ["z"])], "Mul"),
        ([_node("Mul", ["y", "y"], ["z"])], "Mul"),
        ([_node("ReduceSum", ["y"], ["z"])], "ReduceSum"),
        ([_node("Transpose", ["y"], ["z"])], "Transpose"),
        ([_node("Reshape", ["y", "s"], ["z"])], "Reshape"),
    ],
)
def test_what_cannot_be_explained_is_refused_by_name(after: list[onnx.NodeProto], names: str) -> None:
    constants = {"c": np.float32(2), "m": np.float32(-2), "s": np.array([3, -1])}
    with pytest.raises(NotATreeError, match=f"operator {names} "):
        read_forest(_surrounded(after, outputs=3, constants=constants))


def test_scaled_inputs_are_not_taken_for_the_rows() -> None:
    attributes = _chain([3.0], missing_true=False, copies=False)
    scaler = helper.make_node(
        "Scaler", ["X"], ["s"], domain="ai.onnx.ml", offset=[0.0, 0.0], scale=[2.0, 2.0]
    )
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["s"], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes
    )
    model = model_of([scaler, trees], features=2, outputs=[("y", TensorProto.FLOAT, [None, 1])])

    with pytest.raises(NotATreeError, match="operator Scaler"):
        read_forest(model)


def test_rows_of_doubles_are_refused_since_float32_would_go_other_ways() -> None:
    attributes = _chain([3.0], missing_true=False, copies=False)
    model = regressor(attributes, features=2)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    with pytest.raises(NotATreeError, match="float64"):
        read_forest(model)


@pytest.mark.parametrize(
    ("given", "through", "refused"),
    [
        (TensorProto.DOUBLE, [TensorProto.FLOAT], False),
        (TensorProto.DOUBLE, [TensorProto.DOUBLE], True),
        (TensorProto.FLOAT, [TensorProto.DOUBLE], False),
        (TensorProto.DOUBLE, [TensorProto.FLOAT, TensorProto.DOUBLE], False),
        (TensorProto.INT64, [TensorProto.FLOAT], False),
        (TensorProto.INT64, [TensorProto.DOUBLE], True),
        (TensorProto.FLOAT, [TensorProto.INT64], True),
    ],
)
def test_casts_that_keep_what_a_float32_row_says(given: int, through: list[int], refused: bool) -> None:
    names = [f"x{place}" for place in range(len(through))]
    casts = [
        helper.make_node("Cast", [before], [after], to=kind)
        for before, after, kind in zip(["X", *names], names, through, strict=False)
    ]
    attributes = _chain([3.0], missing_true=False, copies=False)
    trees = helper.make_node(
        "TreeEnsembleRegressor", names[-1:], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes
    )
    outputs: list[tuple[str, int, list[int | None]]] = [("y", TensorProto.FLOAT, [None, 1])]
    model = model_of([*casts, trees], features=2, input_type=given, outputs=outputs)
    if refused:
        with pytest.raises(NotATreeError):
            read_forest(model)
    else:
        assert read_forest(model).nodes == 5


@pytest.mark.parametrize("aggregate", ["MIN", "MAX"])
def test_aggregates_that_do_not_add_up_are_refused(aggregate: str) -> None:
    model = regressor(
        _chain([3.0], missing_true=False, copies=False), features=2, aggregate_function=aggregate
    )

    with pytest.raises(NotATreeError, match=aggregate):
        read_forest(model)


def test_a_model_without_trees_is_no_tree_ensemble() -> None:
    node = helper.make_node("Identity", ["X"], ["y"])

    with pytest.raises(NotATreeError, match="no tree ensemble"):
        read_forest(model_of([node], features=2, outputs=[("y", TensorProto.FLOAT, [None, 2])]))


def test_an_undeclared_width_is_what_the_tests_name() -> None:
    attributes = _chain([3.0], missing_true=False, copies=False)
    model = regressor(attributes, features=2)
    del model.graph.input[0].type.tensor_type.shape.dim[1]
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_param = "F"

    assert read_forest(model).features == 2
    assert read_forest(model, inputs=[("X", 7)]).features == 7


def test_post_transforms_of_the_newer_operator_are_told_apart() -> None:
    nodes = Nodes(1, trees=2, depth=2, features=2, outputs=2, modes=2)
    expected = (
        PostTransform.NONE,
        PostTransform.SOFTMAX,
        PostTransform.LOGISTIC,
        PostTransform.SOFTMAX_ZERO,
        PostTransform.PROBIT,
    )
    for number, post in enumerate(expected):
        node = ensemble_v5(nodes, post_transform=number)
        model = model_of([node], features=2, outputs=[("y", TensorProto.FLOAT, [None, 2])])
        assert read_forest(model).post_transform is post
