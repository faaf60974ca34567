"""PMML files drawn from seeds: fields of every type and treatment, derived fields, trees, chains, votes, scorecards, regressions."""

import random
from collections.abc import Sequence
from typing import Any

numbers = ("amount", "share", "single", "count")
kinds = {"amount": "double", "share": "double", "single": "float", "count": "integer"}
towns = ("Ulm", "Bonn", "Kiel", "Trier")
categories = ("town", "band", "vip", "code")
classes = ("good", "bad", "ugly")


class Draft:
    """One file on its way, all of its chances from one seed."""

    def __init__(self, seed: int, version: str = "4.4") -> None:
        self._chance = random.Random(seed)
        self._version = version
        self.derived: dict[str, str] = {}
        """Derived numbers by name, with their type."""

    def number(self, low: float = -3, high: float = 3) -> str:
        """A number of few decimals, at times of many."""
        value = self._chance.uniform(low, high)
        return repr(value if self._chance.random() < 0.3 else round(value, self._chance.randrange(3)))

    def file(self, model: str) -> str:
        """The whole file around a model."""
        return (
            f'<PMML xmlns="http://www.dmg.org/PMML-{self._version.replace(".", "_")}" version="{self._version}"><Header/>'
            f"<DataDictionary>{self._dictionary()}</DataDictionary>"
            f"<TransformationDictionary>{self._derived()}</TransformationDictionary>{model}</PMML>"
        )

    def _dictionary(self) -> str:
        fields = "".join(f'<DataField name="{name}" optype="continuous" dataType="{kinds[name]}">{self._range(name)}</DataField>' for name in numbers)  # fmt: skip
        held = "".join(f'<Value value="{town}"/>' for town in towns) + '<Value value="?" property="missing"/>'
        grades = "".join(f'<Value value="{name}"/>' for name in classes)
        return (
            f'{fields}<DataField name="town" optype="categorical" dataType="string">{held}</DataField>'
            '<DataField name="band" optype="categorical" dataType="string"/>'
            '<DataField name="vip" optype="categorical" dataType="boolean"/><DataField name="code" optype="categorical" dataType="integer">'
            '<Value value="1"/><Value value="2"/><Value value="3"/></DataField>'
            f'<DataField name="grade" optype="categorical" dataType="string">{grades}</DataField>'
            '<DataField name="verdict" optype="categorical" dataType="string"><Value value="good"/><Value value="bad"/></DataField>'
            '<DataField name="value" optype="continuous" dataType="double"/>'
        )

    def _range(self, name: str) -> str:
        if name == "amount" and self._chance.random() < 0.5:
            self._ranged = True
            return '<Interval closure="closedOpen" leftMargin="-2.5" rightMargin="2.75"/>' + (
                '<Value value="-999" property="missing"/>' if self._chance.random() < 0.5 else ""
            )
        return ""

    _ranged = False

    def schema(self, target: str, *, plain: bool = False) -> str:
        """The outermost mining schema."""
        fields = [f'<MiningField name="{target}" usageType="target"/>']
        for name in (*numbers, *categories):
            said = ""
            if not plain and self._chance.random() < 0.3:
                said += f' missingValueReplacement="{self._some(name)}"'
            if name == "amount" or (not plain and name == "town"):
                said += (
                    f' invalidValueTreatment="{self._chance.choice(("asIs", "asMissing", "returnInvalid"))}"'
                )
            elif name == "code":
                ways = ("asIs", "asMissing", "returnInvalid", 'asValue" invalidValueReplacement="2')
                said += f' invalidValueTreatment="{self._chance.choice(ways)}"'
            if not plain and name == "share" and self._chance.random() < 0.5:
                said += f' outliers="{self._chance.choice(("asExtremeValues", "asMissingValues"))}" lowValue="-1.5" highValue="2"'
            fields.append(f'<MiningField name="{name}"{said}/>')
        return f"<MiningSchema>{''.join(fields)}</MiningSchema>"

    def _some(self, name: str) -> str:
        if name == "town":
            return self._chance.choice(towns)
        if name in ("band", "vip", "code"):
            return self._chance.choice(
                {"band": ("A", "B"), "vip": ("true", "false"), "code": ("1", "3")}[name]
            )
        return str(self._chance.randrange(-2, 3)) if name == "count" else self.number()

    def _derived(self) -> str:
        bent = self._chance.choice(
            ("", 'outliers="asMissingValues"', 'outliers="asExtremeValues"', 'mapMissingTo="0.25"',
             'outliers="asExtremeValues" mapMissingTo="0.25"')
        )  # fmt: skip
        made = [
            '<DerivedField name="narrow" optype="continuous" dataType="float"><FieldRef field="amount"/></DerivedField>',
            '<DerivedField name="scaled" optype="continuous" dataType="double"><Apply function="/"><Apply function="-">'
            f'<FieldRef field="share"/><Constant dataType="double">{self.number()}</Constant></Apply><Constant dataType="double">'
            f"{self._chance.choice(('0.7', '-1.3'))}</Constant></Apply></DerivedField>",
            f'<DerivedField name="bent" optype="continuous" dataType="double"><NormContinuous field="share" {bent}>'
            '<LinearNorm orig="-2" norm="1"/><LinearNorm orig="0" norm="-1"/><LinearNorm orig="1.5" norm="2"/></NormContinuous></DerivedField>',
            '<DerivedField name="size" optype="categorical" dataType="string"><Discretize field="scaled" defaultValue="other" mapMissingTo="none">'
            '<DiscretizeBin binValue="low"><Interval closure="openOpen" rightMargin="-0.5"/></DiscretizeBin>'
            '<DiscretizeBin binValue="mid"><Interval closure="closedOpen" leftMargin="-0.5" rightMargin="0.5"/></DiscretizeBin></Discretize></DerivedField>',
            '<DerivedField name="weight" optype="continuous" dataType="double"><MapValues outputColumn="out" defaultValue="0.5">'
            '<FieldColumnPair field="town" column="in"/><InlineTable><row><in>Ulm</in><out>1</out></row><row><in>Kiel</in><out>-1.5</out></row></InlineTable>'
            "</MapValues></DerivedField>",
            '<DerivedField name="is_bonn" optype="continuous" dataType="double"><NormDiscrete field="town" value="Bonn"/></DerivedField>',
            '<DerivedField name="far" optype="continuous" dataType="double"><Apply function="abs"><FieldRef field="share"/></Apply></DerivedField>',
            '<DerivedField name="gap" optype="continuous" dataType="double"><Apply function="if"><Apply function="isMissing"><FieldRef field="single"/></Apply>'
            '<Constant dataType="double">-1</Constant><Constant dataType="double">1</Constant></Apply></DerivedField>',
        ]
        return "".join(made)

    _of_numbers = (*numbers, "narrow", "scaled", "bent", "weight", "is_bonn", "far", "gap")

    def predicate(self, depth: int = 0) -> str:
        """Any predicate."""
        kind = self._chance.random()
        if depth < 2 and kind < 0.2:
            operator = self._chance.choice(("and", "or", "xor", "surrogate"))
            parts = "".join(self.predicate(depth + 1) for _ in range(self._chance.choice((2, 2, 3))))
            return f'<CompoundPredicate booleanOperator="{operator}">{parts}</CompoundPredicate>'
        if kind < 0.3:
            name = self._chance.choice((*self._of_numbers, *categories))
            return f'<SimplePredicate field="{name}" operator="{self._chance.choice(("isMissing", "isNotMissing"))}"/>'
        if kind < 0.55:
            name, held = self._chance.choice(
                (
                    ("town", towns),
                    ("band", ("A", "B", "C")),
                    ("size", ("low", "mid", "other")),
                    ("vip", ("true", "false")),
                    ("code", ("1", "2", "3", "7")),
                )
            )
            if self._chance.random() < 0.5:
                some = self._chance.sample(held, self._chance.randrange(1, len(held)))
                way = self._chance.choice(("isIn", "isNotIn"))
                array = f'<Array type="{"int" if name == "code" else "string"}" n="{len(some)}">{" ".join(some)}</Array>'
                return (
                    f'<SimpleSetPredicate field="{name}" booleanOperator="{way}">{array}</SimpleSetPredicate>'
                )
            return f'<SimplePredicate field="{name}" operator="{self._chance.choice(("equal", "notEqual"))}" value="{self._chance.choice(held)}"/>'
        name = self._chance.choice(self._of_numbers)
        operator = self._chance.choice(("lessThan", "lessOrEqual", "greaterThan", "greaterOrEqual", "equal"))
        value = str(self._chance.randrange(-2, 3)) if name == "count" else self.number()
        return f'<SimplePredicate field="{name}" operator="{operator}" value="{value}"/>'

    def tree(self, schema: str, *, of: Sequence[str] = (), depth: int = 3) -> str:
        """A tree of numbers, or of classes."""
        # nullPrediction in one of many trees would have nearly every file refused: some value is missing to some field
        ways = ("none", "lastPrediction", "defaultChild", *(("nullPrediction",) if depth == 3 else ()))
        missing = self._chance.choice(ways)
        last = 'noTrueChildStrategy="returnLastPrediction"'
        kind = "classification" if of else "regression"
        self._names = 0
        root = self._node("<True/>", of, depth)
        return f'<TreeModel functionName="{kind}" missingValueStrategy="{missing}" {last}>{schema}{root}</TreeModel>'

    _names = 0

    def _node(self, predicate: str, of: Sequence[str], depth: int) -> str:
        self._names += 1
        name, inside = f"n{self._names}", predicate
        score = self.number()
        if of:
            counts = self._chance.sample(range(1, 50), len(of))
            score = of[counts.index(max(counts))]
            inside += "".join(
                f'<ScoreDistribution value="{each}" recordCount="{count}"/>'
                for each, count in zip(of, counts, strict=True)
            )
        default = ""
        if depth and (self._names == 1 or self._chance.random() < 0.9):
            default = f' defaultChild="n{self._names + 1}"'
            inside += "".join(
                self._node(self.predicate(), of, depth - 1) for _ in range(self._chance.choice((1, 2, 2, 3)))
            )
        return f'<Node id="{name}" score="{score}"{default}>{inside}</Node>'

    def joined(self, models: Sequence[str], method: str, target: str, kind: str, schema: str = "") -> str:
        """A mining model of several."""
        parts = "".join(
            f'<Segment id="{place}" weight="{self._chance.choice((1, 2, 0.5))}"><True/>{model}</Segment>'
            for place, model in enumerate(models)
        )
        return f'<MiningModel functionName="{kind}">{schema or self.schema(target)}<Segmentation multipleModelMethod="{method}">{parts}</Segmentation></MiningModel>'

    def chosen(
        self,
        models: Sequence[str],
        method: str,
        target: str,
        kind: str,
        schema: str = "",
        *,
        always: bool = True,
    ) -> str:
        """A mining model of several that take part for some records; `always`: the last one for all."""
        rules = [self.predicate() for _ in models]
        if always:
            rules[-1] = "<True/>"
        parts = "".join(
            f"<Segment>{rule}{model}</Segment>" for rule, model in zip(rules, models, strict=True)
        )
        return f'<MiningModel functionName="{kind}">{schema or self.schema(target)}<Segmentation multipleModelMethod="{method}">{parts}</Segmentation></MiningModel>'

    def inner_schema(self) -> str:
        """That of a model inside another."""
        return (
            "<MiningSchema>"
            + "".join(f'<MiningField name="{name}"/>' for name in (*numbers, *categories))
            + "</MiningSchema>"
        )

    def boosted(self, link: str, schema: str = "") -> str:
        """Sums of trees and a regression behind them, as converters of boosters write it."""
        count = 3 if link == "softmax" else 1
        segments = []
        for place in range(count):
            trees = [self.tree(self.inner_schema(), depth=2) for _ in range(3)]
            made = "".join(f"<Segment><True/>{tree}</Segment>" for tree in trees)
            segments.append(
                f'<MiningModel functionName="regression">{self.inner_schema()}<Output><OutputField name="raw{place}" optype="continuous" dataType="double"/></Output>'
                f'<Targets><Target rescaleConstant="{self.number()}" rescaleFactor="0.5"/></Targets>'
                f'<Segmentation multipleModelMethod="sum">{made}</Segmentation></MiningModel>'
            )
        fields = "".join(f'<MiningField name="raw{place}"/>' for place in range(count))
        if link == "exp":
            tables, kind, target = (
                '<RegressionTable intercept="0.1"><NumericPredictor name="raw0" coefficient="1"/></RegressionTable>',
                "regression",
                "value",
            )
        else:
            names = classes if count == 3 else ("bad", "good", "ugly")[:2]
            tables = "".join(
                f'<RegressionTable intercept="{self.number()}" targetCategory="{name}">'
                + (f'<NumericPredictor name="raw{place}" coefficient="1.5"/>' if place < count else "")
                + "</RegressionTable>"
                for place, name in enumerate(names)
            )
            kind, target = "classification", "grade"
        last = f'<RegressionModel functionName="{kind}" normalizationMethod="{link}"><MiningSchema><MiningField name="{target}" usageType="target"/>{fields}</MiningSchema>{tables}</RegressionModel>'
        return self.joined([*segments, last], "modelChain", target, kind, schema)

    def scorecard(self, schema: str = "") -> str:
        """Characteristics whose last attribute takes all."""
        made = ""
        for place in range(3):
            attributes = "".join(
                f'<Attribute partialScore="{self.number()}">{self.predicate()}</Attribute>' for _ in range(2)
            )
            made += f'<Characteristic name="c{place}" baselineScore="1">{attributes}<Attribute partialScore="{self.number()}"><True/></Attribute></Characteristic>'
        return f'<Scorecard functionName="regression" initialScore="20" useReasonCodes="false">{schema or self.schema("value")}<Characteristics>{made}</Characteristics></Scorecard>'

    def inner_schema_of(self, target: str) -> str:
        """That of a model inside another, which names its target."""
        return self.inner_schema().replace(
            "<MiningSchema>", f'<MiningSchema><MiningField name="{target}" usageType="target"/>'
        )

    def regression(self, link: str, names: Sequence[str] = (), schema: str = "") -> str:
        """Coefficients of numbers, categories and products."""
        tables = "".join(self._table(f' targetCategory="{name}"') for name in names) or self._table("")
        kind, target = (
            ("classification", "grade" if len(names) > 2 else "verdict") if names else ("regression", "value")
        )
        return f'<RegressionModel functionName="{kind}" normalizationMethod="{link}">{schema or self.schema(target)}{tables}</RegressionModel>'

    def _table(self, said: str) -> str:
        some = self._chance.sample(self._of_numbers, 5)
        terms = "".join(
            f'<NumericPredictor name="{name}" coefficient="{self.number(-1, 1)}" exponent="{self._chance.choice((1, 1, 2))}"/>'
            for name in some
        )
        terms += "".join(
            f'<CategoricalPredictor name="{name}" value="{value}" coefficient="{self.number(-1, 1)}"/>'
            for name, value in (
                ("town", "Ulm"),
                ("town", "Kiel"),
                ("code", "2"),
                ("vip", "true"),
                ("band", "A"),
                ("size", "mid"),
            )
        )
        terms += f'<PredictorTerm coefficient="{self.number(-1, 1)}"><FieldRef field="share"/><FieldRef field="weight"/></PredictorTerm>'
        return f'<RegressionTable intercept="{self.number()}"{said}>{terms}</RegressionTable>'

    def general(self, model: str) -> str:
        """A general regression: `model` is a link, or multinomialLogistic."""
        of_classes = model in ("logit", "probit", "multinomialLogistic")
        target = "value" if not of_classes else "grade" if model == "multinomialLogistic" else "verdict"
        cells = '<PPCell value="1" predictorName="share" parameterName="p1"/><PPCell value="2" predictorName="single" parameterName="p2"/>'
        cells += '<PPCell value="Ulm" predictorName="town" parameterName="p3"/><PPCell value="1" predictorName="share" parameterName="p3"/>'
        said = (
            f'modelType="generalizedLinear" linkFunction="{model}"'
            if model != "multinomialLogistic"
            else f'modelType="{model}" targetReferenceCategory="ugly"'
        )
        named = ("good", "bad") if model == "multinomialLogistic" else ("bad",) if of_classes else ("",)
        pcells = "".join(
            f'<PCell parameterName="p{place}" beta="{self.number(-1, 1)}"'
            + (f' targetCategory="{name}"' if name else "")
            + "/>"
            for name in named
            for place in range(4)
        )
        kind = "classification" if of_classes else "regression"
        return (
            f'<GeneralRegressionModel functionName="{kind}" {said}>{self.schema(target)}<ParameterList>'
            + "".join(f'<Parameter name="p{place}"/>' for place in range(4))
            + f'</ParameterList><FactorList><Predictor name="town"/></FactorList><CovariateList><Predictor name="share"/><Predictor name="single"/></CovariateList>'
            f"<PPMatrix>{cells}</PPMatrix><ParamMatrix>{pcells}</ParamMatrix></GeneralRegressionModel>"
        )


def drawn(family: str, seed: int) -> str:
    """A file of a family."""
    draft = Draft(seed, ("4.1", "4.2", "4.3", "4.4")[seed % 4])
    inner, inner_value, inner_grade = (
        draft.inner_schema(),
        draft.inner_schema_of("value"),
        draft.inner_schema_of("grade"),
    )
    models = {
        "tree": lambda: draft.tree(draft.schema("value")),
        "tree of classes": lambda: draft.tree(draft.schema("grade"), of=classes),
        "sum": lambda: draft.joined([draft.tree(inner, depth=2) for _ in range(3)], "sum", "value", "regression"),
        "weighted average": lambda: draft.joined([draft.tree(inner, depth=2) for _ in range(3)], "weightedAverage", "value", "regression"),
        "average of classes": lambda: draft.joined([draft.tree(inner, of=classes, depth=2) for _ in range(3)], "average", "grade", "classification"),
        "majority vote": lambda: draft.joined([draft.tree(inner, of=classes, depth=2) for _ in range(5)], "majorityVote", "grade", "classification"),
        "boosting, softmax": lambda: draft.boosted("softmax"),
        "boosting, exp": lambda: draft.boosted("exp"),
        "scorecard": draft.scorecard,
        "regression": lambda: draft.regression("none"),
        "regression, exp": lambda: draft.regression("exp"),
        "regression, softmax": lambda: draft.regression("softmax", classes),
        "regression, probit": lambda: draft.regression("probit"),
        "regression, cauchit": lambda: draft.regression("cauchit", ("good", "bad")),
        "regression, cloglog": lambda: draft.regression("cloglog", ("bad", "good")),
        "regression, loglog": lambda: draft.regression("loglog"),
        "first of trees": lambda: draft.chosen([draft.tree(inner_value, depth=2) for _ in range(3)], "selectFirst", "value", "regression"),
        "first of trees of classes": lambda: draft.chosen([draft.tree(inner_grade, of=classes, depth=2) for _ in range(3)], "selectFirst", "grade", "classification"),
        "first of scorecards and sums": lambda: draft.chosen([draft.scorecard(inner_value), *(draft.joined([draft.tree(inner, depth=1) for _ in range(2)], "sum", "value", "regression", inner_value) for _ in range(2))], "selectFirst", "value", "regression"),
        "first of boosting": lambda: draft.chosen([draft.boosted("exp", inner_value) for _ in range(2)], "selectFirst", "value", "regression"),
        "first of lines": lambda: draft.chosen([draft.regression("exp", schema=inner_value) for _ in range(3)], "selectFirst", "value", "regression", always=seed % 2 == 0),
        "first of lines of classes": lambda: draft.chosen([draft.regression("softmax", classes, inner_grade) for _ in range(2)], "selectFirst", "grade", "classification"),
        "vote of firsts": lambda: draft.joined([draft.chosen([draft.tree(inner_grade, of=classes, depth=1) for _ in range(2)], "selectFirst", "grade", "classification", inner_grade) for _ in range(3)], "majorityVote", "grade", "classification"),
        "sum of some trees": lambda: draft.chosen([draft.tree(inner, depth=2) for _ in range(3)], "sum", "value", "regression"),
        "sum of some lines": lambda: draft.chosen([draft.regression("none", schema=inner_value) for _ in range(2)], "sum", "value", "regression"),
        "middle tree": lambda: draft.joined([draft.tree(inner, depth=2) for _ in range(3 + seed % 2)], "median", "value", "regression"),
        "middle line": lambda: draft.joined([draft.regression("logit", schema=inner_value) for _ in range(3 + seed % 2)], "median", "value", "regression"),
        "general regression, probit": lambda: draft.general("probit"),
        "general regression, log": lambda: draft.general("log"),
        "general regression, multinomial": lambda: draft.general("multinomialLogistic"),
    }  # fmt: skip
    return draft.file(models[family]())


families = (
    "tree", "tree of classes", "sum", "weighted average", "average of classes", "majority vote", "boosting, softmax",
    "boosting, exp", "scorecard", "regression", "regression, exp", "regression, softmax", "general regression, log",
    "general regression, multinomial", "regression, probit", "regression, cauchit", "regression, cloglog", "regression, loglog",
    "first of trees", "first of trees of classes", "first of scorecards and sums", "first of boosting", "first of lines",
    "first of lines of classes", "vote of firsts", "sum of some trees", "sum of some lines", "middle tree", "middle line",
    "general regression, probit",
)  # fmt: skip


def records(seed: int, count: int) -> list[dict[str, Any]]:
    """Records that meet thresholds head-on, miss values, and hold categories nobody knows."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        record: dict[str, Any] = {
            name: round(chance.uniform(-3, 3), chance.randrange(4)) for name in numbers[:3]
        }
        record["count"] = chance.randrange(-3, 4)
        record["town"] = chance.choice((*towns, *towns, "Rom", "?"))
        record["band"] = chance.choice(("A", "B", "C", "D"))
        record["vip"], record["code"] = chance.random() < 0.5, chance.choice((1, 2, 3, 7, 9))
        if chance.random() < 0.1:
            record["amount"] = -999.0
        for name in [*record]:
            if chance.random() < 0.12:
                record[name] = None
        made.append(record)
    return made
