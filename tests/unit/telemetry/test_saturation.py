"""What a worker is taken to be capable of, in simulated time: with delays in every place, at every load."""

import numpy as np
import pytest

from penstock.engine.telemetry.capacity import RateWindow
from penstock.engine.telemetry.pauses import PauseLog
from penstock.engine.telemetry.saturation import SaturatedRates


class Worker:
    """Polls, computes and commits one batch after the other, each part with a delay of its own."""

    def __init__(
        self, *, plain_s: float, explained_s: float, broker_s: float, batch: int = 500, seed: int = 0
    ) -> None:
        self.rates = SaturatedRates()
        self.now_s = self._looked_s = 0.0
        self._plain_s, self._explained_s, self._broker_s, self._batch = plain_s, explained_s, broker_s, batch
        self._rng = np.random.default_rng(seed)
        self.finished = 0
        self._arrived = 0.0

    def run(self, seconds: float, *, arrives: float, explained: float = 0.0, backlog: float = 0.0) -> float:
        """Records per second finished in this time."""
        end_s, before, begin_s = self.now_s + seconds, self.finished, self.now_s
        self._arrived += backlog
        while self.now_s < end_s:
            waiting = self._arrived - self.finished
            rows = int(min(waiting, self._batch))
            if rows:
                rich = round(rows * explained)
                took_s = (rows - rich) * self._plain_s + rich * self._explained_s + self._broker_s
                self._pass(took_s * self._rng.uniform(0.8, 1.2), arrives)
                self.finished += rows
                self.rates.finished(now_s=self.now_s, rows=rows, explained=rich)
            else:
                self._pass(0.05, arrives)
        return (self.finished - before) / (self.now_s - begin_s)

    def _pass(self, seconds: float, arrives: float) -> None:
        self.now_s += seconds
        self._arrived += arrives * seconds
        if self.now_s - self._looked_s >= 1.0:
            self._looked_s = self.now_s
            self.rates.look(now_s=self.now_s, waiting=self._arrived - self.finished - self._batch)


@pytest.mark.parametrize("broker_s", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("explained", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("record_s", [2e-5, 1e-3, 2e-2])
def test_a_saturated_worker_is_taken_at_what_it_finishes(
    record_s: float, explained: float, broker_s: float
) -> None:
    worker = Worker(
        plain_s=record_s, explained_s=4 * record_s, broker_s=broker_s, batch=max(int(0.05 / record_s), 50)
    )
    worker.run(120, arrives=0.0, explained=explained, backlog=1e9)
    real = worker.run(60, arrives=0.0, explained=explained)
    reported = worker.rates.records_per_s(explained)
    assert reported is not None
    assert 0.85 <= reported / real <= 1.15


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
def test_a_worker_that_keeps_up_says_nothing_of_what_it_could_do(load: float) -> None:
    worker = Worker(plain_s=1e-4, explained_s=1e-3, broker_s=0.01)
    capacity = 500 / (500 * 1e-4 + 0.01)
    worker.run(200, arrives=load * capacity)
    assert worker.rates.records_per_s(0.0) is None
    worker.run(40, arrives=3 * capacity, backlog=1e6)
    seen = worker.rates.records_per_s(0.0)
    worker.run(600, arrives=load * capacity)
    assert seen == pytest.approx(capacity, rel=0.1)


def test_kinds_of_work_are_told_apart_and_mixed_again() -> None:
    worker = Worker(plain_s=1e-4, explained_s=1e-3, broker_s=0.0)
    worker.run(60, arrives=0.0, explained=0.0, backlog=1e9)
    assert worker.rates.records_per_s(1.0) is None, "never seen"
    worker.run(60, arrives=0.0, explained=1.0)
    plain_s, explained_s = worker.rates.costs()
    assert plain_s == pytest.approx(1e-4, rel=0.1)
    assert explained_s == pytest.approx(1e-3, rel=0.1)
    assert worker.rates.records_per_s(0.5) == pytest.approx(1 / 5.5e-4, rel=0.1)
    worker.run(3600, arrives=0.0, explained=1.0)
    assert worker.rates.costs()[0] == pytest.approx(1e-4, rel=0.1), (
        "an hour of the other kind forgets nothing"
    )


def test_what_is_finished_around_a_standstill_does_not_count() -> None:
    worker = Worker(plain_s=1e-3, explained_s=1e-3, broker_s=0.0)
    for _ in range(30):
        worker.run(8, arrives=0.0, backlog=1e6)
        worker.now_s += 5  # the broker is away
        worker.rates.interrupt()
    assert worker.rates.records_per_s(0.0) is None
    worker.run(30, arrives=0.0)
    assert worker.rates.records_per_s(0.0) == pytest.approx(1000, rel=0.1)


def test_records_per_offset_is_one_until_enough_was_passed_and_less_where_offsets_are_empty() -> None:
    window = RateWindow()
    window.add(now_s=1.0, records=10, passed=20, explained=5)
    assert (window.records_per_offset(), window.explained_ratio()) == (1.0, 0.5)
    window.add(now_s=2.0, records=1000, passed=2000)
    assert window.records_per_offset() == 0.5
    window.add(now_s=3.0, records=5000)
    assert window.records_per_offset() == 1.0


def test_the_pause_of_a_rebalance_is_the_longest_lately() -> None:
    pauses = PauseLog(kept=2)
    changes: list[tuple[float, bool]] = [(0, False), (5, True), (10, False), (13, True), (20, False), (21, True), (30, True)]  # fmt: skip
    expected = [0, 0, 0, 3, 3, 3, 3]
    for (at_s, having), longest_s in zip(changes, expected, strict=True):
        pauses.assigned(having, now_s=at_s)
        assert pauses.longest_s == longest_s
    for at_s, having in ((40.0, False), (41.0, True), (50.0, False), (51.0, True)):
        pauses.assigned(having, now_s=at_s)
    assert pauses.longest_s == 1
