"""The HTML pages in a real browser. Every check after an action waits for its condition."""

import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from browser import console, expect, headless_chromium, look
from hostile_files import HOSTILE_NAMES
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from util.channel_view import ChannelView
from util.html.fixed_samples import FixedSamples, SampleSection
from util.html.results_page import ResultsPage
from util.html.training_page import TrainingPage

VISUALS = ("real_A", "fake_B", "real_B")
NAMES = ["cat.jpg", "dog.jpg", "cat and dog.jpg", "pony.jpg"]
ROWS = [{"epochs_done": step / 4, "losses": {"G_GAN": 1 / (1 + step), "D_real": 0.5}} for step in range(9)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Chrome:
    with headless_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def visuals(width: int = 24, height: int = 16) -> dict[str, torch.Tensor]:
    return {name: torch.full((1, 3, height, width), shade) for name, shade in zip(VISUALS, (-0.8, 0, 0.8), strict=True)}


def results(folder: Path, names: list[str]) -> str:
    """Write a results page with these names. Return its address."""
    page = ResultsPage(folder, "cats", Path("/data/testA"), {"phase": "test"})
    for name in names:
        page.add(f"/data/testA/{name}", visuals())
    page.save()
    return (folder / "index.html").as_uri()


def training(folder: Path) -> str:
    page = TrainingPage(folder, "cats", 1, 2)
    for epoch in (1, 2):
        page.add_images(epoch, visuals())
    page.write(ROWS, 20, "finished")
    return (folder / "index.html").as_uri()


def find(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def shown_cards(browser: Chrome) -> list[str]:
    return [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, "h2") if heading.is_displayed()]


def open_viewer(browser: Chrome, image: str) -> None:
    """Click on the image with this alternative text."""
    find(browser, f'main img[alt="{image}"]').click()
    expect(lambda: find(browser, "#viewer").is_displayed(), True)


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def compared(browser: Chrome) -> tuple[str, list[str]]:
    """Return the card in the viewer, and the files of its two images."""
    files = [image.get_attribute("src") for image in browser.find_elements(By.CSS_SELECTOR, "#stage img")]
    return find(browser, "#name").text, [file.split("/images/")[1] for file in files]


def divider(browser: Chrome) -> tuple[float, float]:
    """Return the position of the divider, and the left edge of the second image, as fractions of the stage's width."""
    position = browser.execute_script(
        "const at = (element) => element.getBoundingClientRect(); const all = at(stage);"
        "return (at(stage.querySelector('hr')).left + 1 - all.left) / all.width"
    )
    clip = find(browser, "#stage img:nth-of-type(2)").value_of_css_property("clip-path")
    return position, float(clip.removeprefix("inset(0px 0px 0px ").removesuffix("%)")) / 100


def test_a_page_with_hostile_names_loads_all_images_without_errors(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, HOSTILE_NAMES))
    expect(lambda: len(shown_cards(browser)), len(HOSTILE_NAMES))
    browser.execute_script("document.querySelectorAll('main img').forEach((image) => (image.loading = 'eager'))")
    missing = (
        "return Promise.all([...document.images].map((image) => image.src && image.decode())).then(() => 'none', String)"
    )
    expect(lambda: browser.execute_script(missing), "none")
    open_viewer(browser, f"translation of {HOSTILE_NAMES[4]}")
    for _ in HOSTILE_NAMES:
        press(browser, Keys.ARROW_RIGHT)
    expect(lambda: find(browser, "#place").text, f"{len(HOSTILE_NAMES)} / {len(HOSTILE_NAMES)}")
    assert console(browser) == []


def test_only_images_near_the_window_are_loaded(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, [f"{number}.jpg" for number in range(400)]))
    loaded = "return [...document.querySelectorAll('main img')].filter((i) => i.naturalWidth).length"
    expect(lambda: browser.execute_script(loaded) > 0, True)
    assert browser.execute_script(loaded) < 600


def test_the_divider_follows_the_pointer_the_slider_and_the_keys(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    open_viewer(browser, "translation of dog.jpg")
    expect(lambda: compared(browser), ("dog.jpg", ["real_A/dog.png", "fake_B/dog.png"]))
    expect(lambda: divider(browser), pytest.approx((0.5, 0.5), abs=0.01))

    stage = find(browser, "#stage")
    quarter = round(stage.size["width"] / 4)
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(-quarter, 3).release().perform()
    expect(lambda: divider(browser), pytest.approx((0.25, 0.25), abs=0.01))
    ActionChains(browser).move_by_offset(quarter, 0).perform()  # no button is held
    expect(lambda: divider(browser), pytest.approx((0.25, 0.25), abs=0.01))

    press(browser, Keys.ARROW_UP)
    expect(lambda: divider(browser), pytest.approx((0.30, 0.30), abs=0.01))
    press(browser, " ")
    expect(lambda: divider(browser), pytest.approx((1, 1), abs=0.01))
    press(browser, " ", Keys.ARROW_DOWN)
    expect(lambda: divider(browser), pytest.approx((0, 0), abs=0.01))

    slider = find(browser, "#cut")
    ActionChains(browser).move_to_element(slider).click().perform()
    expect(lambda: divider(browser), pytest.approx((0.5, 0.5), abs=0.03))
    assert console(browser) == []


def test_keys_step_through_the_images_that_the_filter_leaves(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    press(browser, "/")
    press(browser, "CAT")
    expect(lambda: shown_cards(browser), ["cat.jpg", "cat and dog.jpg"])
    expect(lambda: find(browser, "#count").text, "2 of 4")
    press(browser, " dog")
    expect(lambda: shown_cards(browser), ["cat and dog.jpg"])
    press(browser, *[Keys.BACKSPACE] * 4)
    expect(lambda: shown_cards(browser), ["cat.jpg", "cat and dog.jpg"])

    open_viewer(browser, "translation of cat.jpg")
    expect(lambda: find(browser, "#place").text, "1 / 2")
    press(browser, Keys.ARROW_RIGHT)
    expect(lambda: compared(browser), ("cat and dog.jpg", ["real_A/cat%20and%20dog.png", "fake_B/cat%20and%20dog.png"]))
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    expect(lambda: compared(browser)[0], "cat.jpg")
    press(browser, Keys.END)
    expect(lambda: compared(browser)[0], "cat and dog.jpg")
    find(browser, "#previous").click()
    expect(lambda: compared(browser)[0], "cat.jpg")
    press(browser, Keys.ESCAPE)
    expect(lambda: find(browser, "#viewer").is_displayed(), False)
    assert console(browser) == []


def test_any_two_images_of_a_card_can_be_compared(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    open_viewer(browser, "a real B (unpaired) of dog.jpg")
    expect(lambda: compared(browser)[1], ["real_A/dog.png", "real_B/dog.png"])
    find(browser, "#before").send_keys("translation")
    expect(lambda: compared(browser)[1], ["fake_B/dog.png", "real_B/dog.png"])
    find(browser, "#next").click()
    expect(lambda: compared(browser)[1], ["fake_B/cat%20and%20dog.png", "real_B/cat%20and%20dog.png"])
    labels = [label.text for label in browser.find_elements(By.CSS_SELECTOR, "#stage span")]
    assert labels == ["translation", "a real B (unpaired)"]


def test_a_page_uses_the_system_theme_until_the_user_chooses_one(browser: Chrome, tmp_path) -> None:
    def background() -> str:
        return find(browser, "body").value_of_css_property("background-color")

    def background_after_reload() -> str:
        browser.refresh()
        return background()

    light, dark = "rgba(245, 245, 243, 1)", "rgba(17, 19, 22, 1)"
    look(browser, theme="light")
    browser.get(results(tmp_path, NAMES))
    expect(background, light)
    look(browser, theme="dark")
    expect(background, dark)
    find(browser, "#theme").click()
    expect(background, light)
    expect(background_after_reload, light)  # Chromium writes localStorage after a delay; until then a reload does not see it
    find(browser, "#theme").click()
    expect(background, dark)
    browser.execute_script("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 800, 2000])
def test_no_page_is_wider_than_its_window(browser: Chrome, tmp_path, width: int) -> None:
    sideways = "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
    look(browser, width=width, height=600)
    for address in (results(tmp_path / "results", [*NAMES, "x" * 200 + ".jpg"]), training(tmp_path / "web")):
        browser.get(address)
        expect(lambda: browser.execute_script(sideways), 0)
        find(browser, "main img").click()
        expect(lambda: find(browser, "#viewer").is_displayed(), True)
        stage = find(browser, "#stage").rect
        assert stage["width"] > 250 and stage["x"] >= 0 and stage["x"] + stage["width"] <= width
        assert stage["width"] / stage["height"] == pytest.approx(24 / 16, rel=0.02)


def test_a_chart_shows_the_value_under_the_pointer(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(training(tmp_path))
    plot = find(browser, ".chart svg")
    area = plot.rect["width"] * (360 - 44 - 8) / 360
    middle = round(plot.rect["width"] * 44 / 360 + area / 2 - plot.rect["width"] / 2)
    ActionChains(browser).move_to_element_with_offset(plot, middle, 0).perform()

    def readout() -> list[float]:
        return [float(number) for number in find(browser, ".chart output").text.split(": ")]

    expect(readout, pytest.approx([1.0, 0.2], abs=0.01))
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    expect(lambda: browser.find_elements(By.CSS_SELECTOR, ".chart output"), [])
    assert console(browser) == []


class Identity(torch.nn.Identity):
    """A generator that changes nothing."""

    def set_rng(self, rng: torch.Generator) -> None: ...


def live_page(folder: Path) -> TrainingPage:
    """Return the page of a running training with fixed samples, after 20 epochs."""
    samples = FixedSamples({"cat.jpg": torch.zeros(1, 3, 8, 8)}, {"G": Identity()}, torch.device("cpu"), 0, 64)
    page = TrainingPage(folder, "cats", 1, 100, samples=SampleSection(folder, samples, 1, ChannelView()))
    for epoch in range(1, 21):
        add_epoch(page, epoch)
    page.write(ROWS, 20)
    return page


def add_epoch(page: TrainingPage, epoch: int) -> None:
    page.add_images(epoch, visuals())
    assert page.samples is not None
    page.samples.update(epoch, 1000 * epoch)


def translation_shown(browser: Chrome) -> tuple[str, str]:
    """Return the epoch at the slider, and the file of the translation."""
    image = find(browser, ".samples figure:nth-of-type(2) img")
    return find(browser, ".samples output").text, image.get_attribute("src").split("/")[-1]


def status(browser: Chrome) -> str:
    return find(browser, '[data-fact="status"] dd').text


def test_a_reloaded_page_stays_where_it_was(browser: Chrome, tmp_path) -> None:
    look(browser)
    page = live_page(tmp_path)
    browser.get((tmp_path / "index.html").as_uri())
    expect(lambda: (status(browser), translation_shown(browser)), ("running", ("20", "epoch020_1_G.png")))

    slider = find(browser, ".samples input")
    browser.execute_script("arguments[0].value = 6; arguments[0].dispatchEvent(new Event('input'))", slider)
    expect(lambda: translation_shown(browser), ("7", "epoch007_1_G.png"))
    find(browser, "summary").click()
    card = "[...document.querySelectorAll('main article')].find((each) => each.textContent.startsWith('epoch 12'))"
    top = f"return Math.round({card}.getBoundingClientRect().top)"
    browser.execute_script(f"{card}.scrollIntoView()")
    expect(lambda: browser.execute_script(top), pytest.approx(0, abs=2))

    add_epoch(page, 21)
    page.write(ROWS, 20)
    browser.refresh()
    expect(lambda: browser.execute_script("return document.querySelector('main h2').textContent"), "epoch 21")
    expect(lambda: browser.execute_script(top), pytest.approx(0, abs=2))
    assert translation_shown(browser) == ("7", "epoch007_1_G.png")
    assert not find(browser, ".charts").is_displayed()
    assert console(browser) == []


def test_a_reloaded_page_stays_where_it_was_sideways(browser: Chrome, tmp_path) -> None:
    look(browser, width=390, height=800)
    live_page(tmp_path)
    browser.get((tmp_path / "index.html").as_uri())
    left = "return Math.round(document.querySelector('.charts').scrollLeft)"
    browser.execute_script("document.querySelector('.charts').scrollLeft = 200")
    expect(lambda: browser.execute_script(left) > 100, True)
    before = browser.execute_script(left)
    browser.refresh()
    expect(lambda: browser.execute_script(left), before)


def test_a_page_reloads_itself_until_the_run_has_ended(browser: Chrome, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("util.html.page.RELOAD_SECONDS", 1)
    look(browser)
    page = live_page(tmp_path)
    browser.get((tmp_path / "index.html").as_uri())
    page.write(ROWS, 20, "finished")
    time.sleep(1.5)  # no command meanwhile: the driver may wait for one that a reload interrupts
    expect(lambda: status(browser), "finished")
    browser.execute_script("window.stays = true")
    time.sleep(1.5)
    assert browser.execute_script("return window.stays")


def test_the_page_of_a_killed_run_says_that_it_is_not_updated(browser: Chrome, tmp_path, monkeypatch) -> None:
    look(browser)
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 1_700_000_000.0)
        live_page(tmp_path)
    browser.get((tmp_path / "index.html").as_uri())
    expect(lambda: status(browser).startswith("no update since "), True)
    assert "2023" in status(browser)


def test_the_viewer_steps_through_the_fixed_samples(browser: Chrome, tmp_path) -> None:
    look(browser)
    live_page(tmp_path).write(ROWS, 20, "finished")
    browser.get((tmp_path / "index.html").as_uri())
    find(browser, ".samples img").click()
    expect(lambda: find(browser, "#viewer").is_displayed(), True)
    shown = [image.get_attribute("src").split("/")[-1] for image in browser.find_elements(By.CSS_SELECTOR, "#stage img")]
    assert shown == ["input_1.png", "epoch020_1_G.png"]
    assert find(browser, "#place").text == "1 / 1"


def test_a_page_can_be_read_without_scripts(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(training(tmp_path))
        expect(lambda: shown_cards(browser), ["epoch 2", "epoch 1"])
        assert find(browser, ".chart polyline").is_displayed()
        assert not find(browser, ".tools").is_displayed() and not find(browser, "#viewer").is_displayed()
        find(browser, "main a").click()
        expect(lambda: browser.current_url, (tmp_path / "images/epoch002_real_A.png").as_uri())
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_an_injected_script_does_not_run(browser: Chrome, tmp_path) -> None:
    look(browser)
    address = results(tmp_path, NAMES)
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</main>", "<script>document.title = 'taken over'</script></main>"))
    browser.get(address)
    assert browser.title == "cats"
    expect(lambda: any("Content Security Policy" in message for message in console(browser)), True)
