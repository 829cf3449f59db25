"""The report as a reader meets it, in a real browser: hovering, filtering, and text that must stay text."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from test_report import POISON, STEPS, build_rubric_run, build_run, episode_row, small_recipe

from ludus.report import write_report
from ludus.run_folder import RunFolder

pytestmark = pytest.mark.browser

ARGUMENTS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --window-size=1280,1000"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        reason = "Chromium and chromedriver are not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS.split():
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build_run(tmp_path_factory.mktemp("runs") / "wordmath-1"))


@pytest.fixture
def page(browser: webdriver.Chrome, report: Path) -> Iterator[webdriver.Chrome]:
    browser.get(report.as_uri())
    yield browser
    assert browser.get_log("browser") == [], "the console must stay silent"


def find(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def tip(page: webdriver.Chrome) -> dict[str, str]:
    box = find(page, "#tip")
    assert box.is_displayed()
    terms = [node.text for node in box.find_elements(By.TAG_NAME, "dt")]
    values = [node.text for node in box.find_elements(By.TAG_NAME, "dd")]
    return {"head": box.find_element(By.TAG_NAME, "b").text, **dict(zip(terms, values, strict=True))}


def choose(page: webdriver.Chrome, name: str, value: str) -> list[str]:
    """The outcomes in the list after a filter was set."""
    Select(find(page, f"#filter-{name}")).select_by_value(value)
    return [node.text for node in page.find_elements(By.CSS_SELECTOR, "#list .outcome")]


def hover(page: webdriver.Chrome, node: WebElement, x: int = 0) -> None:
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
    ActionChains(page).move_to_element_with_offset(node, x, 0).perform()


def test_hovering_a_curve_shows_the_values_of_every_line(page: webdriver.Chrome) -> None:
    chart = find(page, "#accuracy .wide svg.chart")
    hover(page, chart, x=int(chart.size["width"] / 2) - 20)
    shown = tip(page)
    assert shown["head"] == "policy step 300"
    assert shown["ludus/WordMath-v0"] == "94.0% [89.8%, 96.5%]"
    assert shown[STEPS].startswith("91.5%")
    assert len(chart.find_elements(By.CSS_SELECTOR, ".cursor circle")) == 2


def test_every_curve_is_drawn(page: webdriver.Chrome) -> None:
    charts = page.find_elements(By.CSS_SELECTOR, ".grid figure")
    titles = [chart.find_element(By.TAG_NAME, "h3").text for chart in charts if chart.is_displayed()]
    assert titles[:4] == ["Training reward", "Entropy", "KL to the sampler", "Completion length"]
    for chart in charts[:6]:
        line = chart.find_element(By.CSS_SELECTOR, "path.line")
        assert line.size["width"] > 100 and line.size["height"] > 10


def test_hovering_a_sampled_token_shows_all_that_training_knows_of_it(page: webdriver.Chrome) -> None:
    choose(page, "at", "policy, step 300")
    sampled = page.find_elements(By.CSS_SELECTOR, ".token.sampled")
    hover(page, sampled[0])
    shown = tip(page)
    assert shown["head"] == '"<calculator>"'
    assert shown["mask"] == "true: sampled by the policy"
    assert shown["token id"] == str(ord("<") + len("<calculator>"))
    assert float(shown["log-probability"]) < 0
    assert float(shown["advantage"]) != 0
    gradient, _, way = shown["gradient"].partition(": ")
    assert float(gradient) * float(shown["advantage"]) < 0 and way == (
        "likelier" if float(gradient) < 0 else "less likely"
    )
    assert float(shown["weight in the loss"]) == 0.01 and float(shown["ratio"]) == 1.5
    assert shown.get("clipped") == ("at the upper bound" if float(shown["advantage"]) > 0 else None)
    assert "KL term" not in shown and "correction" not in shown
    assert shown["policy version"] in ("40", "41")


def test_hovering_a_given_token_says_that_the_policy_did_not_sample_it(page: webdriver.Chrome) -> None:
    hover(page, find(page, ".token:not(.sampled)"))
    shown = tip(page)
    assert shown["mask"] == "false: given to the policy"
    assert "log-probability" not in shown and "advantage" not in shown


def test_arrow_keys_walk_over_the_tokens(page: webdriver.Chrome) -> None:
    box = find(page, ".tokens")
    page.execute_script("arguments[0].focus()", box)
    box.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert tip(page)["position"] == "1"
    box.send_keys(Keys.ARROW_LEFT)
    assert tip(page)["position"] == "0"


def test_tokens_take_their_colour_from_the_advantage_or_the_surprise(page: webdriver.Chrome) -> None:
    def background() -> str:
        return find(page, ".token.sampled").value_of_css_property("background-color")

    choose(page, "outcome", "correct")
    raised = background()
    choose(page, "outcome", "wrong")
    lowered = background()
    Select(find(page, "#colour-by")).select_by_visible_text("surprise")
    assert len({raised, lowered, background()}) == 3
    assert find(page, ".token:not(.sampled)").value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"


def test_the_reward_stands_at_the_token_that_earned_it(page: webdriver.Chrome) -> None:
    choose(page, "outcome", "correct")
    before = page.execute_script("return document.querySelector('.paid').previousSibling.textContent")
    assert (find(page, ".paid").text, before) == ("reward +1", "<|end|>")


def test_filters_narrow_the_list_and_can_be_joined(page: webdriver.Chrome) -> None:
    everything = choose(page, "at", "")
    assert len(everything) == 60
    wrong = choose(page, "outcome", "wrong")
    assert set(wrong) == {"wrong"} and len(wrong) == everything.count("wrong")
    of_step = choose(page, "at", "policy, step 100")
    assert 0 < len(of_step) < len(wrong)
    of_env = choose(page, "env", STEPS)
    assert 0 < len(of_env) < len(of_step)
    assert find(page, "#count").text == f"{len(of_env)} of 60 episodes"
    find(page, "#filter-text").send_keys("no such words")
    assert find(page, "#episode").text == "No episode passes these filters."


def test_a_group_can_be_walked_through(page: webdriver.Chrome) -> None:
    mates = page.find_elements(By.CSS_SELECTOR, ".mates button")
    assert len(mates) == 8
    mates[5].click()
    current = page.find_elements(By.CSS_SELECTOR, ".mates button[aria-current=true]")
    assert len(current) == 1 and page.find_elements(By.CSS_SELECTOR, ".mates button")[5] == current[0]


def test_turns_show_roles_and_tool_calls(page: webdriver.Chrome) -> None:
    roles = [node.text for node in page.find_elements(By.CSS_SELECTOR, ".turn .role")]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert find(page, ".turn-assistant .call").text.startswith("<calculator>")


def test_a_response_that_is_markup_and_script_stays_text(page: webdriver.Chrome) -> None:
    choose(page, "at", "eval, final")
    find(page, "#filter-text").send_keys("poisoned")
    (only,) = page.find_elements(By.CSS_SELECTOR, "#list button")
    only.click()
    assert POISON in find(page, "#episode").text
    assert page.execute_script("return window.poisoned") is None
    assert page.find_elements(By.CSS_SELECTOR, "img") == []
    tokens = page.execute_script("return [...document.querySelectorAll('.token')].map((t) => t.textContent).join('')")
    assert POISON in tokens


def test_an_evaluation_episode_says_that_it_has_no_advantage(page: webdriver.Chrome) -> None:
    choose(page, "at", "eval, final")
    hover(page, find(page, ".token.sampled"))
    assert tip(page)["advantage"] == "not a training episode"


def cells(page: webdriver.Chrome) -> list[list[str]]:
    """The text of an episode's table of parts, row by row."""
    rows = page.find_elements(By.CSS_SELECTOR, "#episode .parts tr")
    return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]


@pytest.fixture
def rubric_page(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    browser.get(write_report(build_rubric_run(tmp_path / "run")).as_uri())
    yield browser
    assert browser.get_log("browser") == [], "the console must stay silent"


def test_an_episode_shows_what_each_part_of_its_verdict_said(rubric_page: webdriver.Chrome) -> None:
    assert cells(rubric_page) == [
        ["verdict of", "outcome", "value", "reason"],
        ["format", "correct", "1", "The number is right."],
        ["answer", "correct", "1", "The number is right."],
        ["style", "correct", "0.2", "polite +0.2"],
        ["polite", "correct", "1", "It thanks."],
        ["length", "correct", "1", "4 is at most 6."],
        ["measured", "partial", "4", "4 words"],
    ]
    names = [node.rect["x"] + node.rect["width"] for node in rubric_page.find_elements(By.CSS_SELECTOR, ".parts tr th")]
    assert len(set(names[4:])) == 1, "one column"
    indents = rubric_page.execute_script(
        "return [...document.querySelectorAll('.parts tbody th')].map((th) => parseFloat(th.style.paddingLeft) || 0)"
    )
    assert indents == [0, 0, 0, 1.2, 1.2, 2.4]
    assert "style/length/charge -0.25" in find(rubric_page, ".facts").text
    find(rubric_page, "#episode summary").click()
    assert '"extracted": "18"' in find(rubric_page, "#episode pre").text


def test_parts_that_were_not_asked_lost_or_full_of_markup_are_told_as_text(rubric_page: webdriver.Chrome) -> None:
    def of_episode(number: int) -> dict[str, list[str]]:
        rubric_page.find_elements(By.CSS_SELECTOR, "#list button")[number].click()
        return {row[0]: row[1:] for row in cells(rubric_page)}

    assert of_episode(2)["style"] == ["not asked", "–", ""]
    assert of_episode(3)["polite"] == ["error", "–", "the grader is gone"]
    outcome, value, reason = of_episode(4)["polite"]
    assert (outcome, value) == ("undecided", "–") and POISON in reason
    assert rubric_page.execute_script("return window.poisoned") is None
    assert rubric_page.find_elements(By.CSS_SELECTOR, "img") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_with_parts_never_scrolls_sideways(rubric_page: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    rubric_page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert rubric_page.execute_script("return document.documentElement.scrollWidth") <= width
        inner = "const t = document.querySelector('#episode .parts'); return [t.scrollWidth, t.parentNode.clientWidth]"
        table, room = rubric_page.execute_script(inner)
        assert table <= room
    finally:
        rubric_page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [390, 820, 1600])
def test_the_page_never_scrolls_sideways(page: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        drawings = [node.is_displayed() for node in page.find_elements(By.CSS_SELECTOR, "#accuracy svg.chart")]
        assert drawings == ([False, True] if width == 390 else [True, False])
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: webdriver.Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ratio = """
const light = (css) => {
  const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
return arguments[0].map((selector) => {
  const text = light(getComputedStyle(document.querySelector(selector)).color);
  return (Math.max(ground, text) + 0.05) / (Math.min(ground, text) + 0.05);
});"""
    selectors = ["h1", ".muted", ".turn-user .role", ".turn-tool .role", "summary", ".outcome-correct", ".token"]
    assert min(page.execute_script(ratio, selectors)) >= 4.5  # WCAG 2.2, success criterion 1.4.3


def test_a_half_finished_run_opens_and_offers_no_choice_where_there_is_none(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    with RunFolder.create(small_recipe(sft=None), tmp_path / "run") as run:
        browser.get(write_report(run.path).as_uri())
        assert "has not finished" in find(browser, ".notice").text
        run.write_episodes("policy-000001", [episode_row(random.Random(0), STEPS, "g", True, 0.5)])
        browser.get(write_report(run.path).as_uri())
    assert len(browser.find_elements(By.CSS_SELECTOR, "#list button")) == 1
    shown = [name for name in ("at", "env", "outcome", "text") if find(browser, f"#filter-{name}").is_displayed()]
    assert shown == ["text"]
    assert browser.get_log("browser") == []


def test_view_serves_the_report_on_this_machine_only(browser: webdriver.Chrome, report: Path) -> None:
    command = [sys.executable, "-m", "ludus", "view", str(report.parent), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            assert address.startswith("http://127.0.0.1:")
            browser.get(address)
            assert find(browser, "h1").text == "wordmath"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + "recipe.yaml")
            port = int(address.rstrip("/").rpartition(":")[2])
            others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)} - {"127.0.0.1"}
            for other in others:
                with pytest.raises(OSError):
                    socket.create_connection((other, port), timeout=2)
        finally:
            server.terminate()
