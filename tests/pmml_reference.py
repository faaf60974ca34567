"""A small interpreter of PMML, one record at a time, straight from the standard: what the reader of the product is held against.

It shares no code with it, knows nothing of bundles, and raises KeyError for what it does not know. NothingError is raised where the
file gives a record no prediction.
"""

import math
import statistics
import struct
import xml.etree.ElementTree as Tree
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]


class NothingError(Exception):
    """No prediction: a missing or an invalid value, or no rule that holds."""


def _local(element: Tree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _kids(element: Tree.Element, *names: str) -> list[Tree.Element]:
    return [child for child in element if _local(child) in names]


def _kid(element: Tree.Element, name: str) -> Tree.Element:
    return _kids(element, name)[0]


def _f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _cast(text: Any, kind: str) -> Any:
    if text is None:
        return None
    if kind == "string":
        return str(text)
    if kind == "boolean":
        return str(text).lower() == "true"
    return _f32(float(text)) if kind == "float" else float(text)


class Interpreter:
    """A file that can be asked."""

    def __init__(self, text: str) -> None:
        root = Tree.fromstring(text)
        self._dictionary = {field.get("name"): field for field in _kid(root, "DataDictionary")}
        self._shared = _kids(root, "TransformationDictionary")
        self._model = next(child for child in root if _kids(child, "MiningSchema"))

    def answer(self, record: Record) -> float | dict[str, float]:
        """The number, or each class's share. Raises NothingError."""
        values: dict[str, Any] = {}
        derived: dict[str, Tree.Element] = {}
        for each in self._shared:
            derived |= {field.get("name", ""): field for field in _kids(each, "DerivedField")}
        return self._answer(self._model, _Scope(self._dictionary, values, derived), record)

    def _answer(self, model: Tree.Element, scope: "_Scope", record: Record | None) -> Any:
        target = scope.take_schema(_kid(model, "MiningSchema"), record)
        for each in _kids(model, "LocalTransformations"):
            for field in _kids(each, "DerivedField"):
                scope.derived[field.get("name", "")] = field
                scope.kinds.pop(field.get("name", ""), None)
        classes = (
            [value.get("value") for value in self._dictionary[target]] if target in self._dictionary else []
        )
        found = getattr(self, f"_{_local(model)}")(model, scope, classes)
        for each in _kids(model, "Targets"):
            for one in each:
                found = found * float(one.get("rescaleFactor", 1)) + float(one.get("rescaleConstant", 0))
        return found

    def _TreeModel(self, model: Tree.Element, scope: "_Scope", classes: list[Any]) -> Any:  # noqa: N802
        node = self._reached(model, scope)
        if model.get("functionName") == "regression":
            if node.get("score") is None:
                raise NothingError
            return float(node.get("score", ""))
        held = _kids(node, "ScoreDistribution")
        if held:
            said = "probability" if all(each.get("probability") for each in held) else "recordCount"
            whole = 1.0 if said == "probability" else sum(float(each.get("recordCount", "")) for each in held)
            return {each.get("value", ""): float(each.get(said, "")) / whole for each in held}
        if node.get("score") is None:
            raise NothingError
        return {node.get("score", ""): 1.0}

    def _reached(self, model: Tree.Element, scope: "_Scope") -> Tree.Element:
        strategy = model.get("missingValueStrategy", "none")
        node = _kid(model, "Node")
        while children := _kids(node, "Node"):
            taken: Tree.Element | None = None
            for child in children:
                truth = scope.truth(child)
                if truth is None and strategy == "nullPrediction":
                    raise NothingError
                if truth is None and strategy == "lastPrediction":
                    return node
                if truth is None and strategy == "defaultChild":
                    taken = next(each for each in children if each.get("id") == node.get("defaultChild"))
                    break
                if truth:
                    taken = child
                    break
            if taken is None:
                if model.get("noTrueChildStrategy") == "returnLastPrediction":
                    return node
                raise NothingError
            node = taken
        return node

    def _Scorecard(self, model: Tree.Element, scope: "_Scope", classes: list[Any]) -> float:  # noqa: N802
        total = float(model.get("initialScore", 0))
        for characteristic in _kid(model, "Characteristics"):
            attributes = [each for each in _kids(characteristic, "Attribute") if scope.truth(each)]
            if not attributes:
                raise NothingError
            total += float(attributes[0].get("partialScore", ""))
        return total

    def _RegressionModel(self, model: Tree.Element, scope: "_Scope", classes: list[Any]) -> Any:  # noqa: N802
        raws = {
            table.get("targetCategory"): self._table(table, scope)
            for table in _kids(model, "RegressionTable")
        }
        link = model.get("normalizationMethod", "none")
        if model.get("functionName") == "regression":
            return _links["logit" if link == "softmax" else link](next(iter(raws.values())))
        if link == "softmax":
            raised = {name: math.exp(value - max(raws.values())) for name, value in raws.items()}
            return {name: value / sum(raised.values()) for name, value in raised.items()}
        if link == "simplemax":
            return {name: value / sum(raws.values()) for name, value in raws.items()}
        (one, value), (other, _) = raws.items()
        return {one: _links[link](value), other: 1 - _links[link](value)}

    def _table(self, table: Tree.Element, scope: "_Scope") -> float:
        total = float(table.get("intercept", ""))
        for each in _kids(table, "NumericPredictor"):
            value = scope.value(each.get("name", ""))
            if value is None:
                raise NothingError
            total += float(each.get("coefficient", "")) * value ** float(each.get("exponent", 1))
        for each in _kids(table, "CategoricalPredictor"):
            name = each.get("name", "")
            value = scope.value(name)
            if value is not None and value == _cast(each.get("value"), scope.kind(name)):
                total += float(each.get("coefficient", ""))
        for each in _kids(table, "PredictorTerm"):
            factors = [scope.value(part.get("field", "")) for part in _kids(each, "FieldRef")]
            if None in factors:
                raise NothingError
            total += float(each.get("coefficient", "")) * math.prod(factors)
        return total

    def _GeneralRegressionModel(self, model: Tree.Element, scope: "_Scope", classes: list[Any]) -> Any:  # noqa: N802
        products = {each.get("name"): 1.0 for each in _kid(model, "ParameterList")}
        factors = (
            {each.get("name") for each in _kid(model, "FactorList")} if _kids(model, "FactorList") else set()
        )
        for cell in _kid(model, "PPMatrix"):
            name = cell.get("predictorName", "")
            value = scope.value(name)
            if value is None:
                raise NothingError
            if name in factors:
                products[cell.get("parameterName")] *= value == _cast(cell.get("value"), scope.kind(name))
            else:
                products[cell.get("parameterName")] *= value ** float(cell.get("value", ""))
        totals: dict[Any, float] = {}
        for cell in _kid(model, "ParamMatrix"):
            named = cell.get("targetCategory")
            totals[named] = (
                totals.get(named, 0.0) + float(cell.get("beta", "")) * products[cell.get("parameterName")]
            )
        if model.get("modelType") == "multinomialLogistic":
            most = max(totals.values())
            raised = {name: math.exp(totals.get(name, 0.0) - most) for name in classes}
            return {name: value / sum(raised.values()) for name, value in raised.items()}
        link = {"identity": "none", "log": "exp"}.get(
            model.get("linkFunction", "identity"), model.get("linkFunction")
        )
        ((named, total),) = totals.items()
        found = _links[str(link)](total)
        if model.get("functionName") == "regression":
            return found
        first = named or next(name for name in classes if name != model.get("targetReferenceCategory"))
        return {name: found if name == first else 1 - found for name in classes}

    def _MiningModel(self, model: Tree.Element, scope: "_Scope", classes: list[Any]) -> Any:  # noqa: N802
        segmentation = _kid(model, "Segmentation")
        method = segmentation.get("multipleModelMethod", "")
        found, weights = [], []
        for segment in _kids(segmentation, "Segment"):
            if not scope.truth(segment):
                continue
            inside = next(child for child in segment if _kids(child, "MiningSchema"))
            answer = self._answer(inside, scope.inner(), None)
            if method == "selectFirst":
                return answer
            found.append(answer)
            weights.append(float(segment.get("weight", 1)) if method.startswith("weighted") else 1.0)
            for output in _kids(inside, "Output"):
                for field in output:
                    if field.get("feature", "predictedValue") == "predictedValue":
                        scope.values[field.get("name", "")] = answer
                        scope.kinds[field.get("name", "")] = "double"
        if not found:
            raise NothingError
        if method == "modelChain":
            return found[-1]
        if method == "median":
            return statistics.median(found)
        whole = 1.0 if method in ("sum", "weightedSum") else sum(weights)
        if isinstance(found[0], float):
            return sum(weight * each for weight, each in zip(weights, found, strict=True)) / whole
        total: dict[str, float] = {}
        for weight, shares in zip(weights, found, strict=True):
            if method.endswith("Vote"):
                order = [name for name in classes if name in shares]
                shares = {max(order, key=shares.__getitem__): 1.0}
            for name, share in shares.items():
                total[name] = total.get(name, 0.0) + weight * share / whole
        return total


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.7 else math.inf


_links: Mapping[str, Callable[[float], float]] = {
    "none": lambda y: y,
    "exp": _exp,
    "logit": lambda y: 1 / (1 + _exp(-y)),
    "cloglog": lambda y: 1 - _exp(-_exp(y)),
    "loglog": lambda y: _exp(-_exp(-y)),
    "probit": statistics.NormalDist().cdf,
    "cauchit": lambda y: 0.5 + math.atan(y) / math.pi,
}


class _Scope:
    """Fields by name, for one record."""

    def __init__(
        self, dictionary: Mapping[Any, Tree.Element], values: dict[str, Any], derived: dict[str, Tree.Element]
    ) -> None:
        self.dictionary, self.values, self.derived = dictionary, values, derived
        self.kinds: dict[str, str] = {}

    def inner(self) -> "_Scope":
        made = _Scope(self.dictionary, dict(self.values), dict(self.derived))
        made.kinds = dict(self.kinds)
        return made

    def kind(self, name: str) -> str:
        self.value(name)
        return self.kinds[name]

    def take_schema(self, schema: Tree.Element, record: Record | None) -> str:
        target = ""
        for mining in schema:
            name = mining.get("name", "")
            if mining.get("usageType", "active") == "target":
                target = name
            elif record is not None and mining.get("usageType", "active") == "active":
                self.values[name] = self._input(mining, self.dictionary[name], record.get(name))
            elif record is None and mining.get("missingValueReplacement") and self.value(name) is None:
                self.values[name] = _cast(mining.get("missingValueReplacement"), self.kinds[name])
        return target

    def _input(self, mining: Tree.Element, field: Tree.Element, raw: Any) -> Any:
        kind = self.kinds[mining.get("name", "")] = field.get("dataType", "")
        by_kind: dict[str, list[Any]] = {"valid": [], "missing": [], "invalid": []}
        for each in _kids(field, "Value"):
            by_kind[each.get("property", "valid")].append(_cast(each.get("value"), kind))
        value = _cast(raw, kind)
        if value in by_kind["missing"]:
            value = None
        treatment = mining.get("invalidValueTreatment", "returnInvalid")
        if value is not None and treatment != "asIs":
            ranges = _kids(field, "Interval")
            good = value not in by_kind["invalid"]
            if by_kind["valid"] or ranges:
                good = good and (value in by_kind["valid"] or any(_within(each, value) for each in ranges))
            if not good:
                if treatment == "returnInvalid":
                    raise NothingError
                value = (
                    None if treatment == "asMissing" else _cast(mining.get("invalidValueReplacement"), kind)
                )
        low, high = float(mining.get("lowValue", -math.inf)), float(mining.get("highValue", math.inf))
        if isinstance(value, float) and mining.get("outliers") == "asExtremeValues":
            value = min(max(value, low), high)
        if (
            isinstance(value, float)
            and mining.get("outliers") == "asMissingValues"
            and not low <= value <= high
        ):
            value = None
        return _cast(mining.get("missingValueReplacement"), kind) if value is None else value

    def value(self, name: str) -> Any:
        if name not in self.kinds:
            field = self.derived[name]
            kind = field.get("dataType", "")
            value = self.computed(next(iter(field)), kind)
            self.values[name] = _cast(value, kind) if not isinstance(value, bool) else value
            self.kinds[name] = kind
        return self.values[name]

    def computed(self, element: Tree.Element, kind: str) -> Any:
        name = _local(element)
        if name == "Constant":
            return _cast(element.text, element.get("dataType", "double"))
        if name == "Apply":
            return _apply(
                element.get("function", ""),
                [self.computed(each, kind) for each in element],
                element.get("mapMissingTo"),
            )
        if name == "MapValues":
            (pair,) = _kids(element, "FieldColumnPair")
            field, column = pair.get("field", ""), pair.get("column", "")
        else:
            field = element.get("field", "")
        value = self.value(field)
        if value is None:
            return (
                _cast(element.get("mapMissingTo"), element.get("dataType", kind))
                if element.get("mapMissingTo")
                else None
            )
        if name == "FieldRef":
            return value
        if name == "NormDiscrete":
            return float(value == _cast(element.get("value"), self.kinds[field]))
        if name == "Discretize":
            for each in _kids(element, "DiscretizeBin"):
                if _within(_kid(each, "Interval"), value):
                    return _cast(each.get("binValue"), element.get("dataType", kind))
            return _cast(element.get("defaultValue"), element.get("dataType", kind))
        if name == "MapValues":
            for row in _kid(element, "InlineTable"):
                cells = {_local(cell): cell.text for cell in row}
                if _cast(cells[column], self.kinds[field]) == value:
                    return _cast(cells[element.get("outputColumn", "")], element.get("dataType", kind))
            return _cast(element.get("defaultValue"), element.get("dataType", kind))
        assert name == "NormContinuous"
        return _interpolated(element, value)

    def truth(self, owner: Tree.Element) -> bool | None:
        """Of the predicate of a node."""
        names = ("True", "False", "SimplePredicate", "SimpleSetPredicate", "CompoundPredicate")
        return self._truth(_kids(owner, *names)[0])

    def _truth(self, predicate: Tree.Element) -> bool | None:
        name = _local(predicate)
        if name in ("True", "False"):
            return name == "True"
        if name == "CompoundPredicate":
            parts = [self._truth(each) for each in predicate]
            operator = predicate.get("booleanOperator")
            if operator == "surrogate":
                return next((each for each in parts if each is not None), None)
            if operator == "xor":
                return None if None in parts else parts.count(True) % 2 == 1
            decisive = operator == "or"
            if decisive in parts:
                return decisive
            return None if None in parts else not decisive
        value, kind = self.value(predicate.get("field", "")), self.kinds[predicate.get("field", "")]
        operator = predicate.get("operator")
        if operator in ("isMissing", "isNotMissing"):
            return (value is None) == (operator == "isMissing")
        if value is None:
            return None
        if name == "SimpleSetPredicate":
            held = [_cast(text.strip('"'), kind) for text in (_kid(predicate, "Array").text or "").split()]
            return (value in held) == (predicate.get("booleanOperator") == "isIn")
        other = _cast(predicate.get("value"), kind)
        return {
            "equal": lambda: value == other,
            "notEqual": lambda: value != other,
            "lessThan": lambda: value < other,
            "lessOrEqual": lambda: value <= other,
            "greaterThan": lambda: value > other,
            "greaterOrEqual": lambda: value >= other,
        }[str(operator)]()


def _within(interval: Tree.Element, value: float) -> bool:
    low, high = float(interval.get("leftMargin", -math.inf)), float(interval.get("rightMargin", math.inf))
    closure = interval.get("closure", "")
    over = value >= low if closure.startswith("closed") else value > low
    return over and (value <= high if closure.endswith("Closed") else value < high)


def _interpolated(element: Tree.Element, value: float) -> float | None:
    points = [
        (float(each.get("orig", "")), float(each.get("norm", ""))) for each in _kids(element, "LinearNorm")
    ]
    outliers = element.get("outliers", "asIs")
    if not points[0][0] <= value <= points[-1][0]:
        if outliers == "asMissingValues":
            return None if element.get("mapMissingTo") is None else float(element.get("mapMissingTo", ""))
        if outliers == "asExtremeValues":
            return points[0][1] if value < points[0][0] else points[-1][1]
    start = max([place for place, (at, _) in enumerate(points[:-1]) if at <= value], default=0)
    (x1, y1), (x2, y2) = points[start], points[start + 1]
    return y1 + (value - x1) / (x2 - x1) * (y2 - y1)


def _apply(function: str, values: list[Any], missing: str | None) -> Any:
    if function == "if":
        return (
            None if values[0] is None else values[1] if values[0] else values[2] if len(values) > 2 else None
        )
    if function in ("isMissing", "isNotMissing"):
        return (values[0] is None) == (function == "isMissing")
    if None in values:
        return None if missing is None else float(missing)
    calls: dict[str, Callable[..., Any]] = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
        "exp": math.exp, "ln": math.log, "log10": math.log10, "sqrt": math.sqrt, "abs": abs, "pow": math.pow,
        "floor": math.floor, "ceil": math.ceil, "threshold": lambda a, b: float(a > b),
        "equal": lambda a, b: a == b, "notEqual": lambda a, b: a != b, "lessThan": lambda a, b: a < b,
        "lessOrEqual": lambda a, b: a <= b, "greaterThan": lambda a, b: a > b, "greaterOrEqual": lambda a, b: a >= b,
        "not": lambda a: not a,
    }  # fmt: skip
    return calls[function](*values)
