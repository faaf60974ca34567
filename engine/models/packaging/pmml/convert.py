"""A PMML file as a model on its way into a bundle: there is no original to ask, so that `--expected` alone proves it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import as_fed
from penstock.engine.features.overrides import described_features
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.packaging.boosters.forest_model import of_forest, with_sentinel
from penstock.engine.models.packaging.converted import Converted, PackageOptions, input_name
from penstock.engine.models.packaging.pmml.answers import Answer, Linked, Shares, Total, TreeSum
from penstock.engine.models.packaging.pmml.derived import derived_field
from penstock.engine.models.packaging.pmml.elements import Element, read_elements
from penstock.engine.models.packaging.pmml.expressions import Applied, Expression, Rounded
from penstock.engine.models.packaging.pmml.fields import RawColumn, Scope, dictionary_of
from penstock.engine.models.packaging.pmml.graph import FormulaGraph
from penstock.engine.models.packaging.pmml.links import linked, with_median
from penstock.engine.models.packaging.pmml.links import reference as link_reference
from penstock.engine.models.packaging.pmml.mining import Context, model_names
from penstock.engine.models.packaging.pmml.models import answer_of
from penstock.engine.models.packaging.pmml.verification import own_answers
from penstock.engine.models.runtime.session import raw_runner
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import Tree, join_trees, narrowed
from penstock.schemas.errors import ConfigError

_posts: Final = {"none": PostTransform.NONE, "exp": PostTransform.NONE, "logit": PostTransform.LOGISTIC, "softmax": PostTransform.SOFTMAX}  # fmt: skip
_views: Final = frozenset(
    {"predictedValue", "predictedDisplayValue", "probability", "residual", "entityId", "confidence", "reasonCode"}
)  # fmt: skip


def pmml_file(data: bytes, wishes: PackageOptions) -> Converted:
    """A PMML file: trees come out as one tree ensemble, regressions as a graph of doubles. Raises ConfigError."""
    try:
        return _read(data, wishes)
    except RecursionError as error:
        raise ConfigError("it is made of models or fields that lie too deep inside each other") from error


def _read(data: bytes, wishes: PackageOptions) -> Converted:
    root = read_elements(data)
    models = root.all(*model_names)
    if len(models) != 1:
        raise root.refused(f"holds {len(models)} models, and one can be packaged")
    scope = Scope(dictionary=dictionary_of(root), columns=[], read_derived=derived_field)
    for each in root.all("TransformationDictionary"):
        scope.take_derived(each)
    answer = answer_of(models[0], Context(scope=scope))
    header = root.one("Header")
    made_by = header.one("Application") if header is not None else None
    source = f"PMML {root.get('version')}" + (f" of {made_by.get('name')}" if made_by is not None else "")
    maker = _of_formulas if _is_formula(answer) else _of_trees
    converted, used = maker(answer, scope.columns, wishes, source)
    features = [scope.columns[number] for number in used]
    own = own_answers(models[0], features, converted, scope)
    notes = (*converted.notes, *_notes(models[0], features))
    return replace(converted, is_its_own_original=True, own_answers=own, notes=notes)


def _is_formula(answer: Answer) -> bool:
    return isinstance(answer, Linked) and not isinstance(answer.terms[0], TreeSum)


def _notes(model: Element, columns: Sequence[RawColumn]) -> list[str]:
    notes = []
    rejected = [column.name for column in columns if column.rejects_missing]
    if rejected:
        notes.append(
            f"without {', '.join(rejected[:8])}{' ...' if len(rejected) > 8 else ''} the file gives some or all records no "
            "prediction: a record that lacks one of these is set aside"
        )
    ranged = [column.name for column in columns if column.within]
    if ranged:
        notes.append(
            f"a record with a number outside the valid intervals of {', '.join(ranged[:8])}{' ...' if len(ranged) > 8 else ''} is set aside"
        )
    outputs = [each for found in model.all("Output") for each in found.all("OutputField")]
    left = [each.get("name") for each in outputs if each.get("feature", "predictedValue") not in _views]
    if (left and model.name != "MiningModel") or (left and model.need("Segmentation").get("multipleModelMethod") != "modelChain"):  # fmt: skip
        notes.append(f"what the file computes of its prediction is left out: {', '.join(left[:8])}")
    return notes


def _features(
    columns: Sequence[RawColumn], used: Sequence[int], wishes: PackageOptions
) -> tuple[Feature, ...]:
    described: list[dict[str, Any]] = []
    for number in used:
        column = columns[number]
        item: dict[str, Any] = {"name": column.name, "kind": "number"}
        if column.is_category:
            unseen: str | int = column.unseen
            if column.is_open:
                unseen = len(column.table) - 1
            elif column.instead is not None:
                unseen = column.values.index(column.instead)
            elif column.rejects_missing:
                unseen = "reject"
            item |= {"kind": "category", "categories": list(column.table), "unseen": unseen}
        if column.within:
            item["within"] = [[end if np.isfinite(end) else None for end in each] for each in column.within]
        if column.rejects_missing:
            item["missing"] = "reject"
        described.append(item)
    if wishes.feature_names is not None:
        if len(wishes.feature_names) != len(described):
            raise ConfigError(
                f"{len(wishes.feature_names)} features are named, the model takes {len(described)}"
            )
        for item, name in zip(described, wishes.feature_names, strict=True):
            item["name"] = name
    features = described_features(described, wishes.overrides)
    kept = [(feature.kind, feature.categories, feature.width) for feature in features]
    if kept != [(item["kind"], tuple(item.get("categories", ())), 1) for item in described]:
        raise ConfigError(
            "the features file changes a kind or a table of categories, which the PMML file gives"
        )
    return with_sentinel(features, wishes.missing)


_Made = tuple[Converted, Sequence[int]]
"""With the columns that are its features."""


def _of_trees(answer: Answer, columns: Sequence[RawColumn], wishes: PackageOptions, source: str) -> _Made:
    if isinstance(answer, TreeSum):
        answer = Linked(terms=(answer,), link="none")
    trees: list[Tree] = []
    labels: tuple[str, ...] = ()
    base, link = [0.0], "none"
    if isinstance(answer, Shares):
        labels, base = answer.labels, [0.0] * len(answer.labels)
        trees = [replace(tree, values=tree.values * factor) for tree, factor in answer.trees]
    else:
        link, labels, sums = (
            answer.link,
            answer.labels,
            [each for each in answer.terms if isinstance(each, TreeSum)],
        )
        if link not in (*_posts, "median"):
            raise ConfigError(f"a sum of trees is given to {link}, which no tree ensemble of ours ends with")
        if len(labels) == 2 and len(sums) == 1:
            if link != "logit":
                raise ConfigError(f"a sum of trees is given to {link} for two classes, which is not read")
            if answer.whose == 0:
                sums = [sums[0].times(-1.0)]
        for place, each in enumerate(sums):
            trees += [
                replace(tree, values=tree.values[:, 0] * factor, output=place) for tree, factor in each.trees
            ]
        base = [each.constant for each in sums]
    asked = {int(feature) for tree in trees for feature in tree.feature[tree.yes >= 0]}
    if not asked:
        raise ConfigError("the trees of the file ask about nothing")
    # what all values answer alike is a feature as well: missing or unknown, it may leave the record without a prediction
    used = [number for number, column in enumerate(columns) if column.is_asked]
    place_of = np.full(len(columns), -1, dtype=np.int64)
    place_of[used] = np.arange(len(used))
    trees = [replace(tree, feature=place_of[tree.feature]) for tree in trees]
    narrow, cuts = narrowed(trees, len(used))
    forest = join_trees(
        narrow,
        features=len(used),
        outputs=len(base),
        base_values=base,
        post_transform=_posts.get(link, PostTransform.NONE),
        labels=_labels(labels, wishes),
        output_name="probabilities" if labels else "value",
    )
    features = _features(columns, used, wishes)
    cuts = tuple(() if _rounds_alike(column) else column for column in cuts)
    signature = Signature(
        features=features,
        inputs=(ModelInput(name=input_name, dtype="float32", start=0, width=len(used)),),
        cuts=cuts if any(cuts) else (),
    )
    converted = of_forest(
        forest,
        exponential=link == "exp",
        source=source,
        features=features,
        predict=lambda rows: _answers(forest, as_fed(rows, signature), link),
        cuts=cuts,
    )
    return converted if link in _posts else _of_median(converted), used


def _of_median(converted: Converted) -> Converted:
    """The middle one of several sums of trees: a graph, and no ensemble."""
    (output,) = converted.outputs
    if converted.table is not None:
        raise ConfigError("the median is taken of trees of so many nodes that no graph holds them")
    return replace(
        converted,
        model=with_median(converted.model, name=output.name, width=output.width),
        forest=None,
        outputs=(replace(output, width=1),),
    )


def _labels(labels: tuple[str, ...], wishes: PackageOptions) -> tuple[str, ...]:
    if wishes.classes is None:
        return labels
    if len(wishes.classes) != len(labels):
        raise ConfigError(f"{len(wishes.classes)} classes are named, the model has {len(labels)}: {', '.join(labels[:8])}")  # fmt: skip
    return wishes.classes


def _answers(forest: Forest, rows: NDArray[Any], link: str) -> NDArray[np.float64]:
    return link_reference(forest.raw_scores(rows), link)


def _rounds_alike(cuts: tuple[float, ...]) -> bool:
    """Whether a number lies on the same side of each cut after it was rounded to the nearest float32, as it is where a file
    compares single precision."""
    ends = np.array(cuts)
    with np.errstate(over="ignore"):
        return bool((ends.astype(np.float32) != np.nextafter(ends, np.inf).astype(np.float32)).all())


def _of_formulas(answer: Answer, columns: Sequence[RawColumn], wishes: PackageOptions, source: str) -> _Made:
    assert isinstance(answer, Linked)
    terms = [each for each in answer.terms if isinstance(each, Expression)]
    used = sorted(frozenset[int]().union(*(each.columns for each in terms)))
    if not used:
        raise ConfigError("the formula of the file depends on nothing")
    for number in frozenset[int]().union(*(_needed(each) for each in terms)):
        columns[number].rejects_missing = True
    kept = [columns[number] for number in used]
    labels = answer.labels
    whose = answer.whose if labels and len(terms) == 1 else None
    width = len(labels) or 1
    name = "probabilities" if labels else "value"
    graph = FormulaGraph(columns, place_of={number: place for place, number in enumerate(used)})
    model = graph.finished(linked(graph, terms, answer.link, whose), name, width)
    signature = Signature(
        features=_features(columns, used, wishes),
        inputs=(ModelInput(name=input_name, dtype="float64", start=0, width=len(kept)),),
    )
    run = raw_runner(model, signature)

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {name: np.asarray(run(as_fed(rows, signature))[name], dtype=np.float64)}

    called = _labels(labels, wishes)
    shares = labels or answer.link == "logit"
    converted = Converted(
        source=source,
        model=model,
        forest=None,
        signature=signature,
        outputs=(ModelOutput(name=name, width=width, meaning="probability" if shares else "value"),),
        labels=Labels(classes=called, output=name, values=None) if called else None,
        score=score,
    )
    return converted, used


def _needed(expression: Expression) -> frozenset[int]:
    """Columns without which the expression is missing."""
    if len(expression.columns) == 1:
        return expression.columns if expression.at(None) is None else frozenset()
    if isinstance(expression, Total):
        return frozenset[int]().union(*(_needed(term) for _, term in expression.terms))
    if isinstance(expression, Rounded):
        return _needed(expression.inner)
    if isinstance(expression, Applied) and expression.missing is None and expression.function in ("+", "-", "*", "/", "pow"):  # fmt: skip
        return frozenset[int]().union(*(_needed(each) for each in expression.arguments))
    return frozenset()
