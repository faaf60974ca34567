"""An ONNX graph as it came: ZipMap taken out, inputs and outputs named, trees recognised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from penstock.engine.features.overrides import Overrides, described_features
from penstock.engine.features.signature import Feature, InputType, ModelInput, Signature
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.packaging.exported.class_columns import with_columns_joined
from penstock.engine.models.packaging.output_meaning import meaning_of
from penstock.engine.models.runtime.session import raw_runner
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.read import NotATreeError, read_forest
from penstock.schemas.errors import ConfigError

_input_types: Mapping[int, InputType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.STRING: "string",
    TensorProto.BOOL: "bool",
}
_float_types = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_tried_rows = 3
_opset_of_casts = 13
_without_nan = ("int64", "int32", "bool")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OnnxGraph:
    """A graph that a bundle can hold."""

    model: bytes
    signature: Signature
    outputs: tuple[ModelOutput, ...]
    labels: Labels | None
    forest: Forest | None
    notes: tuple[str, ...]
    widened: bool
    """Its inputs of float16 take float32 now."""
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of an output that took the place of one for each class, how those were called."""


def read_onnx(
    data: bytes,
    *,
    feature_names: Sequence[str] | None = None,
    overrides: Overrides = (),
    classes: Sequence[str] | None = None,
) -> OnnxGraph:
    """The graph in these bytes. Raises ConfigError when it cannot be served, saying what is missing."""
    model = parse_model(data)
    zip_classes = _without_zip_map(model.graph)
    joined = None if zip_classes else with_columns_joined(model.graph)
    if joined is not None:
        zip_classes = joined.classes
    widened = _widen_half_inputs(model.graph)
    if not any(each.domain in ("", "ai.onnx") for each in model.opset_import):
        # Of operators of ai.onnx.ml alone, as exporters write a linear model: what took the ZipMap's place belongs to another set.
        model.opset_import.append(onnx.helper.make_opsetid("", _opset_of_casts))
    signature = _signature(model.graph, feature_names, overrides)
    known = _class_values(model.graph) or zip_classes
    if known is not None and classes and len(known) != len(classes) and _is_of_members(model.graph):
        known = None
    count = len(known) if known is not None else len(classes or ())
    widths = _widths_of_outputs(model, signature, count or None)
    outputs, notes = _outputs(model.graph, widths, count or None)
    forest = None
    try:
        inputs = [(each.name, each.width) for each in signature.inputs]
        forest = read_forest(model, inputs=inputs)
    except NotATreeError as error:
        if any(node.op_type.startswith("TreeEnsemble") for node in model.graph.node):
            notes.append(f"its trees are not explained as trees: {error}")
    return OnnxGraph(
        model=model.SerializeToString(deterministic=True),
        signature=signature,
        outputs=tuple(outputs),
        labels=_labels(model.graph, outputs, known, classes),
        forest=forest,
        notes=tuple(notes),
        widened=widened,
        joined={} if joined is None else {joined.called: joined.columns},
    )


def _without_zip_map(graph: onnx.GraphProto) -> tuple[int, ...] | tuple[str, ...] | None:
    """Takes every ZipMap out, so that scores leave as one tensor; the classes that they named, in column order."""
    classes = None
    for place, node in enumerate(graph.node):
        if node.op_type != "ZipMap":
            continue
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        texts = [text.decode() for text in attributes.get("classlabels_strings", [])]
        classes = tuple(texts) if texts else tuple(attributes.get("classlabels_int64s", []))
        scores, after = node.input[0], node.output[0]
        graph.node.remove(node)
        graph.node.insert(place, onnx.helper.make_node("Cast", [scores], [after], to=TensorProto.FLOAT))
        for output in graph.output:
            if output.name == after:
                fresh = onnx.helper.make_tensor_value_info(after, TensorProto.FLOAT, [None, len(classes)])
                output.CopyFrom(fresh)
        for info in [info for info in graph.value_info if info.name == after]:
            graph.value_info.remove(info)
    return classes


def _widen_half_inputs(graph: onnx.GraphProto) -> bool:
    """Inputs of float16 take float32, and are cast: matrix rows have no halves. Whether there were any."""
    widened = False
    for item in graph.input:
        if item.type.tensor_type.elem_type != TensorProto.FLOAT16:
            continue
        narrow = f"{item.name}/float16"
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == item.name:
                    node.input[place] = narrow
        graph.node.insert(0, onnx.helper.make_node("Cast", [item.name], [narrow], to=TensorProto.FLOAT16))
        item.type.tensor_type.elem_type = TensorProto.FLOAT
        widened = True
    return widened


def _widths_of_outputs(
    model: onnx.ModelProto, signature: Signature, classes: int | None
) -> dict[str, int | None]:
    """Numbers a row of each output of floats, as declared; where one is not, one run tells. None: it has no fixed number."""
    widths: dict[str, int | None] = {}
    for item in model.graph.output:
        if not item.type.HasField("tensor_type"):
            raise ConfigError(f"output {item.name} of the graph is not a tensor")
        tensor = item.type.tensor_type
        if tensor.elem_type not in _float_types:
            continue
        extents = [dimension.dim_value for dimension in tensor.shape.dim[1:]]
        declared = tensor.HasField("shape") and all(extent > 0 for extent in extents)
        widths[item.name] = math.prod(extents) if declared else None
        if not declared and classes is not None and len(extents) == 1:
            widths[item.name] = classes
    if None in widths.values():
        found = _tried(model, signature)
        for name in [name for name, width in widths.items() if width is None]:
            answers = found.get(name)
            if answers is not None and answers.ndim and len(answers) == _tried_rows:
                widths[name] = math.prod(answers.shape[1:]) or None
    return widths


def _tried(model: onnx.ModelProto, signature: Signature) -> dict[str, Any]:
    """What the graph answers to a few rows of zeros; nothing where it cannot run them."""
    rows = np.zeros((_tried_rows, signature.width), dtype=signature.dtype)
    try:
        return {
            name: np.asarray(answers)
            for name, answers in raw_runner(model.SerializeToString(), signature)(rows).items()
        }
    except ConfigError:
        return {}


def _signature(
    graph: onnx.GraphProto, feature_names: Sequence[str] | None, overrides: Overrides
) -> Signature:
    constant = {tensor.name for tensor in graph.initializer}
    declared = [item for item in graph.input if item.name not in constant]
    tables = _string_tables(graph)
    described: list[dict[str, Any]] = []
    for item in declared:
        described += _described(item, alone=len(declared) == 1, names=feature_names, tables=tables)
    features = described_features(described, overrides)
    left = list(features)
    inputs, place = [], 0
    for item in declared:
        width = _width(item)
        if width is None:  # the only one of unknown width takes what the others leave
            width = sum(feature.width for feature in features) - sum(_width(other) or 0 for other in declared)
        taken = _take(left, width, item.name)
        dtype = _input_type(item)
        if dtype in _without_nan:
            features = tuple(
                _never_nan(feature) if feature in taken and feature.missing == "nan" else feature
                for feature in features
            )
        inputs.append(ModelInput(name=item.name, dtype=dtype, start=place, width=width))
        place += width
    return Signature(features=features, inputs=tuple(inputs))


def _take(left: list[Feature], width: int, name: str) -> list[Feature]:
    """The next features that fill an input exactly."""
    taken: list[Feature] = []
    while left and sum(feature.width for feature in taken) < width:
        taken.append(left.pop(0))
    if sum(feature.width for feature in taken) != width:
        raise ConfigError(
            f"input {name} takes {width} numbers a row, which the features do not fill in order"
        )
    return taken


def _never_nan(feature: Feature) -> Feature:
    return Feature(
        name=feature.name,
        field=feature.field,
        kind=feature.kind,
        width=feature.width,
        categories=feature.categories,
        missing="reject",
        infinite="reject",
        unseen="reject" if feature.unseen == "nan" else feature.unseen,
    )


def _described(
    item: onnx.ValueInfoProto, *, alone: bool, names: Sequence[str] | None, tables: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    width, dtype = _width(item), _input_type(item)
    if alone and names is not None:
        if width not in (None, len(names)):
            raise ConfigError(
                f"input {item.name} takes {width} numbers a row, {len(names)} features are named"
            )
        return [{"name": name, "kind": "number"} for name in names]
    if width is None:
        raise ConfigError(
            f"input {item.name} does not say how many numbers a row has: name the features (--features)"
        )
    if dtype == "string":
        table = tables.get(item.name)
        return [{"name": item.name, "kind": "category"} | ({"categories": table} if table else {})]
    if width == 1:
        return [{"name": item.name, "kind": "number"}]
    stem = "f" if alone else f"{item.name}_"
    return [{"name": f"{stem}{index}", "kind": "number"} for index in range(width)]


def _width(item: onnx.ValueInfoProto) -> int | None:
    shape = item.type.tensor_type.shape.dim
    if len(shape) == 1 and shape[0].dim_value > 1:
        raise ConfigError(
            f"input {item.name} takes one row without a batch, {shape[0].dim_value} numbers: export the model with a batch "
            "as its first dimension"
        )
    if not item.type.HasField("tensor_type"):
        raise ConfigError(f"input {item.name} of the graph is not a tensor")
    extents = [dimension.dim_value for dimension in shape[1:]]
    return math.prod(extents) if all(extent > 0 for extent in extents) else None


def _input_type(item: onnx.ValueInfoProto) -> InputType:
    kind = item.type.tensor_type.elem_type
    if kind not in _input_types:
        raise ConfigError(
            f"input {item.name} of the graph takes {TensorProto.DataType.Name(kind)}, which is not fed"
        )
    return _input_types[kind]


def _string_tables(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """The categories that an encoder right behind a string input knows."""
    tables = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("cats_strings", "keys_strings") and node.op_type in (
                "OneHotEncoder",
                "LabelEncoder",
            ):
                tables[node.input[0]] = [text.decode() for text in attribute.strings if text]
    return tables


def _class_values(graph: onnx.GraphProto) -> tuple[int, ...] | tuple[str, ...] | None:
    for node in graph.node:
        if not node.op_type.endswith("Classifier"):
            continue
        for attribute in node.attribute:
            if attribute.name == "classlabels_strings" and attribute.strings:
                return tuple(text.decode() for text in attribute.strings)
            if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
                return tuple(attribute.ints)
    return None


def _is_of_members(graph: onnx.GraphProto) -> bool:
    """Whether its classifiers are several, each with classes of its own, and none of them answers for the whole."""
    said = {item.name for item in graph.output}
    classifiers = [node for node in graph.node if node.op_type.endswith("Classifier")]
    return len(classifiers) > 1 and not any(said.intersection(node.output) for node in classifiers)


def _outputs(
    graph: onnx.GraphProto, widths: Mapping[str, int | None], classes: int | None
) -> tuple[list[ModelOutput], list[str]]:
    outputs, notes = [], []
    for item in graph.output:
        if item.name not in widths:
            continue
        width = widths[item.name]
        if width is None:
            notes.append(f"output {item.name} has no fixed width and is left out")
            continue
        meaning = meaning_of(graph, item.name, is_classifier=classes is not None and width in (1, classes))
        outputs.append(ModelOutput(name=item.name, width=width, meaning=meaning))
    if not outputs:
        raise ConfigError("the graph has no output of floats with a fixed width")
    return outputs, notes


def _labels(
    graph: onnx.GraphProto,
    outputs: Sequence[ModelOutput],
    known: tuple[int, ...] | tuple[str, ...] | None,
    classes: Sequence[str] | None,
) -> Labels | None:
    answers = [
        item
        for item in graph.output
        if item.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.STRING)
    ]
    count = len(known) if known is not None else len(classes or ())
    if not count:
        return None
    names = tuple(classes) if classes else tuple(str(value) for value in known or ())
    if len(names) != count:
        raise ConfigError(f"{len(names)} class names were given, the model has {count} classes")
    if answers:
        if known is None:
            is_text = answers[0].type.tensor_type.elem_type == TensorProto.STRING
            known = names if is_text else tuple(range(count))
        return Labels(classes=names, output=answers[0].name, values=known)
    scores = next((output for output in outputs if output.width == count), None)
    if scores is None:
        raise ConfigError(f"no output of the graph has a column for each of the {count} classes")
    return Labels(classes=names, output=scores.name, values=None)
