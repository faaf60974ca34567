"""PMML: what a bundle answers to a record is what an interpreter of the standard answers, which shares no code with the reader.

PENSTOCK_PMML says how many files of each family are drawn; `make soak` gives it a large number.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.explain.factory import make_explainer
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason
from tests.pmml_files import drawn, families, records
from tests.pmml_reference import Interpreter, NothingError

_seeds = int(os.environ.get("PENSTOCK_PMML", "2"))


def answers(bundle: Bundle, asked: list[dict[str, Any]]) -> dict[int, dict[str, float] | float]:
    """What the stream answers, by the place of the record; those that it sets aside are left out."""
    matrix, places, faults = JsonRows(bundle.signature).read([json.dumps(each).encode() for each in asked])
    assert not faults
    matrix, kept, _ = FeaturePolicies(bundle.signature).apply(matrix, places)
    model = open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock())
    scores = next(iter(model.predict(matrix).outputs.values()))
    return {
        place: dict(zip(bundle.classes, row.tolist(), strict=True)) if bundle.classes else float(row[0])
        for place, row in zip(kept.tolist(), scores, strict=True)
        if np.isfinite(row).all()
    }


def compare(text: str, bundle: Bundle, asked: list[dict[str, Any]], where: str) -> int:
    """Record by record; returns how many were predicted by both."""
    interpreter, found, both = Interpreter(text), answers(bundle, asked), 0
    strict = [feature.name for feature in bundle.signature.features if feature.missing == "reject"]
    looked_at = bundle.signature.columns
    for place, whole in enumerate(asked):
        # a field that no predicate and no term asks about is no feature, whatever it holds
        record = {name: value if name in looked_at else None for name, value in whole.items()}
        try:
            wanted = interpreter.answer(record)
        except NothingError:
            assert place not in found, (
                f"{where}, {record}: predicted where the file gives nothing: {found[place]}"
            )
            continue
        if isinstance(wanted, float) and abs(wanted) > 1e38:
            continue  # no float32 holds it: the stream sets it aside
        if place not in found:
            lacks = [name for name in strict if record[name] in (None, "?", -999.0) or record[name] == "Rom"]
            assert lacks or record["amount"] == -999.0 or strict, (
                f"{where}, {record}: set aside, wanted {wanted}"
            )
            continue
        both += 1
        got = found[place]
        if isinstance(wanted, dict):
            assert isinstance(got, dict), where
            for name, share in got.items():
                assert share == pytest.approx(wanted.get(name, 0.0), abs=2e-6), f"{where}, {record}"
        else:
            assert got == pytest.approx(wanted, rel=2e-6, abs=2e-6), f"{where}, {record}"
    return both


@pytest.mark.parametrize("family", families)
def test_a_bundle_answers_as_an_interpreter_of_the_standard(family: str, tmp_path: Path) -> None:
    both, said = 0, list[str]()
    for seed in range(_seeds):
        text = drawn(family, seed)
        path = tmp_path / "model.pmml"
        path.write_text(text)
        try:
            report = package(path, tmp_path / "bundle")
        except ConfigError as error:
            said.append(f"{family}, seed={seed}: {error}")
            continue
        assert report.parity.not_compared, "nothing of the original's can be asked"
        both += compare(text, report.bundle, records(seed, 200), f"{family}, seed={seed}")
    assert both > 10 * (_seeds - len(said))
    assert len(said) <= max(1, _seeds // 3), said
    assert all(" in line " in each or "ask about nothing" in each for each in said), said


_written = Path(__file__).parents[2] / "pmml_written"


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "gradient-boosting", "logistic"])
def test_a_file_of_a_converter_answers_as_the_library_that_trained_it(name: str, tmp_path: Path) -> None:
    cases = json.loads((_written / f"{name}.json").read_bytes())
    report = package(_written / f"{name}.pmml", tmp_path / "bundle")
    found = answers(report.bundle, [each["record"] for each in cases])
    assert len(found) == len(cases)
    for place, each in enumerate(cases):
        assert [*found[place].values()] == pytest.approx(each["answer"], abs=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("family", ["tree", "boosting, softmax", "average of classes", "scorecard"])
def test_trees_are_explained_exactly(family: str, tmp_path: Path) -> None:
    bundle = _with_background(drawn(family, 1), tmp_path)
    assert bundle.trees
    model = open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock())
    rows = bundle.golden.rows[:8]
    explained = make_explainer(bundle, model, ExplainSettings()).explain(rows, model.predict(rows))
    assert explained.method.startswith("tree")


def _with_background(text: str, folder: Path) -> Bundle:
    path = _sound(folder, text)
    signature = package(path, folder / "first").bundle.signature
    matrix, _, _ = JsonRows(signature).read([json.dumps(each).encode() for each in records(7, 200)])
    matrix, _, _ = FeaturePolicies(signature).apply(matrix, np.arange(200))
    rows = np.round(matrix.astype(np.float64), 3)
    return package(path, folder / "bundle", background=rows).bundle


def _sound(folder: Path, text: str) -> Path:
    path = folder / "model.pmml"
    path.write_text(text)
    return path


_head = '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><DataDictionary><DataField name="x" optype="continuous" dataType="double"/><DataField name="y" optype="continuous" dataType="double"/></DataDictionary>'  # fmt: skip
_schema = '<MiningSchema><MiningField name="y" usageType="target"/><MiningField name="x"/></MiningSchema>'


def _tree(inside: str, said: str = "") -> str:
    root = f'<Node score="0"><True/>{inside}</Node>'
    return f'{_head}\n<TreeModel functionName="regression" {said}>{_schema}\n{root}</TreeModel></PMML>'


_of_classes = (
    f'<TreeModel functionName="classification">{_schema}<Node score="a"><True/><ScoreDistribution value="a" recordCount="2"/>'
    '<ScoreDistribution value="b" recordCount="1"/></Node></TreeModel>'
)


def _joined(method: str, models: list[str], *, inside: bool = False) -> str:
    kind = "classification" if 'functionName="classification' in models[0] else "regression"
    parts = "".join(f"<Segment><True/>{each}</Segment>" for each in models)
    made = f'<MiningModel functionName="{kind}">{_schema}<Segmentation multipleModelMethod="{method}">{parts}</Segmentation></MiningModel>'
    return made if inside else f"{_head}\n{made}</PMML>"


_less = '<Node score="1"><SimplePredicate field="x" operator="lessThan" value="{}"/></Node>'
refused = {
    "an entity": ('<!DOCTYPE PMML [<!ENTITY a "b">]><PMML/>', "line 1: a document type"),
    "a file to fetch": ('<!DOCTYPE PMML SYSTEM "file:///etc/passwd"><PMML/>', "line 1: a document type"),
    "no end": (_head, "not XML"),
    "no XML": ("PMML", "line 1: not XML"),
    "HTML": ("<html/>", "begins with html"),
    "an old version": (_tree("").replace('version="4.4"', 'version="3.0"'), "version '3.0'"),
    "depth": (_tree("<Node>" * 3000 + "</Node>" * 3000), "inside each other"),
    "a neural network": (f"{_head}\n<NeuralNetwork>{_schema}</NeuralNetwork></PMML>", "NeuralNetwork in line 2"),
    "two models": (_tree("").replace("</PMML>", f'<TreeModel functionName="regression">{_schema}</TreeModel></PMML>'), "2 models"),
    "a threshold": (_tree(_less.format("NaN")), "SimplePredicate in line 3 compares 'NaN' is no number"),
    "an unknown field": (_tree(_less.format("1").replace('"x"', '"z"')), "field z, which is no input"),
    "a weighted confidence": (_tree(_less.format("1"), 'missingValueStrategy="weightedConfidence"'), "missingValueStrategy='weightedConfidence'"),
    "no prediction": (_tree(_less.format("1")), "Node in line 3 gives no prediction"),
    "a vote of averages": (_joined("majorityVote", [_joined("average", [_of_classes], inside=True)] * 2), "Segmentation in line 2 has one vote, and is made of several models"),
    "a choice between what was added before": (
        _joined("modelChain", [
            f'<TreeModel functionName="regression">{_schema}<Output><OutputField name="raw" optype="continuous" dataType="double"/></Output><Node score="1"><True/></Node></TreeModel>',
            _joined("selectFirst", [f'<RegressionModel functionName="regression">{_schema}<RegressionTable intercept="0"><NumericPredictor name="raw" coefficient="{k}"/></RegressionTable></RegressionModel>' for k in (1, 2)], inside=True),
        ]),
        "asks for field raw, which is no input of its model",
    ),
    "a logarithm of what may be negative": (
        _tree(_less.format("1").replace('"x"', '"z"'), 'noTrueChildStrategy="returnLastPrediction"').replace(
            "</MiningSchema>", '</MiningSchema><LocalTransformations><DerivedField name="z" optype="continuous" dataType="double"><Apply function="ln"><FieldRef field="x"/></Apply></DerivedField></LocalTransformations>'),
        "a field that has no value for some records",
    ),
    "models that answer in several ways": (
        f'{_head}\n<MiningModel functionName="regression">{_schema}<Segmentation multipleModelMethod="selectAll"><Segment><True/><TreeModel functionName="regression">{_schema}<Node score="1"><True/></Node></TreeModel></Segment></Segmentation></MiningModel></PMML>',
        "Segmentation in line 2 joins its models by selectAll",
    ),
    "a date": (_tree("").replace('name="x" optype="continuous" dataType="double"', 'name="x" optype="continuous" dataType="date"'), "of type date"),
    "another target": (_tree(_less.format("1"), 'noTrueChildStrategy="returnLastPrediction"').replace("</TreeModel>", '<Targets><Target field="y" castInteger="round"/></Targets></TreeModel>'), "castInteger"),
}  # fmt: skip


@pytest.mark.parametrize("name", refused)
def test_what_is_not_read_is_refused_by_its_name_and_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = refused[name]
    code = main(["package", str(_sound(tmp_path, text)), "--out", str(tmp_path / "bundle")])
    said = capsys.readouterr().err
    assert code == 2
    assert words in said
    assert len(said.strip().splitlines()) == 1


def test_a_field_computed_from_itself_is_refused(tmp_path: Path) -> None:
    loop = '<LocalTransformations><DerivedField name="z" optype="continuous" dataType="double"><FieldRef field="z"/></DerivedField></LocalTransformations>'
    text = _tree(_less.format("1").replace('"x"', '"z"')).replace("</MiningSchema>", f"</MiningSchema>{loop}")
    with pytest.raises(ConfigError, match="computed from itself"):
        package(_sound(tmp_path, text), tmp_path / "bundle")


@pytest.mark.timeout(60)
def test_fields_that_double_with_each_other_do_not_hang_it(tmp_path: Path) -> None:
    def field(number: int) -> str:
        of = f'<FieldRef field="{"x" if not number else f"z{number - 1}"}"/>'
        return f'<DerivedField name="z{number}" optype="continuous" dataType="double"><Apply function="+">{of}{of}</Apply></DerivedField>'

    many = f"<LocalTransformations>{''.join(map(field, range(60)))}</LocalTransformations>"
    text = _tree(_less.format("1").replace('"x"', '"z59"')).replace(
        "</MiningSchema>", f"</MiningSchema>{many}"
    )
    with pytest.raises(ConfigError, match=r"computed of more than"):
        package(_sound(tmp_path, text), tmp_path / "bundle")


@pytest.mark.timeout(60)
def test_a_chain_of_fields_without_end_is_refused(tmp_path: Path) -> None:
    fields = "".join(
        f'<DerivedField name="z{number}" optype="continuous" dataType="double"><FieldRef field="{f"z{number + 1}" if number < 5000 else "x"}"/></DerivedField>'
        for number in range(5001)
    )
    local = f"</MiningSchema><LocalTransformations>{fields}</LocalTransformations>"
    text = _tree(_less.format("1").replace('"x"', '"z0"')).replace("</MiningSchema>", local)
    with pytest.raises(ConfigError, match="too deep"):
        package(_sound(tmp_path, text), tmp_path / "bundle")


def test_a_field_whose_values_answer_alike_is_a_feature_all_the_same(tmp_path: Path) -> None:
    children = (
        '<Node score="1"><CompoundPredicate booleanOperator="and"><SimplePredicate field="x" operator="isNotMissing"/>'
        '<SimplePredicate field="z" operator="lessThan" value="1"/></CompoundPredicate></Node>'
        '<Node score="2"><SimplePredicate field="x" operator="isNotMissing"/></Node>'
    )
    more = '<DataField name="z" optype="continuous" dataType="double"/></DataDictionary>'
    text = (
        _tree(children)
        .replace("</DataDictionary>", more)
        .replace("</MiningSchema>", '<MiningField name="z"/></MiningSchema>')
    )
    bundle = package(_sound(tmp_path, text), tmp_path / "bundle").bundle
    asked: list[dict[str, Any]] = [
        {"x": 1.0, "z": 0.0},
        {"x": 1.0, "z": 2.0},
        {"x": None, "z": 0.0},
        {"x": 1.0, "z": None},
    ]
    assert answers(bundle, asked) == {0: 1.0, 1: 2.0, 3: 2.0}


def test_only_expected_answers_prove_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _tree(_less.format("0.3"), 'noTrueChildStrategy="returnLastPrediction"')
    rows, right, wrong = tmp_path / "rows.csv", tmp_path / "right.csv", tmp_path / "wrong.csv"
    rows.write_text("x\n0.1\n0.3\n0.30000000000000004\n0.29999999999999993\n")
    right.write_text("value\n1\n0\n0\n1\n")
    wrong.write_text("value\n1\n1\n0\n1\n")
    words = ["package", str(_sound(tmp_path, text)), "--out", str(tmp_path / "bundle")]
    assert main(words) == 1
    assert "not compared" in capsys.readouterr().out
    assert main([*words, "--unproved"]) == 0
    assert main([*words, "--rows", str(rows), "--expected", str(right)]) == 0
    assert main([*words, "--rows", str(rows), "--expected", str(wrong)]) != 0
    assert "differs from" in capsys.readouterr().err


def test_a_number_outside_the_intervals_of_its_field_is_set_aside(tmp_path: Path) -> None:
    valid = (
        '<Interval closure="closedOpen" leftMargin="0" rightMargin="9"/><Interval closure="openClosed" leftMargin="20" rightMargin="20.1"/>'
        '<Value value="-1" property="missing"/><Value value="7.7" property="invalid"/>'
    )
    text = _tree(_less.format("4.5"), 'noTrueChildStrategy="returnLastPrediction" missingValueStrategy="lastPrediction"').replace(
        'name="x" optype="continuous" dataType="double"/>', f'name="x" optype="continuous" dataType="double">{valid}</DataField>'
    )  # fmt: skip
    bundle = package(_sound(tmp_path, text), tmp_path / "bundle").bundle
    (feature,) = bundle.signature.features
    assert feature.within[0] == (-1.0, -1.0)
    asked = {
        0.0: 1.0, 4.5: 0.0, 8.999999999999998: 0.0, 20.000000000000004: 0.0, 20.1: 0.0, -1.0: 0.0, None: 0.0, 7.699999999999999: 0.0,
        9.0: None, -5e-324: None, 20.0: None, 20.100000000000005: None, 7.7: None, 1e300: None, -0.9999999999999999: None,
    }  # fmt: skip
    found = answers(bundle, [{"x": value} for value in asked])
    assert [found.get(place) for place in range(len(asked))] == [*asked.values()]
    matrix, places, _ = JsonRows(bundle.signature).read([b'{"x": 9.0}'])
    _, _, rejections = FeaturePolicies(bundle.signature).apply(matrix, places)
    assert [(each.reason, each.detail) for each in rejections] == [
        (Reason.OUT_OF_RANGE, "feature x is outside the ranges that the model takes")
    ]
    again = Bundle.load(tmp_path / "bundle")
    assert again.signature == bundle.signature


_verified = (
    '<ModelVerification recordCount="{count}"><VerificationFields><VerificationField field="x" column="data:x"/>'
    '<VerificationField field="y" column="out" precision="1e-9"/></VerificationFields><InlineTable>{rows}</InlineTable></ModelVerification>'
)


@pytest.mark.parametrize(
    ("of_x", "of_y", "code", "words"),
    [
        (["0.1", "0.3", None], ["1", "0", "0"], 0, "value: the answers in its ModelVerification"),
        (["0.1", "0.3"], ["1", "1"], 1, "differs from its ModelVerification by 1 on row 1 of 2"),
        (["0.1", "0.3"], [None, "0"], 0, "value: the answers in its ModelVerification"),
        (["0.1"], [None], 1, "value: not compared"),
        (["text"], ["1"], 2, "holds 'text' for field x, which is a number"),
        (["0.1"], ["text"], 2, "answers with 'text', which is no number"),
    ],
)  # fmt: skip
def test_answers_that_the_file_holds_prove_it(
    of_x: list[str | None], of_y: list[str | None], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def cell(name: str, value: str | None) -> str:
        return "" if value is None else f"<{name}>{value}</{name}>"

    rows = "".join(f"<row>{cell('x', x)}{cell('out', y)}</row>" for x, y in zip(of_x, of_y, strict=True))
    text = _tree(
        _less.format("0.3"),
        'noTrueChildStrategy="returnLastPrediction" missingValueStrategy="lastPrediction"',
    )
    text = text.replace("</MiningSchema>", f"</MiningSchema>{_verified.format(count=len(of_x), rows=rows)}")
    assert main(["package", str(_sound(tmp_path, text)), "--out", str(tmp_path / "bundle")]) == code
    said = capsys.readouterr()
    assert words in said.out + said.err


def test_classes_that_the_file_answers_with_prove_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = drawn("general regression, probit", 0)
    asked = [each for each in records(3, 60) if None not in each.values()]
    interpreter = Interpreter(text)
    lines = []
    for record in asked:
        try:
            shares = interpreter.answer(record)
        except NothingError:
            continue
        assert isinstance(shares, dict)
        cells = (
            "".join(f"<{name}>{value}</{name}>" for name, value in record.items())
            .replace("True", "true")
            .replace("False", "false")
        )
        best = max(shares, key=lambda name: shares[name])
        lines.append(
            f"<row>{cells}<good>{shares['good']!r}</good><bad>{shares['bad']!r}</bad><said>{best}</said></row>"
        )
    assert len(lines) > 3
    fields = "".join(f'<VerificationField field="{name}"/>' for name in asked[0])
    fields += "".join(f'<VerificationField field="p({name})" column="{name}"/>' for name in ("good", "bad"))
    outputs = "".join(
        f'<OutputField name="p({name})" optype="continuous" dataType="double" feature="probability" value="{name}"/>'
        for name in ("good", "bad")
    )

    def said(rows: list[str], code: int) -> str:
        held = (
            f"</MiningSchema><Output>{outputs}</Output><ModelVerification><VerificationFields>{fields}"
            f'<VerificationField field="verdict" column="said"/></VerificationFields><InlineTable>{"".join(rows)}</InlineTable></ModelVerification>'
        )
        path = _sound(tmp_path, text.replace("</MiningSchema>", held))
        assert main(["package", str(path), "--out", str(tmp_path / "bundle")]) == code
        out = capsys.readouterr()
        return out.out + out.err

    assert (
        "probabilities: the answers in its ModelVerification; labels: the answers in its ModelVerification"
        in said(lines, 0)
    )
    other = [
        lines[0].replace("<said>good", "<said>b-d").replace("<said>bad", "<said>good").replace("b-d", "bad"),
        *lines[1:],
    ]
    assert "where its ModelVerification says" in said(other, 1)
    assert "answers with a class that the model does not have" in said(
        [lines[0].replace("<said>", "<said>un"), *lines[1:]], 2
    )
