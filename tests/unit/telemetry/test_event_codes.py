"""Every log line of the long-running processes carries a code out of a closed set: a state change its event, any other a LogCode."""

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.engine.console.logs import JsonLines
from penstock.engine.telemetry.events import Event, EventLog
from penstock.schemas.log_codes import LogCode
from tests.clocks import HandClock


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines("worker 0"))
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


def test_every_event_s_line_carries_its_code_and_a_foreign_line_has_none() -> None:
    logger, kept = logging.getLogger("penstock.test_event_codes"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        log = EventLog(logger=logger, count=lambda _: None, clock=HandClock())
        for event in Event:
            log.note(event, "a text \x1b[31m")
        logger.warning("something else")
    finally:
        logger.removeHandler(kept)
    *events, other = kept.lines
    assert [line["event.code"] for line in events] == list(Event)
    assert {(line["event.kind"], line["event.dataset"]) for line in events} == {("event", "penstock.state")}
    assert all("\x1b" not in str(line["message"]) for line in events)
    assert not [name for name in other if name.startswith("event.")]


root = Path(penstock.__file__).parent
levels = {"debug", "info", "warning", "error", "critical", "exception", "log"}
not_long_running = ("connectors/embedded/", "connectors/faust.py")


def logging_places(tree: ast.AST) -> Iterator[tuple[ast.Attribute, ast.Call | None]]:
    """Every mention of a logger's method, with the call that gives it its arguments: of itself, or of a partial."""
    calls: dict[ast.AST, ast.Call] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            calls[node.func] = node
            if getattr(node.func, "id", "") == "partial" and node.args:
                calls[node.args[0]] = node
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in levels:
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            of_get_logger = isinstance(owner, ast.Call) and getattr(owner.func, "attr", "") == "getLogger"
            if name.strip("_") in ("logger", "logging", "log") or of_get_logger:
                yield node, calls.get(node)


def code_of(call: ast.Call | None) -> str | None:
    """NAME of `extra=LogCode.NAME.extra`, or `event` where the event's name is handed over."""
    for keyword in call.keywords if call is not None else ():
        text = ast.unparse(keyword.value)
        if keyword.arg == "extra" and text.startswith("LogCode.") and text.endswith(".extra"):
            return text.split(".")[1]
        if keyword.arg == "extra" and text == "{'event_code': str(event)}":
            return "event"
    return None


def test_no_line_of_a_long_running_process_is_without_a_code_and_none_is_unused() -> None:
    used: set[str] = set()
    bare: list[str] = []
    for folder in ("engine", "connectors", "schemas"):
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            if place.startswith(not_long_running):
                continue
            for mention, call in logging_places(ast.parse(path.read_text(encoding="utf-8"))):
                code = code_of(call)
                if code is None:
                    bare.append(f"{place}:{mention.lineno}")
                else:
                    used.add(code)
    assert bare == [], "each needs extra=LogCode.NAME.extra, of schemas/log_codes.py"
    assert used == {*LogCode.__members__, "event"}


def test_codes_are_names_of_their_own_and_say_when() -> None:
    assert not {str(code) for code in LogCode} & {str(event) for event in Event}
    for name, code in LogCode.__members__.items():
        assert (str(code), code.meaning != "") == (name.lower(), True)


@pytest.mark.parametrize(
    "line",
    [
        "logger.info('x')", "self._logger.warning('x', y)", "logging.error('x')", "logging.getLogger('a').info('x')",
        "say = logger.warning", "logger.info('x', extra={'event_code': 'made up'})", "partial(logger.log, 3)",
    ],
)  # fmt: skip
def test_a_bare_line_is_found(line: str) -> None:
    ((_, call),) = logging_places(ast.parse(line))
    assert code_of(call) is None


def test_a_line_with_a_code_says_so_in_json() -> None:
    logger, kept = logging.getLogger("penstock.test_log_codes"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        logger.info("%d replicas", 3, extra=LogCode.REPLICAS.extra)
    finally:
        logger.removeHandler(kept)
    (line,) = kept.lines
    assert (line["event.code"], line["event.kind"], line["event.dataset"]) == (
        "replicas",
        "event",
        "penstock.log",
    )
    assert line["message"] == "3 replicas"
