"""Results kept for the same features: what comes out is what the model would have said, bit for bit."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.engine.clock import SystemClock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.runtime.cache import CachedModel, check_alone
from penstock.engine.models.runtime.loader import open_model, varied_rows
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ConfigError, ModelError
from tests.bundles import write_linear
from tests.clocks import HandClock


class _Hash:
    """Scores that tell every bit pattern apart; throws on a 13. Counts the rows it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        if (matrix == 13).any():
            raise ModelError("13")
        self.asked += len(matrix)
        bits = np.ascontiguousarray(matrix).view(np.uint32).astype(np.float64)
        scores = np.stack((bits @ np.array([1.0, 3.0]), bits @ np.array([2.0, -1.0])), axis=1)
        scores[np.isnan(matrix).all(axis=1)] = np.nan
        labels = np.nan_to_num(scores).argmax(axis=1)
        return Predictions(outputs={"s": scores, "t": scores[:, :1] / 7}, labels=labels, classes=("a", "b"))


def same(one: Predictions, other: Predictions) -> bool:
    assert one.labels is not None
    assert other.labels is not None
    assert one.classes == other.classes
    return one.labels.tobytes() == other.labels.tobytes() and all(
        one.outputs[name].tobytes() == scores.tobytes() for name, scores in other.outputs.items()
    )


odd_nan = np.array([0x7FC00001], dtype=np.uint32).view(np.float32)[0]
cells = st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), odd_nan, float("inf")])
batches = st.lists(st.lists(st.tuples(cells, cells), min_size=0, max_size=8), max_size=12)


def matrix_of(rows: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


@given(batches, st.integers(1, 6))
def test_with_it_and_without_it_the_answers_are_the_same_bits(
    given_batches: list[list[tuple[float, float]]], rows_max: int
) -> None:
    counted: list[tuple[int, int]] = []
    model, plain = _Hash(), _Hash()
    cached = CachedModel(model, rows_max=rows_max, count=lambda *both: counted.append(both))
    cached.begin()
    for rows in map(matrix_of, given_batches):
        assert same(cached.predict(rows), plain.predict(rows))
        assert cached.rows <= rows_max
    assert sum(hits + misses for hits, misses in counted) == plain.asked
    assert sum(misses for _, misses in counted) == model.asked <= plain.asked


def test_what_was_seen_is_not_asked_again_and_the_oldest_goes_first() -> None:
    counted: list[tuple[int, int]] = []
    model = _Hash()
    cached = CachedModel(model, rows_max=2, count=lambda *both: counted.append(both))
    cached.begin()
    for rows in ([(1, 1), (2, 2), (1, 1)], [(2, 2), (1, 1)], [(3, 3)], [(2, 2)], [(1, 1)]):
        cached.predict(matrix_of([(float(a), float(b)) for a, b in rows]))
    assert counted == [(1, 2), (2, 0), (0, 1), (1, 0), (0, 1)]


def test_zeros_and_nans_of_other_bits_are_other_rows() -> None:
    model = _Hash()
    cached = CachedModel(model, rows_max=10, count=lambda *_: None)
    cached.begin()
    cached.predict(matrix_of([(0.0, 1.0), (-0.0, 1.0)]))
    nans = np.array([[0x7FC00000, 0], [0x7FC00001, 0]], dtype=np.uint32).view(np.float32)
    cached.predict(nans)
    cached.predict(nans)
    assert model.asked == 4


def test_a_batch_that_throws_leaves_nothing_behind() -> None:
    model = _Hash()
    cached = CachedModel(model, rows_max=10, count=lambda *_: None)
    cached.begin()
    cached.predict(matrix_of([(1, 1)]))
    with pytest.raises(ModelError):
        cached.predict(matrix_of([(1, 1), (5, 5), (13, 1)]))
    assert cached.rows == 1
    cached.predict(matrix_of([(5, 5)]))
    assert model.asked == 2


def test_answers_belong_to_whoever_asked() -> None:
    cached = CachedModel(_Hash(), rows_max=10, count=lambda *_: None)
    cached.begin()
    rows = matrix_of([(1, 1), (2, 2)])
    for _ in range(2):
        found = cached.predict(rows)
        expected = _Hash().predict(rows)
        assert same(found, expected)
        found.outputs["s"][:] = 0


def test_before_it_begins_nothing_is_kept() -> None:
    model = _Hash()
    cached = CachedModel(model, rows_max=10, count=lambda *_: pytest.fail("counted"))
    for _ in range(2):
        cached.predict(matrix_of([(1, 1)]))
    assert model.asked == 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_linear(tmp_path_factory.mktemp("cache") / "linear")


def test_a_model_whose_scores_depend_on_the_batch_is_refused(bundle: Bundle) -> None:
    class Relative:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            scores = matrix[:, :1].astype(np.float64) - matrix[:, :1].mean()
            return Predictions(outputs={"s": scores}, labels=None, classes=())

    rows = np.arange(100, dtype=np.float32).reshape(-1, 1)
    with pytest.raises(ConfigError, match=r"cache_rows: in a batch of 1 rows a row gets other scores"):
        check_alone(Relative(), rows)
    model = open_model(bundle, device="cpu", batch_rows_max=8, clock=SystemClock())
    check_alone(model, varied_rows(bundle, model, SystemClock()))


@pytest.mark.parametrize(("row_s", "tried"), [(0.0, 1024), (0.001, 512), (0.014, 64), (10.0, 64)])
def test_a_slow_model_is_measured_on_as_many_rows_as_it_gets_through(
    bundle: Bundle, row_s: float, tried: int
) -> None:
    clock = HandClock()

    class Slow:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            clock.sleep(row_s * len(matrix))
            return Predictions(outputs={"s": matrix.astype(np.float64)}, labels=None, classes=())

    assert len(varied_rows(bundle, Slow(), clock)) == tried
    assert clock.now_s <= max(0.5, row_s * 64) + row_s * 64


def test_a_real_model_behind_it_answers_the_same(bundle: Bundle) -> None:
    model = open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())
    cached = CachedModel(model, rows_max=20, count=lambda *_: None)
    cached.begin()
    random = np.random.default_rng(0)
    pool = random.normal(size=(30, 3)).astype(np.float32)
    for _ in range(20):
        rows = pool[random.integers(0, len(pool), 25)]
        assert same(cached.predict(rows), model.predict(rows))
