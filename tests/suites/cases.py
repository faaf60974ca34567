"""What the suites of other projects try, as cases of ours: `*.yaml` here hold which of their tests ask for which model on which rows.

suite: skl2onnx
source: where and of which day
files:
  test_of_theirs.py:
    - tests: [names of the tests that ask for it]
      model: LogisticRegression(max_iter=100)     # or step: a transformer, tried before a model
      data: classes(3)                            # a function of tests/suites/tables.py
      fit: sample_weight=np.ones(len(answers))    # optional
      refused: words of our refusal               # where it cannot be packaged
      cure: what to do instead
      shap: true                                  # explained as shap.TreeExplainer explains the original
    - tests: [others]
      asks: what they ask about, where that is no model of a stream
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from tests.suites.tables import Table, made

_folder = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One entry of a file."""

    suite: str
    file: str
    place: int
    tests: tuple[str, ...]
    model: str = ""
    step: str = ""
    data: str = ""
    fit: str = ""
    answers: str = ""
    asks: str = ""
    refused: str = ""
    cure: str = ""
    shap: bool = False

    @property
    def name(self) -> str:
        """As a test's id."""
        return f"{self.suite}/{self.file}#{self.place} {self.model or self.step}"[:150]


@cache
def every() -> tuple[Case, ...]:
    """All entries of all suites, in order."""
    found = []
    for path in sorted(_folder.glob("*.yaml")):
        read = yaml.safe_load(path.read_text())
        for file, entries in read["files"].items():
            for place, entry in enumerate(entries):
                found.append(
                    Case(
                        suite=read["suite"],
                        file=file,
                        place=place,
                        **{**entry, "tests": tuple(entry["tests"])},
                    )
                )
    return tuple(found)


@cache
def sources() -> dict[str, str]:
    """Where each suite is from."""
    read = [yaml.safe_load(path.read_text()) for path in sorted(_folder.glob("*.yaml"))]
    return {each["suite"]: each["source"] for each in read}


@cache
def _names() -> dict[str, Any]:
    """What an expression of a case may name."""
    import catboost
    import lightgbm
    import sklearn.gaussian_process.kernels as kernels
    import xgboost
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.utils import all_estimators

    named: dict[str, Any] = dict(all_estimators())
    named |= {kernel: getattr(kernels, kernel) for kernel in dir(kernels) if kernel[0].isupper()}
    named |= {each: getattr(xgboost, each) for each in dir(xgboost) if each.startswith("XGB")}
    named |= {each: getattr(lightgbm, each) for each in dir(lightgbm) if each.startswith("LGBM")}
    named |= {each: getattr(catboost, each) for each in dir(catboost) if each.startswith("CatBoost")}
    named |= {
        "IterativeImputer": IterativeImputer, "make_pipeline": make_pipeline, "make_union": make_union, "np": np,
        "make_column_transformer": make_column_transformer, "make_column_selector": make_column_selector,
        "xgboost": xgboost, "lightgbm": lightgbm, "catboost": catboost,
    }  # fmt: skip
    return named


def _value(expression: str, **more: Any) -> Any:
    return eval(expression, {**_names(), **made, **more})  # our own files


def table_of(case: Case) -> Table:
    """The rows."""
    table: Table = _value(case.data)
    return table


def fitted(case: Case, table: Table) -> Any:
    """The original, trained, with 0 for each seed that it leaves open. A step stands before the simplest model of what its answers are."""
    model = _value(case.model or case.step)
    if case.step:
        whole = table.answers.dtype.kind in "iubOU"
        model = _value("make_pipeline")(
            model, _value("LogisticRegression(max_iter=500)" if whole else "Ridge()")
        )
    if hasattr(model, "get_params"):
        seeds = [
            name
            for name, value in model.get_params().items()
            if name.endswith("random_state") and value is None
        ]
        model.set_params(**dict.fromkeys(seeds, 0))
    options = _value(f"dict({case.fit})", answers=table.answers, rows=table.training)
    return model.fit(table.training, table.answers, **options)


def told(case: Case, model: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """What the case says that the original answers, (R, K)."""
    found = np.asarray(_value(case.answers, model=model, frame=frame), dtype=np.float64)
    return found.reshape(len(frame), -1)


def counted() -> list[tuple[str, int, int, int, int]]:
    """For each suite: its tests, those that ask for a model, the cases they make here, and how many of those are refused."""
    found = []
    for suite in sources():
        mine = [each for each in every() if each.suite == suite]
        tests = {(each.file, test) for each in mine for test in each.tests}
        models = {(each.file, test) for each in mine if not each.asks for test in each.tests}
        cases = [each for each in mine if not each.asks]
        found.append((suite, len(tests), len(models), len(cases), sum(bool(each.refused) for each in cases)))
    return found


def rows_of_suites() -> list[str]:
    """What docs/models.md says of them."""
    lines = [
        "| suite | from | its tests | of them about a model | cases here | refused |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {suite} | {sources()[suite]} | {tests} | {models} | {cases} | {refused} |"
        for suite, tests, models, cases, refused in counted()
    ]
    lines += ["", "| refused | of | the refusal says | what to do |", "|---|---|---|---|"]
    by_reason: dict[tuple[str, str], list[Case]] = {}
    for case in every():
        if case.refused:
            by_reason.setdefault((case.refused, case.cure), []).append(case)
    for (why, cure), some in sorted(by_reason.items()):
        lines.append(f"| {len(some)} | {', '.join(sorted({each.suite for each in some}))} | {why} | {cure} |")
    lines += [
        "",
        "| tests that are not about a model of a stream | of | what they ask about |",
        "|---|---|---|",
    ]
    by_question: dict[str, list[Case]] = {}
    for case in every():
        if case.asks:
            by_question.setdefault(case.asks, []).append(case)
    for question, some in sorted(by_question.items()):
        count = sum(len(each.tests) for each in some)
        lines.append(f"| {count} | {', '.join(sorted({each.suite for each in some}))} | {question} |")
    return lines
