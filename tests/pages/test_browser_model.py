"""The page of the model in a browser: dependence as density, a network as a graph; both by keyboard, in both languages. `make test-pages`."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.pages.networks import package_network
from tests.pages.running import Running, running_engine
from tests.pages.visits import Visit, only_in_a_browser, started_browser, violations

pytestmark = only_in_a_browser
pictures = Path(__file__).parents[2] / "docs" / "figures" / "pages"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    with ExitStack() as held:
        made = {}
        for name in ("trees", "network"):
            folder = tmp_path_factory.mktemp(name)
            if name == "network":
                package_network(folder / "model")
            made[name] = held.enter_context(running_engine(folder))
            made[name].send(300)
            made[name].wait_for(300)
        yield made


def looked(browser: Any, engine: Running, **options: Any) -> Visit:
    visiting = Visit(browser, engine, **options, bypass_csp=True)
    visiting.open("/model")
    visiting.page.wait_for_selector("select.feature", timeout=20_000)
    return visiting


def sound(page: Any) -> None:
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    words = page.inner_text("body")
    assert "undefined" not in words
    assert "NaN" not in words


@pytest.mark.parametrize(
    ("locale", "width", "scheme", "word"),
    [
        ("en-GB", 1280, "light", "moves the score of the class 1 by"),
        ("zh-CN", 320, "dark", "平均影响类别 1 的得分"),
    ],
)
def test_a_dependence_is_drawn_said_and_put_in_a_table(
    locale: str, width: int, scheme: str, word: str, browser: Any, engines: dict[str, Running]
) -> None:
    options = {"viewport": {"width": width, "height": 900}, "locale": locale, "color_scheme": scheme}
    visiting = looked(browser, engines["trees"], **options)
    page = visiting.page
    page.select_option("select.feature", label="amount")
    page.focus("select.feature")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".density .field b", timeout=15_000)
    section = page.locator("section", has=page.locator(".density"))
    assert word in section.inner_text().replace("\u2068", "").replace("\u2069", "")
    section.locator("summary").click()
    rows = section.locator("tbody tr")
    columns = page.evaluate("document.querySelectorAll('.density .field > div').length")
    assert rows.count() == columns > 5  # the table has what the picture has
    marks = page.eval_on_selector_all(
        ".density .field > div span", "cells => cells.map(cell => Number(getComputedStyle(cell).opacity))"
    )
    assert len({round(each, 1) for each in marks}) >= 3  # density, not points
    sound(page)
    visiting.close()


def test_a_masked_feature_is_said_to_be_masked(browser: Any, engines: dict[str, Running]) -> None:
    visiting = looked(browser, engines["trees"])
    visiting.page.select_option("select.feature", label="limit_used")
    visiting.page.click("select.feature >> xpath=../../button")
    visiting.page.wait_for_selector("text=is masked", timeout=15_000)
    assert visiting.page.query_selector(".density") is None
    visiting.close()


@pytest.mark.parametrize(("locale", "width"), [("en-GB", 1280), ("zh-CN", 320)])
def test_a_network_is_drawn_and_put_in_a_table(
    locale: str, width: int, browser: Any, engines: dict[str, Running]
) -> None:
    options = {"viewport": {"width": width, "height": 900}, "locale": locale}
    visiting = looked(browser, engines["network"], **options)
    page = visiting.page
    page.wait_for_selector(".open-graph button", timeout=15_000)
    page.focus(".open-graph button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".drawing .box", timeout=15_000)
    found = page.request.get(f"{engines['network'].url}/api/v1/model/graph").json()
    section = page.locator("section", has=page.locator(".drawing"))
    section.locator("summary").click()
    assert section.locator("tbody tr").count() == len(found["nodes"])
    boxes = page.eval_on_selector_all(
        ".drawing .box", "all => all.map(each => each.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) >= len(found["nodes"]) + 1
    apart = {(round(each["x"]), round(each["y"])) for each in boxes}
    assert len(apart) == len(boxes)
    edges = sum(len(each["comes_from"]) + len(each["inputs"]) for each in found["nodes"])
    assert page.evaluate("document.querySelectorAll('.drawing .edge').length") >= edges
    sound(page)
    if "PENSTOCK_PICTURES" in os.environ and width > 640:
        section.screenshot(path=pictures / "graph.png")
    visiting.close()
