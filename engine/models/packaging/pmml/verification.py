"""ModelVerification: records inside a PMML file, with what its maker's model answers to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.engine.features.policies import unseen_code
from penstock.engine.models.packaging.converted import Converted, OwnAnswers
from penstock.engine.models.packaging.pmml.elements import Element, as_number
from penstock.engine.models.packaging.pmml.expressions import typed
from penstock.engine.models.packaging.pmml.fields import RawColumn, Scope, written
from penstock.schemas.errors import ConfigError

_precision_default: Final = 1e-6
_Cells = Sequence[str | None]
"""Of one field, record by record; None: the record lacks it."""


def own_answers(
    model: Element, columns: Sequence[RawColumn], converted: Converted, scope: Scope
) -> OwnAnswers | None:
    """The records of the file that have an answer; None where it holds none. `columns`: the features, in order.

    Raises ConfigError for a table that is broken.
    """
    found = model.one("ModelVerification")
    rows = [] if found is None else [each for table in found.all("InlineTable") for each in table.all("row")]
    if found is None or not rows:
        return None
    fields = [each for held in found.all("VerificationFields") for each in held.all("VerificationField")]
    cells = {each.must("field"): _column(rows, each.get("column") or each.must("field")) for each in fields}
    classes = (
        ()
        if converted.labels is None
        else _classes(model, scope, len(converted.labels.classes)) or converted.labels.classes
    )
    answers = _answers(model, cells, classes)
    said = [name for name in answers if name in classes or name == ""]
    there = [place for place in range(len(rows)) if any(answers[name][place] is not None for name in answers)]
    if not there:
        return None
    output = converted.outputs[0]
    outputs: dict[str, Any] = {}
    if not classes and said:
        outputs[output.name] = np.array([[_number(answers[""][place], found)] for place in there])
    elif classes and {*classes} <= {*said}:
        outputs[output.name] = np.array(
            [[_number(answers[name][place], found) for name in classes] for place in there]
        )
    labels = None
    if classes and "label" in answers:
        named = [answers["label"][place] for place in there]
        if not all(name in classes for name in named):
            raise found.refused(f"answers with a class that the model does not have: {named[0]}")
        labels = np.array([classes.index(str(name)) for name in named], dtype=np.int64)
    if not outputs and labels is None:
        return None
    of_answers = {_target(model), *(each.get("name") for each in _outputs(model))}
    held = [_values(column, cells.get(column.name), there, found) for column in columns]
    return OwnAnswers(
        rows=np.array(held, dtype=np.float64).reshape(len(columns), len(there)).T.copy(),
        outputs=outputs,
        labels=labels,
        precision=max(
            each.number("precision", _precision_default) for each in fields if each.get("field") in of_answers
        ),
        origin="its ModelVerification",
    )


def _column(rows: Sequence[Element], name: str) -> _Cells:
    plain = name.rpartition(":")[2]
    cells = [row.one(plain) for row in rows]
    return [None if cell is None else cell.text for cell in cells]


def _classes(model: Element, scope: Scope, count: int) -> tuple[str, ...]:
    """What the file calls the classes, in the bundle's order: a person may have given them other names."""
    target = _target(model)
    found = () if target is None else scope.dictionary.labels(target)
    return found if len(found) == count else ()


def _target(model: Element) -> str | None:
    fields = model.need("MiningSchema").all("MiningField")
    return next(
        (each.get("name") for each in fields if each.get("usageType") in ("target", "predicted")), None
    )


def _answers(model: Element, cells: Mapping[str, _Cells], classes: Sequence[str]) -> dict[str, _Cells]:
    """By class its probabilities, by `label` the class, by nothing the number."""
    wanted = "label" if classes else ""
    found: dict[str, _Cells] = {}
    target = _target(model)
    if target is not None and target in cells:
        found[wanted] = cells[target]
    for each in _outputs(model):
        name, feature = each.get("name"), each.get("feature", "predictedValue")
        if name not in cells:
            continue
        if feature == "probability" and each.get("value") in classes:
            found[each.get("value")] = cells[name]
        elif feature == "predictedValue":
            found[wanted] = cells[name]
    return found


def _outputs(model: Element) -> list[Element]:
    """The fields that it answers with; those of the last model of a chain are its own."""
    found = [each for held in model.all("Output") for each in held.all("OutputField")]
    segmentation = model.one("Segmentation")
    if segmentation is not None and segmentation.get("multipleModelMethod") == "modelChain":
        last = segmentation.all("Segment")[-1]
        inside = next(each for each in last.children if each.one("MiningSchema") is not None)
        found += _outputs(inside)
    return found


def _number(text: str | None, element: Element) -> float:
    value = None if text is None else as_number(text)
    if value is None:
        raise element.refused(f"answers with {text!r}, which is no number")
    return value


def _values(column: RawColumn, cells: _Cells | None, places: Sequence[int], element: Element) -> list[float]:
    """Of one feature, as a record's value is read."""
    found = []
    for place in places:
        text = None if cells is None else cells[place]
        if text is None or not text.strip():
            found.append(math.nan)
        elif column.is_category:
            found.append(_code(column, text))
        else:
            value = as_number(text)
            if value is None:
                raise element.refused(f"holds {text[:40]!r} for field {column.name[:80]}, which is a number")
            found.append(value)
    return found


def _code(column: RawColumn, text: str) -> float:
    first = column.values[0]
    kind = "boolean" if isinstance(first, bool) else "double" if isinstance(first, float) else "string"
    try:
        name = written(typed(text, kind))
    except ConfigError:
        return unseen_code
    return float(column.table.index(name)) if name in column.table else unseen_code
