"""Every page in Chinese, with everything happening that it can tell of: no sentence of the engine's own is left in English."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.pages.scaler import scaler_pages
from penstock.engine.telemetry.events import Event
from penstock.engine.telemetry.http_server import HttpServer
from tests.pages.running import Running, running_engine
from tests.pages.standing import StandingEngine, waits_for_transaction
from tests.pages.visits import Visit, only_in_a_browser, started_browser

pytestmark = only_in_a_browser
_letters = "they are in the dead letters (penstock dlq list)"
happened: Final[Sequence[tuple[Event, str]]] = (
    (Event.MODEL_LOADED, "model card-fraud 7, digest 0123, on cpu with native is verified and warm"),
    (Event.JOINING, "this worker has been joining the group for 30 s: who it waits for is not known yet"),
    (Event.JOINING, "this worker has been joining the group for 40 s: the group is preparing; other members: none"),
    (Event.ASSIGNED, "assigned partitions 0, 1, 2, ... (64 in all) of payments; 64 owned now"),
    (Event.REVOKED, "gave back partitions 1 of payments; 63 owned now"),
    (Event.PARTITIONS_LOST, "lost partitions 2 of payments; 62 owned now: the group had gone on without this worker; what was in flight is read again by their next owner"),
    (Event.FIRST_RECORD, "first record finished: partition 0, offset 12345, 0.4 s after warming"),
    (Event.NEW_PARTITIONS, "the input topic has 12 partitions now, 6 before"),
    (Event.NEW_PARTITIONS, "the output topic scores has 12 partitions now, 6 before: records go to it by their key, since the input has another number"),
    (Event.KAFKA_LOST, "Kafka at kafka:9092 has not answered since 12:00:01 UTC: no answer; 1,234 records in hand wait; trying on"),
    (Event.KAFKA_LOST, "cannot reach Kafka at kafka:9092: no answer in time; waiting for it for 2 min 3 s now"),
    (Event.KAFKA_BACK, "Kafka at kafka:9092 answers again after 10 s"),
    (Event.REJECTED, f"the first record rejected for corrupt: partition 0, offset 12: the value is not JSON, from character 1; {_letters}"),
    (Event.REJECTED, f"7 more records rejected for missing_value: partition 0, offset 12: feature hour is missing; {_letters}"),
    (Event.PARTITION_WAITS, "partition 3 waits for 2 min 10 s: the schema registry has not answered yet when asked for schema id 7 (8.0 s); other partitions go on"),
    (Event.PARTITION_GOES_ON, "partition 3 goes on after 3 min 0 s"),
    (Event.PARTITION_STOPPED, "partition 3 is stopped: 100 records in a row were rejected, from offset 5 on, so the fault is hardly theirs; 100 of 100 for corrupt at decode, the newest: the value is empty, which is not JSON; they are in the dead letters, and what stands behind them is not read. Repair the cause and start again, or raise dead_letters.run_max or dead_letters.share_max if these records really are to be set aside"),
    (Event.INPUT_UNREADABLE, "partition 3: offset 7 cannot be read (the batch stored at offset 7 has a wrong checksum (1 for 2))"),
    (Event.INPUT_LOST, "1,234 offsets of topic payments were deleted before the group read them"),
    (Event.INPUT_STALLED, "partition 3: records wait, and nothing could be read for 65 s"),
    (Event.OPEN_TRANSACTION, "partition 3: 7 offsets wait for the end of a producer's transaction"),
    (Event.INPUT_GOES_ON, "partition 3 is read again after 65 s"),
    (Event.CAREFUL_READING, "partition 3, offset 7: offsets 7 to 9 cannot be read: the batch stored at offset 7 has a wrong checksum (1 for 2); passed over"),
    (Event.TOPIC_RECREATED, "topic payments was deleted and made anew: it is read from its beginning"),
    (Event.DRAINING, "asked to stop: finishing what is in flight"),
    (Event.STOPPED, "stopped with 3 polls unfinished, which will be read again"),
)  # fmt: skip
said_by_the_supervisor: Final = (
    "worker 0 died of SIGKILL; starting another",
    "partition 3 offset 7 killed its worker twice: it goes to the dead letters",
    "worker 0 has been computing one batch for 61 s, longer than model.batch_s_max allows (60 s): it is ended, and its records are tried one by one",
)  # fmt: skip
foreign: Final = ("img src", "onerror=alert", "card-fraud", "timed out", "scores, reasons, set-aside")
"""What others chose: a feature's name or a value, the model's name, the words of a library."""
_command: Final = re.compile(r"penstock (?:scaler|dlq list|offsets reset(?: --[a-z-]+ [A-Z])*)")
_english: Final = re.compile(r"[A-Za-z][a-z']+(?:[ ,:;]+[a-z'][a-z']+)+")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_engine(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


def in_english(page: Any) -> list[str]:
    """Two words of English or more beside each other, wherever the page shows or reads out a text; commands are as one types them."""
    texts = page.evaluate(
        """() => {
  const found = [document.title];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (!walk.currentNode.parentElement.closest("code, script, noscript")) found.push(walk.currentNode.data);
  for (const each of document.querySelectorAll("[aria-label], [title]")) found.push(each.getAttribute("aria-label") || "", each.getAttribute("title") || "");
  return found;
}"""
    )
    found = []
    for text in texts:
        plain = _command.sub("", re.sub("[\u2066-\u2069]", "", text))
        found += [
            each
            for each in _english.findall(plain)
            if not any(one in each or each in one.replace("-", " ") or each in one for one in foreign)
        ]
    return sorted(set(found))


def open_everything(page: Any) -> None:
    for summary in page.query_selector_all("summary"):
        summary.click()
    page.wait_for_timeout(300)


def test_no_page_of_a_running_engine_has_a_sentence_in_english(browser: Any, engine: Running) -> None:
    visiting = Visit(browser, engine, locale="zh-CN")
    for text in said_by_the_supervisor:
        engine.watch.note("worker", text)
    visiting.open("/records")
    visiting.page.wait_for_function("() => document.querySelectorAll('tbody tr').length > 1", timeout=15_000)
    found = {}
    records = visiting.context.request.get(f"{engine.url}/api/v1/records").json()["records"]
    places = {
        each["outcome"]: f"/records/{each['topic']}/{each['partition']}/{each['offset']}" for each in records
    }
    for path in ("/", "/records", places["predicted"], places["rejected"], "/model", "/health", "/scaling"):
        page = visiting.open(path)
        page.wait_for_timeout(600)
        open_everything(page)
        found[path] = in_english(page)
    page = visiting.open("/model")
    page.wait_for_selector(".open-tree button")
    page.click(".open-tree button")
    page.wait_for_selector(".tree .leaf")
    page.click("main form:has(select.feature) button")
    page.wait_for_selector(".density .field")
    found["a tree, and a dependence"] = in_english(page)
    page = visiting.open(places["predicted"])
    page.focus(".trial form button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".trial input[inputmode=decimal]", timeout=30_000)
    found["a record again"] = in_english(page)
    page.fill(".trial input[inputmode=decimal]", "much")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('.trial .answer').innerText.includes('拒')", timeout=15_000
    )
    found["a value that is rejected"] = in_english(page)
    assert {path: words for path, words in found.items() if words} == {}
    visiting.close()


def test_what_is_not_held_and_what_is_wrong_is_said_in_chinese(browser: Any, engine: Running) -> None:
    visiting = Visit(browser, engine, locale="zh-CN")
    page = visiting.open("/records/payments/1/99999999")
    assert in_english(page) == []
    visiting.faults = [each for each in visiting.faults if "404" not in each]
    visiting.close()


@pytest.mark.parametrize("away", [False, True], ids=["waits", "Kafka away"])
def test_whatever_happens_is_said_in_chinese(away: bool, browser: Any) -> None:
    """Each kind of event, what is waited for, and why the worker is not ready."""
    events = [{"event": str(event), "at_ms": at, "text": text} for at, (event, text) in enumerate(happened)]
    waits = [
        waits_for_transaction,
        {"partition": 4, "kind": "registry", "since_ms": 2, "reason": "the schema registry answered 500 when asked for schema id 7"},
        {"partition": None, "kind": "joining", "since_ms": 3, "reason": "has been joining the group for 12 s: who is in it could not be learnt (timed out)"},
    ]  # fmt: skip
    kafka = {"address": "kafka:9092", "reachable": not away, "answer_age_s": 12.0, "fault": "no answer in time" if away else "", "lost_at_ms": 1 if away else None}  # fmt: skip
    reason = "Kafka at kafka:9092 has not answered for 12 s: no answer in time" if away else "every partition waits: paused by an operator, until resumed"  # fmt: skip
    with ExitStack() as held:
        standing = StandingEngine(
            held, events=events, waits_for=waits, kafka=kafka, ready={"ok": False, "reason": reason}
        )
        visiting = Visit(browser, standing, locale="zh-CN")
        found = {}
        for path in ("/", "/health", "/scaling", "/records", "/model"):
            page = visiting.open(path)
            page.wait_for_timeout(600)
            open_everything(page)
            found[path] = in_english(page)
            if path == "/":
                assert len(page.query_selector_all(".changes li")) == len(happened)
        assert {path: words for path, words in found.items() if words} == {}
        assert "分区 3 已等待 2 min 10 s" in visiting.open("/").inner_text(".changes").replace(
            "\u2068", ""
        ).replace("\u2069", "")
        visiting.close()


class Decided:
    """A scaler's loop that has decided everything that can be decided."""

    whys = (
        "for 12.5 records a second", "so that the fullest worker keeps up with its partitions",
        "to work off 1,234 records in 60 s", "nothing to do", "scaling.min_replicas",
        "scaling.max_replicas; more are needed; faster than one worker, whatever their number: partition 1, 2",
        "there are no more partitions to share out", "needed within the hold time", "a change would cost more than it brings",
        "too early to tell what arrives", "no time to take workers away: partition 3 stands still: no record was finished for 40 s",
        "no time to take workers away: the partitions have just changed hands",
        "more workers did not finish more, so the limit lies behind them: 4 finished 100 records a second, and 8 finish 101",
        "nobody knows yet what a worker can do",
    )  # fmt: skip

    def status(self) -> dict[str, Any]:
        numbers = {
            "arrival_records_per_s": 12.5,
            "forecast_records_per_s": 13.0,
            "backlog_records": 7.0,
            "oldest_age_s": 1.5,
        }
        decisions = [
            {"at_ms": 1000 * at, "from": at, "to": at + 1, "active": True, "bound": "rate", "why": why,
             "capacity_records_per_s": 100.0, "replicas_now": at, **numbers}
            for at, why in enumerate(self.whys)
        ]  # fmt: skip
        return {
            "trusted": False, "reason": "the offsets were last read 70 s ago: cannot reach Kafka at kafka:9092: no answer in time",
            "fault": "", "required_replicas": 3, "plan": {"need": {"replicas": 3}, "why": self.whys[0]},
            "demand": {**numbers, "replicas_now": 3, "capacity": None}, "decisions": decisions,
        }  # fmt: skip

    def turns(self) -> tuple[Any, ...]:
        return ()


class ScalerAt:
    """Where its page is."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, count: int, *, poison: int = 0, start: int = 0) -> None:
        """Nobody sends."""


def test_every_decision_of_the_scaler_is_said_in_chinese(browser: Any, tmp_path: Path) -> None:
    with (
        scaler_pages(Decided(), hosts=(), clock=SystemClock()) as reader,
        HttpServer({}, host="127.0.0.1", port=0, reader=reader) as server,
    ):
        visiting = Visit(browser, ScalerAt(f"http://127.0.0.1:{server.port}"), locale="zh-CN")
        page = visiting.open("/scaling")
        page.wait_for_timeout(400)
        assert len(page.query_selector_all("tbody tr")) >= len(Decided.whys)
        assert in_english(page) == []
        visiting.close()
