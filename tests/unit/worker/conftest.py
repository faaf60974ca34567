"""Every text that a worker notes or shows in these tests is one that the pages can say in another language."""

from collections.abc import Iterator

import pytest

from penstock.engine.pages.told_texts import as_it_is, as_told
from penstock.engine.telemetry.events import EventLog, Happened


@pytest.fixture(autouse=True)
def every_event_can_be_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A line that was worded anew, and not in the words of the pages, is found here."""
    newest = EventLog.newest
    noted: list[str] = []
    logs: list[EventLog] = []
    begin = EventLog.__init__

    def keeping(self: EventLog, **arguments: object) -> None:
        begin(self, **arguments)  # type: ignore[arg-type]
        logs.append(self)

    monkeypatch.setattr(EventLog, "__init__", keeping)
    yield
    happened: list[Happened] = [each for log in logs for each in newest(log)]
    noted = [each.text for each in happened if as_told(each.text)["code"] == as_it_is]
    assert not noted, noted
