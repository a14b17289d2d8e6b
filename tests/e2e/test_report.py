"""The report page in a real browser: complete by itself, and to be used by mouse, keyboard and phone, in the dark."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from autophagy.config.expand import loops
from autophagy.config.sweep import parse_sweep
from autophagy.loop import run_loop
from autophagy.store import StageStore
from autophagy.sweeps.ledger import claim
from report import main

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUESTION = "Does LSF help at <any> keep ratio?"

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def sweep_store(local_ray, tiny_values, tmp_path_factory) -> Path:
    """Two strategies by two keep ratios by two seeds, all finished."""
    axes = {"selection.strategy": ["random", "lsf"], "keep_ratio": [1.0, 0.5]}
    base = tiny_values | {"metrics": {"feature_network": "pixels", "num_samples": 64}}  # no network to be fitted
    sweep = parse_sweep({"name": "grid", "question": QUESTION, "base": base, "axes": axes, "seeds": [0, 1]})
    path = tmp_path_factory.mktemp("report") / "store"
    store, planned = StageStore(path), loops(sweep)
    claim(sweep, planned, store)
    for loop in planned:
        run_loop(loop.experiment, store)
    return path


def written(store: Path, out: Path, *arguments: str) -> Path:
    """The page of a command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report.py", *arguments, "--store", str(store), "--out", str(out)])
        main()
    return out


@pytest.fixture(scope="module")
def page(sweep_store, tmp_path_factory) -> Path:
    return written(sweep_store, tmp_path_factory.mktemp("page") / "grid.html", "grid")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def opened(browser: webdriver.Chrome, page: Path, width: int = 1280, scheme: str = "light") -> webdriver.Chrome:
    """The page in a window of that width, drawn to its end."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what earlier pages left
    browser.get(page.as_uri())
    wait(browser, "return document.body.dataset.ready === 'yes'")
    return browser


def wait(browser: webdriver.Chrome, script: str, seconds: float = 60) -> None:
    """Until a script says yes."""
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def shown_generations(browser: webdriver.Chrome) -> set[str]:
    """Generations of the sample sheets that are to be seen."""
    images = browser.find_elements(By.CSS_SELECTOR, "#samples img[data-generation]")
    assert images
    return {str(image.get_attribute("data-generation")) for image in images if image.is_displayed()}


def curves(browser: webdriver.Chrome) -> int:
    """Lines that are drawn in the first plot."""
    return len(browser.find_elements(By.CSS_SELECTOR, "#curves .plot .scatterlayer .trace"))


def slider_of(browser: webdriver.Chrome) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, "#samples input[type=range]")


def test_the_page_is_complete_and_silent(browser, page):
    opened(browser, page)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith("data:")] == [page.as_uri()], "nothing but the page itself"
    assert page.stat().st_size < 8e6
    heading = browser.find_element(By.TAG_NAME, "h1").text
    assert heading == QUESTION, "angle brackets of a question are text"
    for section in ("answer", "curves", "heat-maps", "survival", "samples", "diagnostics", "quick-checks", "cost"):
        assert browser.find_element(By.ID, section).is_displayed(), section
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot")
    drawn = browser.find_elements(By.CSS_SELECTOR, ".plot .main-svg")
    assert len(plots) > 10
    assert len(drawn) >= len(plots)
    assert all(plot.get_attribute("aria-label") for plot in plots)
    images = browser.find_elements(By.TAG_NAME, "img")
    assert all(image.get_attribute("alt") for image in images)
    assert browser.execute_script("return [...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def test_the_answer_is_no_more_than_the_tests_carry(browser, page):
    opened(browser, page)
    answer = browser.find_element(By.CSS_SELECTOR, ".answer").text
    rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#answer tbody tr")]
    assert len(rows) == 4
    assert sum("baseline" in row for row in rows) == 2, "random at each keep ratio"
    decided = [row for row in rows if "baseline" not in row and "not decisive" not in row]
    assert answer.startswith("Not decisive") == (not decided)
    assert all(f'"{arm}"' in answer for arm in ("lsf, 1.0", "lsf, 0.5") if any(row.startswith(arm) for row in decided))


def test_the_slider_moves_the_images_by_keyboard(browser, page):
    opened(browser, page)
    assert shown_generations(browser) == {"2"}
    slider = slider_of(browser)
    slider.send_keys(Keys.ARROW_LEFT)
    assert shown_generations(browser) == {"1"}
    slider.send_keys(Keys.HOME)
    assert shown_generations(browser) == {"0"}
    assert browser.find_element(By.CSS_SELECTOR, "#samples output").text == "generation 0"
    slider.send_keys(Keys.END)
    assert shown_generations(browser) == {"2"}


def test_the_slider_moves_by_mouse_and_plays(browser, page):
    opened(browser, page)
    slider = slider_of(browser)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    webdriver.ActionChains(browser).move_to_element_with_offset(
        slider, -slider.size["width"] // 2 + 4, 0
    ).click().perform()
    assert shown_generations(browser) == {"0"}
    browser.find_element(By.CSS_SELECTOR, "#samples button").click()
    wait(browser, "return document.querySelector('#samples input').value === '2'")
    assert shown_generations(browser) == {"2"}


def test_a_slider_shows_one_generation_of_latents(browser, page):
    opened(browser, page)
    clouds = "#quick-checks .generations .plot:first-of-type"
    browser.find_element(By.CSS_SELECTOR, "#quick-checks input[type=range]").send_keys(Keys.HOME)
    script = f"return document.querySelector('{clouds}').data.filter((t) => t.visible).map((t) => t.meta.generation)"
    assert browser.execute_script(script) == [-1, 0], "real, and generation 0"


def test_a_click_in_the_legend_hides_a_curve_and_brings_it_back(browser, page):
    opened(browser, page)
    before = curves(browser)
    button = browser.find_element(By.CSS_SELECTOR, ".legend button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert curves(browser) < before
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    assert curves(browser) == before


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, page):
    opened(browser, page, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, pre, svg, .plot')"
        " && e.getBoundingClientRect().right > 391).map((e) => e.tagName + '.' + e.className)"
    )
    assert wide == []


def test_in_the_dark_the_page_and_its_plots_are_dark(browser, page):
    def looks() -> tuple[str, str, str]:
        script = (
            "const css = (q, n) => getComputedStyle(document.querySelector(q))[n];"
            "return [css('body', 'backgroundColor'), css('body', 'color'), css('#curves .xtick text', 'fill')]"
        )
        return tuple(browser.execute_script(script))

    opened(browser, page)
    light = looks()
    dark_media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark_media)  # while the page is open
    wait(browser, f"return getComputedStyle(document.querySelector('#curves .xtick text')).fill !== '{light[2]}'")
    assert all(a != b for a, b in zip(light, looks(), strict=True))
    background = [int(part) for part in looks()[0].removeprefix("rgb(").removesuffix(")").split(",")]
    assert max(background) < 60


@pytest.mark.parametrize("names", [["grid-random-1.0-seed0"], ["grid-random-1.0-seed0", "grid-lsf-0.5-seed1"]])
def test_one_loop_and_loops_without_a_sweep(browser, sweep_store, tmp_path, names):
    page = written(sweep_store, tmp_path / "loops.html", *names)
    opened(browser, page)
    assert browser.get_log("browser") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, "#answer tbody tr")) == len(names)
    assert not browser.find_elements(By.ID, "heat-maps")
    assert names[0] in browser.find_element(By.ID, "reproduce").text


def test_ole_at_further_timesteps(browser, sweep_store, tmp_path):
    page = written(sweep_store, tmp_path / "timesteps.html", "grid-lsf-1.0-seed0", "--timesteps", "10", "400")
    opened(browser, page)
    script = "return document.querySelector('[data-figure=ole-0]').data.length"
    assert browser.execute_script(script) == 2, "a line for each timestep"


def test_a_name_that_is_not_there_is_one_line(sweep_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["report.py", "nothing", "--store", str(sweep_store), "--out", str(tmp_path / "x")]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: run = nothing")
    assert error.count("\n") == 1
