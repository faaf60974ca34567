"""The demo's books: what is missing and what is there twice is found."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from penstock.engine.demo.audit import Audit, area_under_roc
from penstock.engine.demo.committed import Committed
from penstock.engine.demo.view import busy_sentence, gauge_of


def audit_of(predicted: list[int], explained: list[int], rejected: list[int]) -> Audit:
    audit = Audit({"late": 1.0, "early": 0.0})
    for offset in predicted:
        key = "late" if offset % 2 else "early"
        audit.prediction(
            0, offset, key=key, score=0.9 if offset % 2 else 0.1, latency_s=0.01, read_s=float(offset)
        )
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
    scores = rng.integers(0, 9, 500)
    late = rng.random(500) < scores / 10
    counts = (np.bincount(scores[late], minlength=9), np.bincount(scores[~late], minlength=9))
    assert area_under_roc(*counts) == pytest.approx(roc_auc_score(late, scores), abs=1e-12)


def test_quality_is_that_of_the_records_whose_truth_is_known() -> None:
    rng = np.random.default_rng(6)
    truth = np.where(rng.random(400) < 0.1, np.nan, rng.random(400) < 0.4)
    scores = np.clip(rng.normal(0.4, 0.2, 400) + 0.2 * np.nan_to_num(truth), 0, 1)
    audit = Audit({str(place): each for place, each in enumerate(truth.tolist())})
    for place, score in enumerate(scores.tolist()):
        audit.prediction(0, place, key=str(place), score=score, latency_s=0.01, read_s=0.0)
    quality, known = audit.quality(), ~np.isnan(truth)
    assert quality is not None
    late, flagged = truth[known] == 1, scores[known] >= 0.5
    assert (quality.known, quality.flagged) == (known.sum(), flagged.sum())
    assert quality.precision == late[flagged].mean()
    assert quality.recall == flagged[late].mean()
    assert quality.auc == pytest.approx(roc_auc_score(late, scores[known]), abs=1e-3)


def test_percentiles_are_of_the_newest_and_leave_the_warm_up_out() -> None:
    audit = Audit({})
    for second, latency_s in enumerate([5.0, 4.0, 0.030, 0.020, 0.010]):
        audit.prediction(0, second, key="k", score=0.5, latency_s=latency_s, read_s=float(second))
        if second == 1:
            audit.forget_latencies()
    assert audit.latency_ms(100) == pytest.approx(30)
    assert audit.latency_ms(100, since_s=2.5) == pytest.approx(20)
    assert audit.latency_ms(50, since_s=9.0) == 0.0
    assert audit.outcomes == 5


def test_the_worker_s_histogram_tells_what_came_since() -> None:
    def page(counts: list[int]) -> str:
        lines = ["# TYPE penstock_end_to_end_seconds histogram"]
        lines += [
            f'penstock_end_to_end_seconds_bucket{{le="{bound}"}} {count}'
            for bound, count in zip(["0.01", "0.1", "+Inf"], counts, strict=True)
        ]
        return (
            "\n".join(
                [
                    *lines,
                    f"penstock_end_to_end_seconds_count {counts[-1]}",
                    "penstock_end_to_end_seconds_sum 1",
                ]
            )
            + "\n"
        )

    before, after = Committed.of(page([0, 0, 7])), Committed.of(page([100, 200, 207]))
    assert after.percentile_ms(50, before) == pytest.approx(10)
    assert after.percentile_ms(75, before) == pytest.approx(55)
    assert before.percentile_ms(99, before) == 0.0
    assert after.percentile_ms(99.9, Committed.of("")) == pytest.approx(100)


def test_a_gauge_tells_without_colours() -> None:
    assert gauge_of(0.1, cells=10).plain == "━─────────  10%"


def test_a_machine_that_others_use_is_said_to_be_one() -> None:
    assert busy_sentence(0.9, 2) is None
    said = busy_sentence(7.25, 2)
    assert said is not None
    assert "load 7.2 on 2 cores" in said
