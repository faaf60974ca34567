"""A flood of log lines becomes one line a minute: nothing is held back untold, and what must be written is."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.console.log_limit import LineLimit, burst_lines, texts_max, told_every_s, unlimited
from penstock.schemas.log_codes import LogCode
from tests.clocks import HandClock


class Log:
    """Lines that pass a limit, with a clock and timers that a test moves."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.limit = LineLimit(monotonic_s=self.clock.monotonic_s, later=self._later)
        self.written: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.addFilter(self.limit)
        handler.emit = self.written.append  # type: ignore[assignment]  # takes it by place
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(handler)
        own = logging.getLogger("penstock.log")
        own.handlers[:], own.propagate = [handler], False
        own.setLevel(logging.DEBUG)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.timers.append((self.clock.monotonic_s() + delay_s, call))

    def line(self, text: str, *, code: str | None = "report_lost", level: int = logging.INFO) -> None:
        self.logger.log(level, "%s", text, extra={} if code is None else {"event_code": code})

    def pass_time(self, seconds: float) -> None:
        end_s = self.clock.monotonic_s() + seconds
        while due := sorted(each for each in self.timers if each[0] <= end_s):
            self.timers.remove(due[0])
            self.clock.sleep(due[0][0] - self.clock.monotonic_s())
            due[0][1]()
        self.clock.sleep(end_s - self.clock.monotonic_s())

    def told(self) -> list[logging.LogRecord]:
        return [each for each in self.written if each.event_code == "lines_held_back"]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _own_logger_as_before() -> object:
    own = logging.getLogger("penstock.log")
    before = own.handlers[:], own.propagate, own.level
    yield
    own.handlers[:], own.propagate = before[0], before[1]
    own.setLevel(before[2])


def test_a_flood_is_a_burst_and_then_one_line_a_minute_and_calm_ends_it() -> None:
    log = Log()
    for _ in range(190):  # ten a second
        for _ in range(10):
            log.line("again")
        log.pass_time(1.0)
    first, second, third = log.told()
    seconds_to_burst = burst_lines / 10
    assert first.args == (600, "report_lost", told_every_s + seconds_to_burst, "again")
    assert [each.args[:1] for each in (second, third)] == [(600,), (600,)]  # type: ignore[index]
    assert len(log.written) == burst_lines + 3
    log.pass_time(2 * told_every_s)
    log.line("a word after the flood")
    assert log.written[-1].getMessage() == "a word after the flood"


def test_another_code_is_not_held_back_by_a_flood() -> None:
    log = Log()
    for at in range(200):
        log.line(f"flood {at}")
    log.line("another", code="replicas")
    assert log.written[-1].getMessage() == "another"


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_warnings_in_new_words_are_written_in_a_flood_of_repeated_ones(level: int) -> None:
    log = Log()
    for partition in range(64):
        for _ in range(100):
            log.line("the cluster is away", level=level)
        log.line(f"partition {partition} is stopped", level=level)
    stopped = [each for each in log.written if "is stopped" in each.getMessage()]
    assert len(stopped) == 64
    assert len(log.written) == 64 + burst_lines


def test_warnings_in_ever_new_words_have_an_end() -> None:
    log = Log()
    for at in range(5_000):
        log.line(f"offset {at}", level=logging.WARNING)
    assert len(log.written) == texts_max
    log.pass_time(told_every_s)
    (told,) = log.told()
    assert (told.levelno, told.args[0]) == (logging.WARNING, 5_000 - texts_max)  # type: ignore[index]


@pytest.mark.parametrize("code", sorted(unlimited))
def test_why_a_process_ends_and_who_acted_is_always_written(code: str) -> None:
    log = Log()
    for _ in range(1_000):
        log.line("x", code=code)
    assert len(log.written) == 1_000
    assert log.limit.held == 0


def test_debug_is_what_was_asked_for_and_libraries_are_limited_by_their_logger() -> None:
    log = Log()
    for _ in range(1_000):
        log.line("x", level=logging.DEBUG)
        log.line("y", code=None, level=logging.WARNING)
    assert len([each for each in log.written if each.levelno == logging.DEBUG]) == 1_000
    assert len([each for each in log.written if each.levelno == logging.WARNING]) == burst_lines


def test_a_library_s_line_that_cannot_be_put_together_does_not_fail_its_caller() -> None:
    log = Log()
    for _ in range(100):
        log.logger.warning("%d records", "no number")
    log.limit.close()
    assert log.limit.held == 100 - burst_lines


codes = st.sampled_from(["report_lost", "kafka_client_line", "partition_stopped", "fenced", None])
severities = st.sampled_from([logging.INFO, logging.WARNING, logging.ERROR])
steps = st.lists(
    st.tuples(codes, severities, st.integers(1, 120), st.integers(1, 50), st.floats(0, 90)), max_size=30
)


@given(steps)
def test_every_line_is_written_or_counted_in_one_that_is(given_steps: list[tuple[Any, ...]]) -> None:
    log = Log()
    came = 0
    for code, level, count, words, wait_s in given_steps:
        for at in range(count):
            log.line(f"word {at % words}", code=code, level=level)
            came += 1
        log.pass_time(wait_s)
    log.limit.close()
    told = [each for each in log.written if getattr(each, "event_code", None) == "lines_held_back"]
    held = sum(each.args[0] for each in told)  # type: ignore[index, misc]
    assert len(log.written) - len(told) + held == came
    assert held == log.limit.held
    minutes = 1 + log.clock.monotonic_s() // told_every_s
    assert len(told) <= 4 * (minutes + 1)  # of each code one a minute, and one at the end


program = """
import logging
from penstock.engine.console.logs import configure_logging, lines_held_back
from penstock.schemas.log_codes import LogCode
configure_logging("worker 0", form="json")
for at in range(1000):
    logging.getLogger("penstock.worker").info("report %d", at, extra=LogCode.REPORT_LOST.extra)
assert lines_held_back() == 1000 - 30, lines_held_back()
"""


def test_a_process_that_ends_amid_a_flood_says_what_it_held_back() -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *written, last = map(json.loads, done.stderr.splitlines())
    assert len(written) == burst_lines
    assert last["event.code"] == LogCode.LINES_HELD_BACK
    assert last["message"].startswith("970 lines of report_lost")
    assert last["message"].endswith("the newest: report 999")
