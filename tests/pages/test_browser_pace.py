"""How soon the pages are there, how little they take, and how soon they show what happened; each with five times of slack, for a busy machine.

The figures themselves are printed: `make test-pages ARGS="-s -k pace"`.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from penstock.engine.clock import SystemClock
from penstock.engine.pages.sentences import reasons_sentence
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.watch import points_kept
from tests.pages.running import Running, running_engine
from tests.pages.standing import StandingEngine
from tests.pages.visits import Visit, only_in_a_browser, started_browser

pytestmark = only_in_a_browser
page_bytes_max = 60_000
content_s, redraw_ms, change_ms = 1.0, 5.0, 500.0
slack = 5
points = 5000


class PastClock(SystemClock):
    """Begins fifteen minutes ago, and catches up a second with each step."""

    def __init__(self) -> None:
        self.behind_ms = points_kept * 1000

    def wall_ms(self) -> int:
        return super().wall_ms() - self.behind_ms

    def step(self) -> None:
        self.behind_ms -= 1000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With all of its past: nothing is longer at any later time."""
    clock = PastClock()
    with running_engine(tmp_path_factory.mktemp("pages"), clock=clock) as running:
        while clock.behind_ms:
            if clock.behind_ms % 10_000 == 0:
                running.send(60, poison=clock.behind_ms % 3, start=clock.behind_ms)
            clock.step()
            running.watch.turn()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


class Received:
    """What a page's requests brought, in bytes as they were sent; streams as far as they have come."""

    def __init__(self, visit: Visit) -> None:
        self.by_url: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        session = visit.context.new_cdp_session(visit.page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        session.on("Network.requestWillBeSent", self._sent)
        session.on("Network.responseReceived", lambda event: self._came(event, event["response"]["encodedDataLength"]))  # fmt: skip
        session.on("Network.dataReceived", lambda event: self._came(event, event["encodedDataLength"]))

    def _sent(self, event: dict[str, Any]) -> None:
        self._urls[event["requestId"]] = event["request"]["url"]

    def _came(self, event: dict[str, Any], length: int) -> None:
        url = self._urls[event["requestId"]]
        self.by_url[url] = self.by_url.get(url, 0) + length


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("path", ["/", "/records", "record", "/model", "/health", "/scaling"])
def test_a_page_takes_little_and_is_there_soon(
    path: str, locale: str, browser: Any, engine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    visit = Visit(browser, engine, locale=locale)
    if path == "record":
        found = visit.context.request.get(f"{engine.url}/api/v1/records?outcome=predicted").json()["records"][0]  # fmt: skip
        path = f"/records/{found['topic']}/{found['partition']}/{found['offset']}"
    received = Received(visit)
    began_s = time.monotonic()
    visit.page.goto(engine.url + path, wait_until="commit")
    visit.page.wait_for_selector("body[data-done]", timeout=15_000)
    took_s = time.monotonic() - began_s
    visit.page.wait_for_timeout(300)
    first = sum(received.by_url.values())
    told = f"{path} {locale}: {first:,} bytes of {len(received.by_url)} answers, {took_s:.2f} s to content"
    with capsys.disabled():
        print(f"\n  {told}", end="")
    assert any("/api/v1/" in url for url in received.by_url), received.by_url
    assert first <= page_bytes_max, received.by_url
    assert took_s < slack * content_s
    if path == "/":
        last = visit.page.evaluate("document.querySelector('.reader').getAttribute('aria-valuemax')")
        assert (
            points_kept - 10 <= int(last) < points_kept
        )  # all that is kept, or nearly: it is measured meanwhile
    visit.close()


features = 2000


def wide_record() -> dict[str, Any]:
    """A record of a model of so many features, with numbers that compress badly."""
    draw = np.random.default_rng(5)
    values, attributions = (
        draw.normal(size=features).tolist(),
        draw.normal(scale=0.01, size=features).tolist(),
    )
    names = [f"feature_{at}_{draw.integers(1 << 30):x}" for at in range(features)]
    document: dict[str, Any] = {
        "page": "record", "topic": "t", "partition": 3, "offset": 7, "timestamp_ms": 1_700_000_000_000, "at_ms": 1_700_000_000_100,
        "age_ms": 100, "worker": "w", "key": {"text": "k", "characters": 1, "masked": False}, "key_id": "k",
        "input": [{"field": name, "type": "number", "shown": {"text": str(value), "characters": len(str(value)), "masked": False}}
                  for name, value in zip(names[:500], values, strict=False)],
        "input_fault": "1500 more fields are not shown", "input_fault_said": as_told("1500 more fields are not shown"), "input_stops": None,
        "model": {"name": "m", "version": "1", "digest": "d"}, "times": [{"stage": "infer", "ms": 1.0}], "rows": 1,
        "outcome": "predicted", "label": None, "rejection": None,
        "features": [{"feature": name, "value": value, "model_value": value, "masked": False} for name, value in zip(names, values, strict=True)],
        "outputs": [{"output": "score", "names": ["score"], "values": [0.25 + sum(attributions)]}],
        "explanation": {
            "output": "score", "space": "value", "method": "tree_path_dependent", "background": None, "base_value": 0.25,
            "total": 0.25 + sum(attributions), "additivity_error": 1.5e-7,
            "attributions": [{"feature": name, "value": value, "attribution": amount, "masked": False}
                             for name, value, amount in zip(names, values, attributions, strict=True)],
        },
    }  # fmt: skip
    document["sentence"] = reasons_sentence(
        document["explanation"]["attributions"], output="score", base=0.25, total=document["explanation"]["total"], space="value"
    )  # fmt: skip
    return document


def wide_model() -> dict[str, Any]:
    names = [each["feature"] for each in wide_record()["features"]]
    return {
        "model": {"name": "m", "version": "1", "digest": "d", "device": "cpu", "runtime": "native", "runtime_reason": "model.runtime asks for it"},
        "features": [{"feature": name, "field": f"field.{name}", "kind": "number", "categories": 0, "missing": "nan", "sensitive": False} for name in names],
        "features_total": features, "columns": names, "outputs": [{"output": "score", "width": 1, "meaning": "value"}], "classes": [],
        "trees": None, "graph": None, "complete": True, "warmup": [{"rows": 1, "ms": 0.1}],
    }  # fmt: skip


def amounts(page: Any) -> list[float]:
    """The waterfall's, from the base to the total."""
    texts = page.eval_on_selector_all(".waterfall li .amount", "found => found.map(each => each.innerText)")
    return [float(each.replace("−", "-").replace("+", "").replace(",", "").strip("▲▼ ")) for each in texts]


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_thousands_of_features_take_no_more_and_add_up_the_same(
    locale: str, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as held:
        standing = StandingEngine(
            held, records=[wide_record()], described=wide_model(), model={"digest": "d"}
        )
        for path, rows in (
            ("/records/t/3/7", ".waterfall li"),
            ("/model", "tbody tr"),
            ("/records", "tbody tr"),
        ):
            visit = Visit(browser, standing, locale=locale)
            received = Received(visit)
            visit.page.goto(standing.url + path, wait_until="commit")
            visit.page.wait_for_selector(f"body[data-done] {rows}", timeout=15_000)
            visit.page.wait_for_timeout(600)
            first = sum(received.by_url.values())
            with capsys.disabled():
                print(f"\n  {path} of {features:,} features {locale}: {first:,} bytes", end="")
            assert first <= page_bytes_max, received.by_url
            page = visit.page
            if path == "/model":
                page.click("main > section:last-of-type button")
                page.wait_for_function(
                    f"() => document.querySelectorAll('main > section:last-of-type tbody tr').length === {features}"
                )
            if path.startswith("/records/"):
                some = amounts(page)
                residual = page.inner_text("section:has(.waterfall) > p.quiet")
                assert len(some) == 17  # base, fourteen, the others, total
                page.click("section:has(.waterfall) > button")
                page.wait_for_function(
                    f"() => document.querySelectorAll('.waterfall li').length === {features} + 2"
                )
                every = amounts(page)
                step = 10.0 ** -len(
                    str(some[1]).partition(".")[2]
                )  # the more rows, the more digits there may be
                assert np.allclose([*some[:15], some[-1]], [*every[:15], every[-1]], atol=1.5 * step, rtol=0)
                for each in (some, every):
                    assert round(sum(each[:-1]), 6) == each[-1]
                assert page.inner_text("section:has(.waterfall) > p.quiet") == residual
            visit.close()


redraws = """async ([points, times]) => {
  const { chart } = await import("/static/chart.js");
  const { patch } = await import("/static/dom.js");
  const place = document.createElement("div");
  document.body.append(place); // what is in the page itself it takes away;
  const at = Array.from({ length: points }, (_, each) => 1.7e12 + each * 1000);
  const draw = (turn) => patch(place, [chart({ id: "pace", title: "pace", sentence: "pace", times: at, marks: [],
    lines: [{ name: "one", values: at.map((_, each) => Math.sin((each + turn) / 50) + 1.5), className: "one" }] })]);
  draw(0);
  await new Promise((done) => setTimeout(done, 300));
  draw(0);
  const took = [];
  for (let turn = 1; turn <= times; turn += 1) {
    const began = performance.now();
    draw(turn);
    place.querySelector("path.line").getBoundingClientRect();
    took.push(performance.now() - began);
    await new Promise((done) => requestAnimationFrame(done));
  }
  const drawn = place.querySelector("path.line").getAttribute("d");
  const grid = place.querySelector("line.grid");
  place.remove();
  return [drawn, [grid.x1.baseVal.value, grid.x2.baseVal.value], took.sort((a, b) => a - b)];
}"""


def test_so_many_points_are_redrawn_within_a_frame(
    browser: Any, engine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    visit = Visit(browser, engine)
    page = visit.open("/")
    page.click("text=Pause")
    drawn, (left, right), took_ms = page.evaluate(redraws, [points, 60])
    shown = [tuple(map(float, each.split())) for each in drawn.lstrip("M").split("L")]
    # A picture's y is a line over the values, downwards. Coordinates have one decimal, so a corner may stand a little beside the curve, and
    # no more; each column of pixels has one, and each of the curve's turns too.
    x, y = np.array(shown).T
    curve = np.sin((np.arange(points) + 60) / 50) + 1.5
    places = left + (right - left) * np.arange(points) / (points - 1)
    scale, offset = np.polyfit(np.interp(x, places, curve), y, 1)
    assert scale < 0
    assert np.abs(np.interp(x, places, curve) * scale + offset - y).max() < 0.3
    assert {int(each) for each in places} - {int(each) for each in x} <= {int(right)}
    turns = [
        at for at in range(1, points - 1) if (curve[at] - curve[at - 1]) * (curve[at + 1] - curve[at]) < 0
    ]
    assert len(turns) > 30
    for at in turns:
        assert np.hypot(x - places[at], y - (curve[at] * scale + offset)).min() < 1.0
    with capsys.disabled():
        print(f"\n  {points:,} points redrawn in {took_ms[30]:.1f} ms, 95 % in {took_ms[57]:.1f} ms", end="")
    assert took_ms[30] < slack * redraw_ms
    visit.close()


watching = """ends => { window.seen = new Promise((done) => {
  const wanted = ends.map((end, partition) => `/records/payments/${partition}/${end}`);
  const look = () => wanted.some((each) => document.querySelector(`tbody a[href="${each}"]`)) && done(Date.now());
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true });
}); }"""


def test_what_happened_is_on_the_page_soon(
    browser: Any, engine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    visit = Visit(browser, engine)
    page = visit.open("/records")
    took_ms = []
    for turn in range(8):
        page.wait_for_timeout(600 + 37 * turn)  # at any phase of what looks four times a second
        ends = [engine.broker.high("payments", each) for each in range(3)]
        page.evaluate(watching, ends)
        sent_ms = time.time() * 1000
        engine.send(1, start=900_000 + turn)
        took_ms.append(page.evaluate("() => window.seen") - sent_ms)
    with capsys.disabled():
        print(f"\n  on the page after {sorted(round(each) for each in took_ms)} ms", end="")
    assert max(took_ms) < slack * change_ms
    visit.close()
