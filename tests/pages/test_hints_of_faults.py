"""Hints on a whole engine in which something really goes wrong: the first cause is the one that was put in.

Its clock runs twenty times as fast, so that three minutes of readings are nine seconds.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.explain.tree.tree_shap import TreeExplainer
from penstock.engine.models.runtime.loader import ServedModel
from tests.pages.running import Running, payments, record, running_engine

hurry = 20
max_age_s = 1.0
steady_rows = 10
"""Ten times a second: what there is before the fault."""
compared = pytest.mark.skipif(
    "PENSTOCK_HINTS" not in os.environ, reason="held against minutes before: make soak"
)


class HurriedClock(SystemClock):
    """A second is twenty."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() * hurry


class Traffic:
    """Ten times a second a few records, of which the fault may change anything."""

    def __init__(self, engine: Running) -> None:
        self._engine = engine
        self.rows = steady_rows
        self.ahead_ms = 0
        self.bad = 0
        self.hot = 0
        """Of `rows`, those of one key."""
        rows = payments(2000, seed=3).to_dict("records")
        self._values = [json.dumps(record(row, at)).encode() for at, row in enumerate(rows)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    @contextmanager
    def flowing(self) -> Iterator["Traffic"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _send(self) -> None:
        writer, sent = self._engine.broker.writer("payments"), 0
        while not self._ended.wait(0.1):
            at = sent % 1000
            values = self._values[at : at + self.rows]
            values[: self.bad] = [b"not json"] * self.bad
            keys = [b"hot"] * self.hot + [
                f"customer-{number % 50}".encode() for number in range(len(values) - self.hot)
            ]
            writer.write(values, keys=keys, timestamp_ms=int(time.time() * 1000) + self.ahead_ms)
            sent += self.rows


def causes(engine: Running) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    try:
        connection.request("GET", "/api/v1/hints")
        return [each["cause"] for each in json.loads(connection.getresponse().read())["causes"]]
    finally:
        connection.close()


def first_cause(engine: Running, *, at_most_s: float) -> list[str]:
    """What is said once anything is, and still a little later, as a person reads it. Records grow old by the clock on the wall, which
    does not hurry: by the hurried one they grow old so slowly that what a step in the rate foretells can be silent again for a while."""
    until_s = time.monotonic() + at_most_s
    while True:
        said = causes(engine)
        time.sleep(1.0 if said else 0.1)
        if said and (found := causes(engine)):
            return found
        assert time.monotonic() < until_s, "nothing was said"


def _slower(of: type, method: str, row_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes so much more for each record."""
    quick = getattr(of, method)

    def slow(self: Any, matrix: np.ndarray[Any, Any], *more: Any) -> Any:
        time.sleep(row_s * len(matrix))
        return quick(self, matrix, *more)

    monkeypatch.setattr(of, method, slow)


@contextmanager
def engine_under(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, row_s: float
) -> Iterator[tuple[Running, Traffic]]:
    """The model takes `row_s` more for each record from the first one on."""
    with running_engine(folder, clock=HurriedClock(), max_age_s=max_age_s) as engine:
        _slower(ServedModel, "predict", row_s, monkeypatch)
        with Traffic(engine).flowing() as traffic:
            yield engine, traffic


def _poison(traffic: Traffic) -> None:
    traffic.bad = 4


def _clock_ahead(traffic: Traffic) -> None:
    traffic.ahead_ms = 3_600_000


@pytest.mark.parametrize("row_s", [0.0, 0.008], ids=["quiet", "mostly some record is unfinished"])
@pytest.mark.parametrize(("fault", "cause"), [(_poison, "poison"), (_clock_ahead, "clock_ahead")])
def test_what_is_wrong_with_records_is_named_first(
    fault: Callable[[Traffic], None],
    cause: str,
    row_s: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine_under(tmp_path, monkeypatch, row_s=row_s) as (engine, traffic):
        engine.wait_for(5 * steady_rows)
        assert causes(engine) == []
        fault(traffic)
        assert first_cause(engine, at_most_s=60)[0] == cause


@compared
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("of", "method", "cause"), [(ServedModel, "predict", "slow_model"), (TreeExplainer, "explain", "slow_explainer")],
)  # fmt: skip
def test_what_became_slower_is_named_first(
    of: type, method: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_under(tmp_path, monkeypatch, row_s=0.0) as (engine, _):
        time.sleep(200 / hurry)
        assert causes(engine) == []
        _slower(of, method, 0.04, monkeypatch)  # four times as slow as would keep up
        assert first_cause(engine, at_most_s=90)[0] == cause


def _hot_partition(traffic: Traffic) -> None:
    traffic.rows, traffic.hot = 5 * steady_rows, 4 * steady_rows


def _more_traffic(traffic: Traffic) -> None:
    traffic.rows = 5 * steady_rows


@compared
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("fault", "cause"), [(_hot_partition, "hot_partition"), (_more_traffic, "more_traffic")]
)
def test_what_more_arrives_is_named_first(
    fault: Callable[[Traffic], None], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A third of what it can do; five times as much is more than that.
    with engine_under(tmp_path, monkeypatch, row_s=0.003) as (engine, traffic):
        time.sleep(200 / hurry)
        assert causes(engine) == []
        fault(traffic)
        assert first_cause(engine, at_most_s=90)[0] == cause
