"""One journey through the pages by Selenium on Debian's Chromium, for who drives browsers by it. `make test-pages`."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pages.running import Running, running_engine
from tests.pages.visits import only_in_a_browser

pytestmark = only_in_a_browser


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    chromium, driving = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driving, (  # noqa: PT018  # one cure for both
        "this journey needs a browser and its driver: apt-get install chromium chromium-driver"
    )
    options = Options()
    options.binary_location = chromium
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--lang=en-GB", f"--user-data-dir={tmp_path}/profile"):  # fmt: skip
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driving))
    try:
        yield started
    finally:
        started.quit()


def _shows(page: str, driver: Any) -> bool:
    return bool(driver.find_element("tag name", "body").get_attribute("data-done") == page)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Running]:
    with running_engine(tmp_path) as running:
        yield running


def test_from_the_flow_to_the_reasons_of_one_record(driver: Any, engine: Running) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(driver, 20)
    engine.send(200, poison=2)
    engine.wait_for(200)
    driver.get(f"{engine.url}/")
    wait.until(lambda it: it.find_element(By.TAG_NAME, "body").get_attribute("data-done") == "flow")
    assert driver.title == "Flow — Penstock"
    engine.send(50, start=9000)
    driver.find_element(By.LINK_TEXT, "Records").click()
    wait.until(lambda it: len(it.find_elements(By.CSS_SELECTOR, "tbody th a, tbody td a")) > 1)
    driver.get(f"{engine.url}/records")
    wait.until(lambda it: len(it.find_elements(By.CSS_SELECTOR, "tbody a")) > 1)
    place = driver.find_element(By.CSS_SELECTOR, "tbody a").get_attribute("href")
    driver.get(place)
    wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, ".waterfall li, .stops, .facts"))
    assert driver.current_url == place  # a permanent link
    for name in ("Model", "Health", "Scaling"):
        driver.find_element(By.LINK_TEXT, name).click()
        wait.until(partial(_shows, name.lower()))
    assert [each for each in driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")] == []
