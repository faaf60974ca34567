"""`penstock top` as it is run: on terminals of all sizes and kinds, and into a pipe."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import orjson
import pytest

from penstock.engine.cli.main import main
from penstock.engine.console.terminal import Terminal
from penstock.engine.telemetry.http_server import Answer, HttpServer, Routes, json_answer
from penstock.engine.watch.live import watch
from penstock.engine.watch.look import Seen
from penstock.schemas.errors import UnavailableError
from tests.clocks import HandClock

patience_s = 30.0
restored = b"\x1b[?1049l"
hostile = "\x1b[2J\x1b]0;owned\x07名\n"


def routes(records: bool = True) -> Routes:
    balance = {"read": 10, "predicted": 7, "rejected": 1, "skipped": 0, "in_flight": 2, "dropped": 0}
    report = {"worker": f"g-{hostile}-0", "group": "g", "topic": hostile, "state": "running", "balance": balance, "waits_for": [],
              "model": {"name": hostile, "version": "1"}}  # fmt: skip
    metrics = b'penstock_lag_seconds{topic="t",partition="0",worker="0"} 0.5\npenstock_lag_records{topic="t",partition="0",worker="0"} 3\n'
    reasons = [{"feature": hostile, "value": hostile, "attribution": 0.5, "masked": False}]
    record = {"topic": "t", "partition": 0, "offset": 1, "at_ms": 1, "slot": "0", "outcome": "predicted", "label": hostile, "score": 0.5,
              "reasons": reasons, "reason": None}  # fmt: skip
    found: dict[str, object] = {
        "/status": lambda: json_answer({"workers": {"0": report}}),
        "/metrics": lambda: Answer(body=metrics, content_type="text/plain"),
    }
    if records:
        found["/api/v1/records"] = lambda: json_answer({"records": [record]})
    return found  # type: ignore[return-value]


@pytest.fixture
def url() -> Iterator[str]:
    with HttpServer(routes(), host="127.0.0.1", port=0) as server:
        yield f"http://127.0.0.1:{server.port}"


def command(url: str, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "penstock", "top", "--url", url, *words]


def piped(url: str, *words: str, **environ: str) -> str:
    done = subprocess.run(
        command(url, *words), capture_output=True, timeout=patience_s, check=True, env=os.environ | environ
    )
    assert b"\x1b" not in done.stdout + done.stderr
    return done.stdout.decode()


class Shown:
    """The command on a terminal of its own."""

    def __init__(self, argv: list[str], *, columns: int, **environ: str) -> None:
        self.fd, child = pty.openpty()
        self.resize(columns)
        self.before = termios.tcgetattr(child)
        env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            argv, stdin=child, stdout=child, stderr=child, start_new_session=True,
            env=env | {"TERM": "xterm-256color"} | environ,
        )  # fmt: skip
        self.child = child
        self.output = b""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def until(self, part: bytes, times: int = 1) -> None:
        end_s = time.monotonic() + patience_s
        while self.output.count(part) < times:
            assert time.monotonic() < end_s, self.output[-2000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 65536)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        end_s = time.monotonic() + patience_s
        while self.process.poll() is None or select.select([self.fd], [], [], 0.1)[0]:
            assert time.monotonic() < end_s
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 65536)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.child)
        os.close(self.fd)


def test_into_a_pipe_it_is_a_plain_line_a_second(url: str) -> None:
    lines = piped(url, "--seconds", "1.5", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").splitlines()
    assert len(lines) == 1 or len(lines) == 2
    assert lines[0].startswith("in 10 = predicted 7 + rejected 1 + in flight 2")
    assert lines[0].isascii()
    assert "\\x1b[2J" in lines[0]


def test_json_is_one_object_a_line(url: str) -> None:
    for line in piped(url, "--json", "--seconds", "1").splitlines():
        found = json.loads(line)
        assert (found["read"], found["missing"]) == (10, 0)
        assert found["newest"][0]["reasons"][0]["feature"] == hostile


@pytest.mark.parametrize("columns", [60, 200])
def test_on_a_terminal_it_is_drawn_and_ctrl_c_gives_the_screen_back(url: str, columns: int) -> None:
    shown = Shown(command(url), columns=columns)
    try:
        shown.until(b"every record is accounted for")
        shown.resize(80)
        shown.until(
            b"every record is accounted for", times=2
        )  # what does not change is drawn anew for another size alone
        assert shown.stop() == 0
        assert b"Traceback" not in shown.output
        assert shown.output.index(b"\x1b[?1049h") < shown.output.index(restored)
        assert b"in 10 = predicted 7" in shown.output[shown.output.index(restored) :]  # what stays
        assert shown.output.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?25h" in shown.output
        assert b"\x1b]0;" not in shown.output
        assert b"\x1b[2J\x1b]" not in shown.output
        assert termios.tcgetattr(shown.child) == shown.before
    finally:
        shown.close()


def test_a_dumb_terminal_gets_lines(url: str) -> None:
    shown = Shown(command(url), columns=80, TERM="dumb")
    try:
        shown.until(b"in 10 = predicted 7", times=2)
        assert shown.stop() == 0
        assert b"\x1b" not in shown.output
    finally:
        shown.close()


def test_without_colours_nothing_is_coloured(url: str) -> None:
    shown = Shown(command(url), columns=80, NO_COLOR="1")
    try:
        shown.until(b"every record is accounted for")
        shown.stop()
        assert b"[38;5" not in shown.output
        assert b"[32m" not in shown.output
    finally:
        shown.close()


@pytest.mark.parametrize(
    "answer", [b"<html>", orjson.dumps([1]), orjson.dumps({"workers": {"0": {"group": "g"}}})]
)
def test_who_is_no_engine_is_one_sentence(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    found: Routes = {"/status": lambda: Answer(body=answer), "/metrics": lambda: Answer(body=b"{}}")}
    with HttpServer(found, host="127.0.0.1", port=0) as server:
        assert main(["top", "--url", f"http://127.0.0.1:{server.port}"]) == 1
    said = capsys.readouterr().err
    assert "does not answer as an engine does" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--url", "http://127.0.0.1:9"], 1, "nobody answers"),
        (["--url", "ftp://x"], 2, "http://HOST:PORT"),
        ([], 2, "say where the engine is"),
    ],
)
def test_nobody_there_and_no_address_are_one_sentence(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *words]) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_an_engine_that_goes_away_is_shown_as_missing(capsys: pytest.CaptureFixture[str]) -> None:
    clock, terminal = HandClock(), Terminal()
    answers: list[Seen | UnavailableError] = [
        Seen(at_s=0.0, group="g", topic="t", workers=()), UnavailableError("nobody answers"), Seen(at_s=2.0, group="g", topic="t", workers=()),
    ]  # fmt: skip

    def look() -> Seen:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    assert watch(look, terminal, clock, seconds=2.5) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert "no answer: nobody answers; what is shown is older" in second
    assert "no answer" not in first + third
