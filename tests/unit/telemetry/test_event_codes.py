"""JSON log lines of state changes carry the event's name, out of a closed set; other lines carry none."""

import json
import logging

from penstock.engine.console.logs import JsonLines
from penstock.engine.telemetry.events import Event, EventLog
from tests.clocks import HandClock


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines("worker 0"))
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


def test_every_event_s_line_carries_its_code_and_no_other_line_has_one() -> None:
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
