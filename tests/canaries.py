"""Secrets of the suite hold a canary; whatever the suite prints, logs, serves, stores and sends is searched for one.

A plugin of pytest, registered by tests/conftest.py. A canary that is found ends the run with a failure, names where it was found, and
quotes nothing around it. Where the suite runs in several processes, each searches what its tests let out and hands what it found to
the one that started it.
"""

import base64
import http.client
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from penstock.connectors.embedded import secured
from penstock.connectors.embedded.kafka import EmbeddedKafka

word: Final = "canary"
look_every_s: Final = 0.25
file_bytes_max: Final = 64 << 20
piece_bytes: Final = 1 << 20
shown_max: Final = 40


def _forms() -> Iterator[bytes]:
    """How a canary may stand in bytes: as it is, in hexadecimal, and in base64 wherever it begins in a group of three."""
    plain = word.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain + b"\0" * 3)
        first, last = (
            -(-before * 8 // 6),
            (before + len(plain)) * 8 // 6,
        )  # characters that depend on the canary alone
        yield encoded[first:last]


pattern: Final = re.compile(b"|".join(re.escape(form) for form in _forms()))


def found_in(data: bytes | str) -> bool:
    """Whether a canary is in it."""
    return pattern.search(data.encode("utf-8", "replace") if isinstance(data, str) else data) is not None


class Canaries:
    """Where canaries were found so far, by test."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.searched: dict[str, int] = {}
        self._test = "before the first test"
        self._files: dict[Path, str] = {}
        self._ended = threading.Event()
        self._undo: list[Callable[[], None]] = []

    def search(self, what: str, data: bytes | str) -> None:
        """Look at what the suite let out."""
        if not data:
            return
        kind = what.partition(" in ")[0]
        self.searched[kind] = self.searched.get(kind, 0) + len(data)
        if found_in(data):
            leak = f"{what}: {self._test}"
            if leak not in self.leaks:
                self.leaks.append(leak)

    # pytest's hooks

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Everything that lets something out is watched from here on, in the process where the tests run."""
        if _runs_elsewhere(session.config):
            return
        self._watch_starts()
        self._watch_results()
        self._watch_brokers()
        self._replace(
            secured,
            "secrets",
            lambda inner: SimpleNamespace(token_hex=lambda size: f"{word}-{inner.token_hex(size)}"),
        )
        handler = _Lines(self)
        logging.getLogger().addHandler(handler)
        self._undo.append(lambda: logging.getLogger().removeHandler(handler))
        threading.Thread(target=self._look_at_processes, name="canaries", daemon=True).start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Which test lets it out."""
        self._test = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What pytest has captured."""
        for title, text in report.sections:
            if "log" not in title:  # lines are looked at as they come
                self.search("printed", text)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The files that processes wrote to; then the verdict."""
        self._ended.set()
        for path, test in self._files.items():
            self._test = test
            self.search_file("written by a process", path)
        for undo in reversed(self._undo):
            undo()
        handed: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if handed is not None:
            handed[word] = (self.leaks, self.searched)
        if self.leaks and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """What the tests of one of several processes let out; one that died has handed nothing, and is a failure by itself."""
        leaks, searched = getattr(node, "workeroutput", {}).get(word, ([], {}))
        self.leaks += [leak for leak in leaks if leak not in self.leaks]
        for kind, size in searched.items():
            self.searched[kind] = self.searched.get(kind, 0) + size

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Each place; or that there is none."""
        if not self.leaks:
            total = sum(self.searched.values()) >> 10
            terminalreporter.write_line(
                f"canaries: 0 found in {total:,} KiB ({', '.join(sorted(self.searched))})"
            )
            return
        terminalreporter.section("canaries", red=True)
        for leak in self.leaks[:shown_max]:
            terminalreporter.write_line(f"a secret was let out, {leak}")

    # what is watched

    def search_file(self, what: str, path: Path) -> None:
        """A file, a piece at a time; what is not there any more is passed over."""
        try:
            with path.open("rb") as file:
                tail = b""
                for _ in range(file_bytes_max // piece_bytes):
                    piece = file.read(piece_bytes)
                    if not piece:
                        return
                    self.search(what, tail + piece)
                    tail = piece[-64:]
        except OSError:
            return

    def _replace(self, owner: Any, name: str, change: Callable[[Any], Any]) -> None:
        inner = getattr(owner, name)
        setattr(owner, name, change(inner))
        self._undo.append(lambda: setattr(owner, name, inner))

    def _watch_starts(self) -> None:
        """Arguments of processes, and the files that their output goes to."""

        def changed(inner: Any) -> Any:
            @wraps(inner)
            def start(process: Any, words: Any, *rest: Any, **options: Any) -> None:
                listed = [words] if isinstance(words, str | bytes | os.PathLike) else list(words)
                for each in listed:
                    self.search("arguments", os.fsencode(each))
                for output in (options.get("stdout"), options.get("stderr")):
                    name = getattr(output, "name", None)
                    if isinstance(name, str):
                        self._files.setdefault(Path(name), self._test)
                inner(process, words, *rest, **options)

            return start

        self._replace(subprocess.Popen, "__init__", changed)

    def _watch_results(self) -> None:
        """What processes print to us, what tests take from pytest's captures, and what is served to them over HTTP."""

        def of_communicate(inner: Any) -> Any:
            @wraps(inner)
            def communicate(process: Any, *rest: Any, **options: Any) -> Any:
                out, err = inner(process, *rest, **options)
                for text in (out, err):
                    if text and _is_penstock(process.args):
                        self.search("printed by a process", text)
                return out, err

            return communicate

        def of_capture(inner: Any) -> Any:
            @wraps(inner)
            def readouterr(capture: Any) -> Any:
                result = inner(capture)
                self.search("printed", result.out)
                self.search("printed", result.err)
                return result

            return readouterr

        def of_http(inner: Any) -> Any:
            @wraps(inner)
            def read(response: Any, *rest: Any) -> bytes:
                body: bytes = inner(response, *rest)
                self.search("served", body)
                return body

            return read

        self._replace(subprocess.Popen, "communicate", of_communicate)
        self._replace(pytest.CaptureFixture, "readouterr", of_capture)
        self._replace(http.client.HTTPResponse, "read", of_http)

    def _watch_brokers(self) -> None:
        """Every topic of every embedded broker, as it is stored, and what the broker wrote itself."""

        def changed(inner: Any) -> Any:
            @wraps(inner)
            def close(kafka: EmbeddedKafka) -> None:
                root = kafka._root
                if kafka._processes is not None and root.is_dir():
                    for path in logs(root):
                        inside = path.relative_to(root).parts[1:]
                        where = (
                            f"stored in {path.parent.name}" if len(inside) > 1 else "written by the broker"
                        )
                        self.search_file(where, path)
                inner(kafka)

            return close

        self._replace(EmbeddedKafka, "close", changed)

    def _look_at_processes(self) -> None:
        """Arguments of all that descends from us, as everyone on the machine can read them."""
        while not self._ended.wait(look_every_s):
            for pid in descendants(os.getpid()):
                try:
                    self.search("arguments in /proc", Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue


class _Lines(logging.Handler):
    """Log lines, as they come."""

    def __init__(self, canaries: Canaries) -> None:
        super().__init__(level=0)
        self._canaries = canaries

    def emit(self, record: logging.LogRecord) -> None:
        """The message, and a traceback's text."""
        self._canaries.search("logged", record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            self._canaries.search("logged", str(record.exc_info[1]))


def logs(root: Path) -> list[Path]:
    """The files `*.log` below a broker's folder; it deletes topics meanwhile, so what is gone by then is passed over."""
    return sorted(
        Path(folder, name) for folder, _, names in os.walk(root) for name in names if name.endswith(".log")
    )


def descendants(pid: int) -> Iterator[int]:
    """Process ids below one; a run of pytest that a test starts has its own search, and canaries planted on purpose."""
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # it has ended meanwhile
        return
    for path in threads:
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            if not _runs_pytest(child):
                yield from descendants(child)


def _runs_pytest(pid: int) -> bool:
    try:
        return b"\0pytest\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _runs_elsewhere(config: pytest.Config) -> bool:
    """Whether this process only hands the tests out to others (of pytest-xdist)."""
    return not hasattr(config, "workerinput") and bool(config.getoption("tx", default=[]))


def _is_penstock(words: Any) -> bool:
    """Whether a process is one of ours; what openssl prints for a test is that test's affair."""
    listed = [words] if isinstance(words, str | bytes | os.PathLike) else list(words)
    return bool(listed) and os.fsdecode(listed[0]) == sys.executable
