"""The demo's books: what is missing and what is there twice is found."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from penstock.engine.demo.audit import Audit, area_under_roc


def audit_of(predicted: list[int], explained: list[int], rejected: list[int]) -> Audit:
    audit = Audit({"late": 1.0, "early": 0.0})
    for offset in predicted:
        key = "late" if offset % 2 else "early"
        audit.prediction(0, offset, key=key, score=0.9 if offset % 2 else 0.1, latency_s=0.01)
    for offset in explained:
        audit.explanation(0, offset)
    for offset in rejected:
        audit.dead_letter(0, offset)
    return audit


def test_balanced_books_balance() -> None:
    account = audit_of([0, 1, 3], [0, 1, 3], [2]).account({0: 4})
    assert account.balanced
    assert (account.records, account.predicted, account.explained, account.rejected) == (4, 3, 3, 1)


@pytest.mark.parametrize(
    ("predicted", "explained", "rejected", "fault"),
    [
        ([0, 1], [0, 1], [2], "lost"),
        ([0, 1, 2, 3, 3], [0, 1, 2, 3], [], "duplicated"),
        ([0, 1, 2, 3], [0, 1, 2, 3], [3], "duplicated"),
        ([0, 1, 2, 3], [0, 1, 2, 3, 0], [], "duplicated"),
        ([0, 1, 2, 3], [0, 1, 2], [], "unexplained"),
    ],
)
def test_each_fault_is_found_and_named(
    predicted: list[int], explained: list[int], rejected: list[int], fault: str
) -> None:
    account = audit_of(predicted, explained, rejected).account({0: 4})
    assert not account.balanced
    assert getattr(account, fault) == 1


def test_quality_is_what_the_field_means_by_it() -> None:
    quality = audit_of([0, 1, 2, 3], [], []).quality()
    assert quality is not None
    assert (quality.auc, quality.precision, quality.recall, quality.flagged) == (1.0, 1.0, 1.0, 2)
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, 500) / 10.0
    late = rng.random(500) < scores
    assert area_under_roc(scores, late) == pytest.approx(roc_auc_score(late, scores), abs=1e-12)
