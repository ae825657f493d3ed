"""The pages in a real browser, as a user handles them."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from browser import console, headless_chromium, look
from hostile_files import HOSTILE_NAMES
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from util.html.results_page import ResultsPage
from util.html.training_page import TrainingPage

VISUALS = ("real_A", "fake_B", "real_B")
NAMES = ["cat.jpg", "dog.jpg", "cat and dog.jpg", "pony.jpg"]
RECORDS = [{"epochs_done": step / 4, "losses": {"G_GAN": 1 / (1 + step), "D_real": 0.5}} for step in range(9)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Chrome:
    with headless_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def visuals(width: int = 24, height: int = 16) -> dict[str, torch.Tensor]:
    return {name: torch.full((1, 3, height, width), shade) for name, shade in zip(VISUALS, (-0.8, 0, 0.8), strict=True)}


def results(folder: Path, names: list[str]) -> str:
    """The address of a page over these names."""
    page = ResultsPage(folder, "cats", Path("/data/testA"), {"phase": "test"})
    for name in names:
        page.add(f"/data/testA/{name}", visuals())
    page.save()
    return (folder / "index.html").as_uri()


def training(folder: Path) -> str:
    page = TrainingPage(folder, "cats", 1, 2)
    for epoch in (1, 2):
        page.update(epoch, visuals(), RECORDS)
    return (folder / "index.html").as_uri()


def find(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def shown_cards(browser: Chrome) -> list[str]:
    return [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, "h2") if heading.is_displayed()]


def open_viewer(browser: Chrome, image: str) -> None:
    """Clicks on the image whose alternative text that is."""
    find(browser, f'main img[alt="{image}"]').click()
    assert find(browser, "#viewer").is_displayed()


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def compared(browser: Chrome) -> tuple[str, list[str]]:
    """The card that the viewer shows, and the files of its two images."""
    files = [image.get_attribute("src") for image in browser.find_elements(By.CSS_SELECTOR, "#stage img")]
    return find(browser, "#name").text, [file.split("/images/")[1] for file in files]


def divider(browser: Chrome) -> tuple[float, float]:
    """Where the divider stands, and from where on the second image is seen, as shares of the stage's width."""
    share = browser.execute_script(
        "const at = (element) => element.getBoundingClientRect(); const all = at(stage);"
        "return (at(stage.querySelector('hr')).left + 1 - all.left) / all.width"
    )
    clip = find(browser, "#stage img:nth-of-type(2)").value_of_css_property("clip-path")
    return share, float(clip.removeprefix("inset(0px 0px 0px ").removesuffix("%)")) / 100


def test_a_page_of_hostile_names_loads_all_its_images_and_complains_of_nothing(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, HOSTILE_NAMES))
    assert len(shown_cards(browser)) == len(HOSTILE_NAMES)
    browser.execute_script("document.querySelectorAll('main img').forEach((image) => (image.loading = 'eager'))")
    missing = (
        "return Promise.all([...document.images].map((image) => image.src && image.decode())).then(() => 'none', String)"
    )
    assert browser.execute_script(missing) == "none"
    open_viewer(browser, f"fake_B of {HOSTILE_NAMES[4]}")
    for _ in HOSTILE_NAMES:
        press(browser, Keys.ARROW_RIGHT)
    assert find(browser, "#place").text == f"{len(HOSTILE_NAMES)} / {len(HOSTILE_NAMES)}"
    assert console(browser) == []


def test_only_images_near_the_window_are_loaded(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, [f"{number}.jpg" for number in range(400)]))
    loaded = browser.execute_script("return [...document.querySelectorAll('main img')].filter((i) => i.naturalWidth).length")
    assert 0 < loaded < 600


def test_the_divider_follows_the_pointer_the_slider_and_the_keys(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    open_viewer(browser, "fake_B of dog.jpg")
    assert compared(browser) == ("dog.jpg", ["real_A/dog.png", "fake_B/dog.png"])
    assert divider(browser) == pytest.approx((0.5, 0.5), abs=0.01)

    stage = find(browser, "#stage")
    quarter = round(stage.size["width"] / 4)
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(-quarter, 3).release().perform()
    assert divider(browser) == pytest.approx((0.25, 0.25), abs=0.01)
    ActionChains(browser).move_by_offset(quarter, 0).perform()  # no button is held
    assert divider(browser) == pytest.approx((0.25, 0.25), abs=0.01)

    press(browser, Keys.ARROW_UP)
    assert divider(browser) == pytest.approx((0.30, 0.30), abs=0.01)
    press(browser, " ")
    assert divider(browser) == pytest.approx((1, 1), abs=0.01)
    press(browser, " ", Keys.ARROW_DOWN)
    assert divider(browser) == pytest.approx((0, 0), abs=0.01)

    slider = find(browser, "#cut")
    ActionChains(browser).move_to_element(slider).click().perform()
    assert divider(browser) == pytest.approx((0.5, 0.5), abs=0.03)
    assert console(browser) == []


def test_keys_step_through_the_images_that_the_filter_leaves(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    press(browser, "/")
    press(browser, "CAT")
    assert shown_cards(browser) == ["cat.jpg", "cat and dog.jpg"]
    assert find(browser, "#count").text == "2 of 4"
    press(browser, " dog")
    assert shown_cards(browser) == ["cat and dog.jpg"]
    press(browser, *[Keys.BACKSPACE] * 4)
    assert shown_cards(browser) == ["cat.jpg", "cat and dog.jpg"]

    open_viewer(browser, "fake_B of cat.jpg")
    assert find(browser, "#place").text == "1 / 2"
    press(browser, Keys.ARROW_RIGHT)
    assert compared(browser) == (
        "cat and dog.jpg",
        ["real_A/cat%20and%20dog.png", "fake_B/cat%20and%20dog.png"],
    )
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert compared(browser)[0] == "cat.jpg"
    press(browser, Keys.END)
    assert compared(browser)[0] == "cat and dog.jpg"
    find(browser, "#previous").click()
    assert compared(browser)[0] == "cat.jpg"
    press(browser, Keys.ESCAPE)
    assert not find(browser, "#viewer").is_displayed()
    assert console(browser) == []


def test_any_two_images_of_a_card_can_be_compared(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(results(tmp_path, NAMES))
    open_viewer(browser, "real_B of dog.jpg")
    assert compared(browser)[1] == ["real_A/dog.png", "real_B/dog.png"]
    find(browser, "#before").send_keys("fake_B")
    assert compared(browser)[1] == ["fake_B/dog.png", "real_B/dog.png"]
    find(browser, "#next").click()
    assert compared(browser)[1] == ["fake_B/cat%20and%20dog.png", "real_B/cat%20and%20dog.png"]
    assert [label.text for label in browser.find_elements(By.CSS_SELECTOR, "#stage span")] == ["fake_B", "real_B"]


def test_a_page_follows_the_systems_theme_until_told_otherwise(browser: Chrome, tmp_path) -> None:
    def ground() -> str:
        return find(browser, "body").value_of_css_property("background-color")

    address = results(tmp_path, NAMES)
    look(browser, theme="light")
    browser.get(address)
    light = ground()
    look(browser, theme="dark")
    dark = ground()
    assert dark != light
    find(browser, "#theme").click()
    assert ground() == light
    browser.refresh()
    assert ground() == light
    find(browser, "#theme").click()
    assert ground() == dark
    browser.execute_script("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 800, 2000])
def test_no_page_is_wider_than_its_window(browser: Chrome, tmp_path, width: int) -> None:
    look(browser, width=width, height=600)
    for address in (results(tmp_path / "results", [*NAMES, "x" * 200 + ".jpg"]), training(tmp_path / "web")):
        browser.get(address)
        sideways = "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
        assert browser.execute_script(sideways) == 0
        find(browser, "main img").click()
        stage = find(browser, "#stage").rect
        assert stage["width"] > 250 and stage["x"] >= 0 and stage["x"] + stage["width"] <= width
        assert stage["width"] / stage["height"] == pytest.approx(24 / 16, rel=0.02)


def test_the_curves_tell_the_value_under_the_pointer(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.get(training(tmp_path))
    drawing = find(browser, ".chart svg")
    area = drawing.rect["width"] * (360 - 44 - 8) / 360
    middle = round(drawing.rect["width"] * 44 / 360 + area / 2 - drawing.rect["width"] / 2)
    ActionChains(browser).move_to_element_with_offset(drawing, middle, 0).perform()
    at, value = find(browser, ".chart output").text.split(": ")
    assert float(at) == pytest.approx(1.0, abs=0.01)
    assert float(value) == pytest.approx(0.2, abs=0.01)
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    assert browser.find_elements(By.CSS_SELECTOR, ".chart output") == []
    assert console(browser) == []


def test_a_page_can_be_read_without_scripts(browser: Chrome, tmp_path) -> None:
    look(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(training(tmp_path))
        assert shown_cards(browser) == ["epoch 2", "epoch 1"]
        assert find(browser, ".chart polyline").is_displayed()
        assert not find(browser, ".tools").is_displayed() and not find(browser, "#viewer").is_displayed()
        find(browser, "main a").click()
        assert browser.current_url == (tmp_path / "images/epoch002_real_A.png").as_uri()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_script_that_got_into_a_page_would_not_run(browser: Chrome, tmp_path) -> None:
    look(browser)
    address = results(tmp_path, NAMES)
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</main>", "<script>document.title = 'taken over'</script></main>"))
    browser.get(address)
    assert browser.title == "cats"
    assert [message for message in console(browser) if "Content Security Policy" in message]
