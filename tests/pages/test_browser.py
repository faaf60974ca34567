"""The pages in a browser: what is on them, by keyboard, in both languages, under the policy; with screenshots for docs/pages.md.

Run by `make test-pages`, which needs Debian's chromium, the package playwright and axe-core's file; a browser that is missing
is a failure there.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.clock import SystemClock
from penstock.schemas.reasons import Reason
from tests.pages.guarded import guarded_engine, operator
from tests.pages.running import Running, running_engine
from tests.pages.standing import StandingEngine
from tests.pages.visits import Visit, only_in_a_browser, started_browser, violations

pytestmark = only_in_a_browser
pictures = Path(__file__).parents[2] / "docs" / "figures" / "pages"
texts_small_px = 12


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_engine(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture
def visit(browser: Any, engine: Running) -> Iterator[Visit]:
    visiting = Visit(browser, engine)
    yield visiting
    visiting.close()


def a_record(visiting: Visit, outcome: str = "predicted") -> str:
    found = visiting.context.request.get(f"{visiting.engine.url}/api/v1/records?outcome={outcome}").json()[
        "records"
    ]
    assert found
    return f"/records/{found[0]['topic']}/{found[0]['partition']}/{found[0]['offset']}"


all_paths = [
    "/",
    "/records",
    "record",
    "rejected",
    "/model",
    "/health",
    "/scaling",
    "/records/payments/1/99999999",
]


def path_of(visiting: Visit, name: str) -> str:
    if name.startswith("/"):
        return name
    visiting.open("/records")
    visiting.page.wait_for_function("document.querySelectorAll('tbody tr').length > 1", timeout=15_000)
    return a_record(visiting, "rejected" if name == "rejected" else "predicted")


@pytest.mark.parametrize("name", all_paths)
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("width", [320, 1280])
def test_every_page_can_be_used_by_everyone(
    name: str, locale: str, width: int, browser: Any, engine: Running
) -> None:
    """axe-core finds nothing in the light and in the dark; nothing is smaller than 12 px, nothing sticks out, nothing is untranslated."""
    options = {"viewport": {"width": width, "height": 900}, "locale": locale, "color_scheme": "light"}
    visiting = Visit(browser, engine, **options, bypass_csp=True)
    page = visiting.open(path_of(visiting, name))
    faults = [each for each in visiting.faults if "404" in each]
    assert len(faults) <= (
        name == all_paths[-1]
    )  # a record that is not held is a 404, and the browser says so
    visiting.faults = [each for each in visiting.faults if each not in faults]
    assert violations(page) == []
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "light => getComputedStyle(document.documentElement).backgroundColor !== light", arg=light
    )
    assert violations(page) == []
    small = page.evaluate(
        """limit => [...document.querySelectorAll("body *")].filter(node => [...node.childNodes].some(each => each.nodeType === 3
            && each.data.trim()) && parseFloat(getComputedStyle(node).fontSize) < limit).map(node => node.outerHTML.slice(0, 100))""",
        texts_small_px,
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.documentElement.lang") == ("zh-CN" if locale == "zh-CN" else "en")
    words = page.inner_text("body")
    assert "NaN" not in words.replace("NaN\n", "")
    assert not re.search(r"undefined|\[object|\{[a-z_]+\}", words)
    visiting.close()


def test_a_visit_that_touches_everything_breaks_no_rule(visit: Visit) -> None:
    record = path_of(visit, "record")
    for path in ("/", "/records", record, "/model", "/health", "/scaling"):
        page = visit.open(path)
        for summary in page.query_selector_all("summary"):
            summary.click()
        for button in page.query_selector_all("main button"):
            button.click()
        for field in page.query_selector_all("main input[type=search]"):
            field.fill("<b>hour</b>")
            field.fill("")
        for plot in page.query_selector_all(".plot svg"):
            plot.hover(position={"x": 120, "y": 40}, force=True)
        for each in ("dark", "light", "auto"):
            page.select_option("header select >> nth=1", each)
        for language in ("zh", "en"):
            page.select_option("header select >> nth=0", language)
            page.wait_for_timeout(150)
        page.wait_for_timeout(300)
    page = visit.open("/model")
    page.wait_for_selector(".open-tree button")
    page.click(".open-tree button")
    page.wait_for_selector(".tree .leaf")
    assert "≤" in page.inner_text(".tree")


def test_everything_is_done_by_keyboard(visit: Visit) -> None:
    page = visit.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
            )
        )
        if page.evaluate("document.activeElement.className") == "reader":
            break
    assert {"Flow", "Records", "Model", "Health", "Scaling", "Pause"} <= set(names)
    page.wait_for_timeout(2500)
    before = page.evaluate("document.activeElement.getAttribute('aria-valuenow')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    assert (
        page.evaluate("document.activeElement.className") == "reader"
    )  # redrawn meanwhile, and still where it was
    assert (
        int(page.evaluate("document.activeElement.getAttribute('aria-valuenow')")) != int(before)
        or before == "0"
    )


def reach(page: Any, selector: str) -> None:
    """By the Tab key alone."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    pytest.fail(f"{selector} cannot be reached by keyboard")


def test_every_choice_is_made_by_keyboard(visit: Visit) -> None:
    page = visit.open("/")
    reach(page, "header button")
    page.keyboard.press("Enter")
    page.wait_for_selector("header button[aria-pressed=true]")
    page.keyboard.press("Space")
    page.wait_for_selector("header button[aria-pressed=false]")
    reach(page, "header select")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("html[lang=zh-CN]")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector("html[lang=en]")
    reach(page, "header select")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("html[data-theme=light]")
    reach(page, "main summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("main details[open] table")


def test_a_record_and_a_model_are_looked_into_by_keyboard(visit: Visit) -> None:
    page = visit.open("/records")
    reach(page, "main input[type=radio]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "() => [...document.querySelectorAll('tbody tr')].every(each => each.querySelector('.bad'))"
    )
    page.keyboard.press("ArrowLeft")
    reach(page, "main input[type=search]")
    page.keyboard.type("hour")
    page.wait_for_function(
        "() => [...document.querySelectorAll('tbody tr')].every(each => each.innerText.includes('hour'))"
    )
    reach(page, "tbody a")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-done=record] .waterfall li")
    page = visit.open("/model")
    page.wait_for_selector(".feature")
    reach(page, "select.feature")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".density .field")
    reach(page, ".open-tree input")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tree .leaf")
    assert "1" in page.inner_text("section:has(.open-tree) .quiet")


def test_in_forced_colours_every_sign_and_bar_is_there(browser: Any, engine: Running) -> None:
    visiting = Visit(browser, engine, forced_colors="active", bypass_csp=True)
    page = visiting.open(path_of(visiting, "record"))
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    ground = "node => { while (node && ['rgba(0, 0, 0, 0)', ''].includes(getComputedStyle(node).backgroundColor)) node = node.parentElement; return node ? getComputedStyle(node).backgroundColor : 'rgb(255, 255, 255)'; }"
    steps = page.query_selector_all(".waterfall .up .step, .waterfall .down .step")
    assert steps
    for step in steps:
        assert page.evaluate(ground, step) != page.evaluate(f"node => ({ground})(node.parentElement)", step)
    assert {each.inner_text()[:3] for each in page.query_selector_all(".waterfall .up .amount, .waterfall .down .amount")} <= {"▲ +", "▼ −"}  # fmt: skip
    assert violations(page) == []
    for path, bars in (("/", ".bar > span"), ("/model", ".histogram span")):
        page = visiting.open(path)
        page.wait_for_selector(bars, state="attached")
        bar = page.query_selector(bars)
        assert page.evaluate(ground, bar) != page.evaluate(f"node => ({ground})(node.parentElement)", bar)
        assert violations(page) == []
    visiting.close()


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_on_a_wide_screen_nothing_is_lost_at_its_edges(locale: str, browser: Any, engine: Running) -> None:
    visiting = Visit(browser, engine, viewport={"width": 3840, "height": 2160}, locale=locale)
    for name in ("/", "/records", "record", "/model", "/health", "/scaling"):
        page = visiting.open(path_of(visiting, name))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)") >= 18
        assert page.evaluate("document.querySelector('main').getBoundingClientRect().width") >= 2000
    visiting.close()


def test_what_moves_can_be_paused(visit: Visit) -> None:
    page = visit.open("/")
    page.click("text=Pause")
    shown = page.inner_text(".figures")
    visit.engine.send(50, start=99_000)
    page.wait_for_timeout(1200)
    assert page.inner_text(".figures") == shown
    page.click("text=Resume")
    page.wait_for_function(
        "text => document.querySelector('.figures').innerText !== text", arg=shown, timeout=10_000
    )


def test_focus_stays_on_a_record_while_newer_ones_come(visit: Visit) -> None:
    page = visit.open("/records")
    page.wait_for_selector("tbody a")
    page.focus("tbody tr:nth-child(2) a")
    focused = page.evaluate("document.activeElement.href")
    for start in (1, 2, 3):
        visit.engine.send(20, start=200_000 + start * 1000)
        page.wait_for_timeout(500)
    assert page.evaluate("document.activeElement.href") == focused
    assert page.evaluate("document.querySelector('tbody tr:nth-child(2) a').href") != focused


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", "").replace(",", "").strip("▲▼ "))


def test_the_waterfalls_rows_add_up_to_the_last_digit_and_say_their_sign_in_words(visit: Visit) -> None:
    path_of(visit, "record")
    found = visit.context.request.get(f"{visit.engine.url}/api/v1/records?outcome=predicted").json()[
        "records"
    ]
    for each in found[:5]:
        page = visit.open(f"/records/{each['topic']}/{each['partition']}/{each['offset']}")
        amounts = page.eval_on_selector_all(
            ".waterfall li",
            "rows => rows.map(row => [row.className, row.querySelector('.amount').innerText, row.querySelector('.word').innerText])",
        )
        digits = len(amounts[-1][1].partition(".")[2])
        steps = [number(text) for _, text, _ in amounts[:-1]]
        assert round(sum(steps), digits) == number(amounts[-1][1])
        for kind, text, word in amounts[1:-1]:
            assert (kind, text[0], word) in (("up", "▲", "raised"), ("down", "▼", "lowered"))
            assert number(text) >= 0 if kind == "up" else number(text) <= 0
        told = page.inner_text(".lead .limit")
        for _, text, _ in (amounts[0], *amounts[1:-1][:3], amounts[-1]):
            assert text.lstrip("▲▼ +−") in told, told  # the sentence has the rows' own digits


deficiencies = ["achromatopsia", "deuteranopia", "protanopia", "tritanopia"]
contrast_min = 4.5
"""WCAG's, of text."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sign_is_readable_in_grey_and_in_every_colour_blindness(
    scheme: str, browser: Any, engine: Running
) -> None:
    """The text says which way each feature moved the score, and the picture of that text keeps its contrast."""
    visiting = Visit(browser, engine, color_scheme=scheme)
    page = visiting.open(path_of(visiting, "record"))
    page.focus(".trial form button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".trial input[inputmode=decimal]", timeout=30_000)
    page.fill(".trial input[inputmode=decimal]", "950.5")
    page.keyboard.press("Enter")
    page.wait_for_selector(".trial td .reason", timeout=15_000)
    rows = page.query_selector_all(".waterfall .up, .waterfall .down")
    shapes = {}
    for row in rows:
        kind, text = row.get_attribute("class"), row.query_selector(".amount").inner_text()
        assert (text[:3], row.query_selector(".word").inner_text()) == {
            "up": ("▲ +", "raised"), "down": ("▼ −", "lowered"),
        }[kind]  # fmt: skip
        shapes[kind] = page.evaluate("node => getComputedStyle(node).clipPath", row.query_selector(".step"))
    assert len(set(shapes.values())) == len(shapes)
    changed = page.query_selector_all(".trial td .reason")
    assert {each.inner_text()[:3] for each in changed} <= {"▲ +", "▼ −"}
    session = visiting.context.new_cdp_session(page)
    for deficiency in deficiencies:
        session.send("Emulation.setEmulatedVisionDeficiency", {"type": deficiency})
        page.wait_for_timeout(100)
        seen = [row.query_selector(".amount") for row in rows] + [row.query_selector(".word") for row in rows]
        for each in [*seen[:8], *changed[:4]]:
            assert contrast(each.screenshot()) >= contrast_min, (deficiency, each.inner_text())
    visiting.close()


def contrast(picture: bytes) -> float:
    """WCAG's ratio between the ground of a picture, its commonest colour, and what stands out of it most."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=np.float64).reshape(-1, 3) / 255
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    light = linear @ (0.2126, 0.7152, 0.0722)
    values, counts = np.unique(light.round(4), return_counts=True)
    ground = values[counts.argmax()]
    most = light[np.abs(light - ground).argmax()]
    return float((max(ground, most) + 0.05) / (min(ground, most) + 0.05))


def test_hostile_text_is_text(visit: Visit) -> None:
    found = path_of(visit, "record")
    held = visit.context.request.get(f"{visit.engine.url}/api/v1/records?outcome=predicted").json()["records"]
    for each in held:
        path = f"/records/{each['topic']}/{each['partition']}/{each['offset']}"
        document = visit.context.request.get(f"{visit.engine.url}/api/v1{path}").json()
        if any((one["shown"]["text"] or "").startswith("<img") for one in document["input"]):
            found = path
            break
    page = visit.open(found)
    assert "<img src=x onerror=alert(1)>" in page.inner_text("main")
    assert page.query_selector_all("img") == []
    assert "\u202e" not in page.inner_text("main")


@pytest.mark.parametrize(
    ("locale", "width", "words"),
    [("en-GB", 1280, ("instead of", "ms, by")), ("zh-CN", 320, ("而非", "毫秒"))],
)
def test_a_value_is_tried_by_keyboard_and_what_it_changes_is_said(
    locale: str, width: int, words: tuple[str, ...], browser: Any, engine: Running
) -> None:
    options = {"viewport": {"width": width, "height": 1000}, "locale": locale}
    visiting = Visit(browser, engine, **options, bypass_csp=True)
    page = visiting.open(path_of(visiting, "record"))
    page.focus(".trial form button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".trial select", timeout=30_000)
    page.focus(".trial input[inputmode=decimal]")
    page.keyboard.type("950.5")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.trial table').length > 1", timeout=15_000)
    page.wait_for_timeout(400)
    text = page.inner_text(".trial").replace("\u2068", "").replace("\u2069", "")
    assert [each for each in words if each not in text] == [], text
    assert re.search("rises by|falls by|上升|下降", text)
    rows = page.eval_on_selector_all(
        ".trial tbody tr", "rows => rows.map(row => [...row.cells].map(each => each.innerText))"
    )
    assert {name for name, *_ in rows} >= {"amount", "hour"}
    for _, before, after, difference in rows:
        assert difference[:3] in ("▲ +", "▼ −") or difference == "0"
        assert number(after) - number(before) == pytest.approx(number(difference), rel=0.05, abs=6e-3)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if "PENSTOCK_PICTURES" in os.environ and width > 640:
        page.locator(".trial").screenshot(path=pictures / "trial.png")
    visiting.close()


@pytest.mark.parametrize(
    ("locale", "width", "words"),
    [
        ("en-GB", 1280, ("2 of 3 letters would be put back (", "2 were put back")),
        ("zh-CN", 320, ("3 封死信中有 2 封会被投放", "已投放 2 条")),
    ],
)
def test_dead_letters_are_put_back_by_keyboard_after_a_look(
    locale: str, width: int, words: tuple[str, ...], browser: Any, tmp_path: Path
) -> None:
    with guarded_engine(tmp_path) as guarded:
        for offset, reason in enumerate((Reason.CORRUPT, Reason.CORRUPT, Reason.NO_KEY)):
            guarded.letters.add(offset, reason)
        options = {"viewport": {"width": width, "height": 1000}, "locale": locale}
        visiting = Visit(browser, guarded.engine, **options, bypass_csp=True)
        page = visiting.open("/health")
        page.focus(".replay select")
        page.select_option(".replay select", "corrupt")
        page.focus(".replay button")
        page.keyboard.press("Enter")
        page.wait_for_selector(".replay .answer p", timeout=15_000)  # no token yet
        visiting.faults = [each for each in visiting.faults if "401" not in each]
        assert guarded.letters.returns.put_back == []
        page.focus(".replay input[type=password]")
        page.keyboard.type(operator)
        page.keyboard.press("Enter")
        told = [told_by(page, word) for word in words[:1]]
        assert guarded.letters.returns.put_back == []
        assert violations(page) == []
        if "PENSTOCK_PICTURES" in os.environ and width > 640:
            page.locator(".replay").screenshot(path=pictures / "replay.png")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        told += [told_by(page, word) for word in words[1:]]
        assert len(told) == 2
        assert len(guarded.letters.returns.put_back) == 2
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert operator not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
        visiting.close()


def told_by(page: Any, word: str) -> str:
    page.wait_for_function(
        "word => document.querySelector('.replay .answer').innerText.replace(/[\u2068\u2069]/g, '').includes(word)",
        arg=word, timeout=15_000,
    )  # fmt: skip
    return word


def test_the_engine_gone_is_told_and_the_last_that_was_heard_stays(browser: Any, tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        visiting = Visit(browser, engine)
        page = visiting.open("/")
        assert page.inner_text(".pulse").strip().endswith("Live")
    page.wait_for_selector("[role=alert]", timeout=15_000)
    assert page.inner_text(".figures")
    visiting.faults.clear()
    visiting.close()


class HurriedClock(SystemClock):
    """A second is twenty: a sample of the hints is due with each look."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() * 20


@pytest.mark.parametrize(
    ("locale", "width", "words"),
    [
        ("en-GB", 320, ("older than scaling.max_age_s allows", "transaction stays open", "partition 3")),
        ("zh-CN", 1280, ("已超过 scaling.max_age_s", "事务一直未结束", "分区 3")),
    ],
)
def test_the_forecast_and_its_cause_are_on_the_flow_page(
    locale: str, width: int, words: tuple[str, ...], browser: Any
) -> None:
    with ExitStack() as held:
        standing = StandingEngine(held, clock=HurriedClock())
        options = {"viewport": {"width": width, "height": 900}, "locale": locale}
        visiting = Visit(browser, standing, **options, bypass_csp=True)
        page = visiting.open("/")
        page.wait_for_selector(".hints li", timeout=15_000)
        page.wait_for_timeout(400)
        text = page.inner_text("main").replace("\u2068", "").replace("\u2069", "")
        assert [each for each in (*words, "penstock lag penstock.yaml") if each not in text] == []
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        visiting.close()


@pytest.mark.skipif(
    "PENSTOCK_PICTURES" not in os.environ, reason="make test-pages writes the pictures with PICTURES=1"
)
def test_the_pictures_of_the_documentation(browser: Any, engine: Running) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    visiting = Visit(browser, engine, viewport={"width": 1100, "height": 1060})
    for start in range(24):
        engine.send(300, poison=start % 3, start=300_000 + start * 1000)
        visiting.page.wait_for_timeout(450)
    for name in ("/", "record", "/health", "/model"):
        page = visiting.open(path_of(visiting, name))
        page.wait_for_timeout(1500)
        page.screenshot(path=pictures / f"{name.strip('/') or 'flow'}.png")
    visiting.close()
