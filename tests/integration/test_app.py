"""scripts/app.py: the page in a real browser, and requests of hostile clients."""

import http.client
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import uvicorn
from browser import console, headless_chromium
from generators import checkpoint
from image_factory import noise, ramp
from PIL import Image
from programs import ENVIRONMENT, ROOT, refuse
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from models import Translator
from models.inference import web
from scripts.app import build_parser, label_checkpoints

LIMITS = ["--max_megabytes", "0.1", "--max_megapixels", "0.03"]


CHECKPOINTS = "#checkpoint option"


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[int]:
    """Serve the two checkpoints in `folder`. Yield the port."""
    line = [sys.executable, ROOT / "scripts/app.py", "--checkpoint", folder, "--port", "0", "--gpu_ids", "-1", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as app:
        try:
            assert app.stdout is not None
            first_line = app.stdout.readline()
            match = re.fullmatch(r"2 generators; open http://127\.0\.0\.1:(\d+)\n", first_line)
            assert match, first_line
            yield int(match[1])
        finally:
            app.terminate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Start the app. Return its port and the folder of its two checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    checkpoint(folder / "cat")
    checkpoint(folder / "dog", norm="batch")
    (folder / "dog" / "train_opt.json").write_text('{"tiff_pages": "bands"}')
    with serving(folder, *LIMITS) as port:
        yield port, folder


def send_request(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Send one request with an unchanged path. Return its status and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_image_is_translated_in_the_browser(served: tuple[int, Path], tmp_path: Path) -> None:
    port, folder = served
    source = tmp_path / "my cat.tif"  # browsers cannot show TIFF: the server converts it for the page
    ramp(101, 63).save(source)
    with headless_chromium(tmp_path / "profile") as browser:
        browser.get(f"http://127.0.0.1:{port}")
        wait = WebDriverWait(browser, 60)
        wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, CHECKPOINTS)) == 2)
        browser.find_element(By.ID, "file").send_keys(str(source))
        wait.until(lambda page: page.find_element(By.ID, "download").is_displayed())
        assert browser.find_element(By.ID, "status").text.startswith("my cat.tif: 101 × 63 pixels")
        assert browser.find_element(By.ID, "download").get_attribute("download") == "my cat.png"

        shown = browser.execute_script(PIXELS_SHOWN)
        expected = Translator.from_checkpoint(folder / "cat")(np.array(ramp(101, 63)))
        assert np.abs(np.array(shown).reshape(63, 101, 4)[:, :, :3] - expected.astype(int)).max() <= 1

        slider = browser.find_element(By.ID, "slider")
        browser.execute_script("arguments[0].value = 20; arguments[0].dispatchEvent(new Event('input'))", slider)
        clip = browser.find_element(By.ID, "after").value_of_css_property("clip-path")
        assert "20%" in clip

        browser.find_elements(By.CSS_SELECTOR, CHECKPOINTS)[1].click()
        wait.until(lambda page: browser.execute_script(PIXELS_SHOWN) not in (None, shown))

        size, status = Select(browser.find_element(By.ID, "size")), browser.find_element(By.ID, "status")
        size.select_by_value("128")
        wait.until(lambda page: status.text.startswith("my cat.tif: 205 × 128 pixels"))
        size.select_by_value("2048")
        wait.until(lambda page: status.text == "the result would have more than 0.03 megapixels")
        size.select_by_value("")
        wait.until(lambda page: status.text.startswith("my cat.tif: 101 × 63 pixels"))

        (tmp_path / "notes.png").write_text("no image")
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "notes.png"))
        wait.until(lambda page: "cannot be translated" in page.find_element(By.ID, "status").text)
        assert [message for message in console(browser) if "415" not in message and "413" not in message] == []


@contextmanager
def framing(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve a page of another origin. Yield the origin and the file of the page."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder / "frame.html"
        server.shutdown()


def test_a_page_of_the_given_origin_shows_the_app_in_a_frame(served: tuple[int, Path], tmp_path: Path) -> None:
    refusing, folder = served
    with (
        framing(tmp_path) as (origin, page),
        serving(folder, "--embed", origin) as port,
        headless_chromium(tmp_path / "profile") as browser,
    ):
        for number, options in ((refusing, 0), (port, 2)):
            page.write_text(f"<iframe src='http://localhost:{number}'></iframe>")
            browser.get(f"{origin}/frame.html?{number}")
            browser.switch_to.frame(0)
            if options:
                WebDriverWait(browser, 60).until(lambda page: len(page.find_elements(By.CSS_SELECTOR, CHECKPOINTS)) == 2)
            assert len(browser.find_elements(By.CSS_SELECTOR, CHECKPOINTS)) == options


@pytest.mark.parametrize("text", ["*", "https://a; script-src *", "huggingface.co", "https://a/b", "https://\u00e4"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(SystemExit) as refused:
        build_parser().parse_args(["--embed", text])
    assert refused.value.code == 2


def test_an_image_waits_for_the_list_of_checkpoints_and_can_be_canceled(served: tuple[int, Path], tmp_path: Path) -> None:
    ramp(12, 90).save(tmp_path / "tall.png")
    with headless_chromium(tmp_path / "profile") as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        slow = {"offline": False, "latency": 400, "downloadThroughput": -1, "uploadThroughput": -1}  # milliseconds
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        browser.get(f"http://127.0.0.1:{served[0]}")
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "tall.png"))
        status, cancel = (browser.find_element(By.ID, name) for name in ("status", "cancel"))
        WebDriverWait(browser, 60).until(lambda page: status.text and not status.text.startswith("Translating"))
        assert status.text.startswith("tall.png: 12 × 90 pixels")
        assert (
            browser.find_element(By.ID, "stage").rect["width"] == 320
        )  # small images are enlarged to leave room for the slider
        assert browser.find_element(By.ID, "after").value_of_css_property("object-fit") == "contain"  # not stretched

        browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"latency": 60_000})
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "tall.png"))
        WebDriverWait(browser, 60).until(lambda page: re.fullmatch(r"Translating tall\.png … \d+\.[1-9] s", status.text))
        cancel.click()
        WebDriverWait(browser, 60).until(lambda page: re.fullmatch(r"canceled after \d+\.\d s", status.text))
        assert not cancel.is_displayed() and not browser.find_element(By.ID, "download").is_displayed()


PIXELS_SHOWN = """
    const image = document.getElementById("after");
    if (!image.naturalWidth || document.getElementById("download").hidden) return null;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
"""


def test_files_are_read_as_in_the_training_run(served: tuple[int, Path]) -> None:
    port, folder = served
    bands, stack = np.array(ramp(32, 24)), io.BytesIO()
    first, *others = (Image.fromarray(band) for band in bands.transpose(2, 0, 1))
    first.save(stack, "TIFF", save_all=True, append_images=others)
    for index, (run, image) in enumerate({"cat": bands[:, :, :1], "dog": bands}.items()):
        status, content = send_request(port, "POST", f"/translate?checkpoint={index}", stack.getvalue())
        assert status == 200
        expected = Translator.from_checkpoint(folder / run)(image)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), expected)


def test_files_of_the_machine_cannot_be_read(served: tuple[int, Path]) -> None:
    port, folder = served
    secret = folder / "cat" / "latest_net_G.pth"
    paths = [
        f"/{secret}",
        f"//{secret}",
        f"/..{secret}",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        f"/file={secret}",
    ]
    paths += ["/web.html", "/static/web.html", "/..%2f..%2fREADME.md", f"file://{secret}"]
    assert [send_request(port, "GET", path)[0] for path in paths] == [404] * len(paths)
    for number in (str(secret), "../cat", "-1", "2", "", "0x0", "²"):
        status, _ = send_request(port, "POST", f"/translate?checkpoint={quote(number)}", png(noise(8, 8)))
        assert status == 404, number
    for size in ("0", "-1", "100000", "64.5"):
        assert send_request(port, "POST", f"/translate?checkpoint=0&size={size}", png(noise(8, 8)))[0] == 404, size
    status, body = send_request(port, "GET", "/checkpoints")
    assert json.loads(body)["checkpoints"] == ["cat / latest_net_G", "dog / latest_net_G"]  # and no paths
    assert str(folder).encode() not in body


def test_requests_of_other_pages_and_hosts_are_refused(served: tuple[int, Path]) -> None:
    port, _ = served
    assert send_request(port, "GET", "/", Host="evil.example")[0] == 400  # DNS rebinding
    assert send_request(port, "POST", "/translate?checkpoint=0", png(noise(8, 8)), Sec_Fetch_Site="cross-site")[0] == 403
    status, page = send_request(port, "GET", "/")
    assert status == 200 and b"http://" not in page and b"https://" not in page  # the page loads nothing from other servers


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"x" * 200_000, 413, "larger than"),
        (png(Image.new("RGB", (200, 200))), 415, "megapixels"),
        (b"", 415, "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image"),
    ],
)
def test_large_files_and_other_file_types_are_refused(
    served: tuple[int, Path], body: bytes, status: int, reason: str
) -> None:
    found, response = send_request(served[0], "POST", "/translate?checkpoint=0", body)
    assert (found, reason in json.loads(response)["error"]) == (status, True)


@contextmanager
def serving_in_thread(translator: Translator) -> Iterator[int]:
    """Serve one translator from a thread of this process. Yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = web.create_app({"cat": lambda: translator}, ["127.0.0.1"], 10**6, 10**6)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)


def test_the_server_stops_computing_when_the_client_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer waits until the server knows that the client has gone. The last layer is then not reached."""
    checkpoint(tmp_path / "cat")
    translator = Translator.from_checkpoint(tmp_path / "cat", gpu_ids="-1")
    started, has_gone = threading.Event(), threading.Event()
    layers = list(translator.generator.modules())
    finished: list[bool] = []

    def wait(*_: object) -> None:
        started.set()
        has_gone.wait(60)

    waiting = layers[2].register_forward_pre_hook(wait)
    layers[0].register_forward_hook(lambda *_: finished.append(True))
    original = web._set_at_disconnect

    async def watch(*arguments) -> None:
        await original(*arguments)
        has_gone.set()

    monkeypatch.setattr(web, "_set_at_disconnect", watch)
    with serving_in_thread(translator) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/translate?checkpoint=0", png(noise(16, 16)))
        assert started.wait(60)
        connection.close()
        assert has_gone.wait(60)
        waiting.remove()
        status, _ = send_request(port, "POST", "/translate?checkpoint=0", png(noise(16, 16)))  # after the canceled one
        assert (status, finished) == (200, [True])


def test_too_little_memory_is_an_answer_that_the_page_shows(tmp_path: Path) -> None:
    checkpoint(tmp_path / "cat")
    translator = Translator.from_checkpoint(tmp_path / "cat", gpu_ids="-1")

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    failing = translator.generator.register_forward_pre_hook(fail)
    with serving_in_thread(translator) as port:
        status, answer = send_request(port, "POST", "/translate?checkpoint=0", png(noise(16, 16)))
        assert (status, json.loads(answer)) == (503, {"error": "out of memory; choose a smaller size"})
        failing.remove()
        assert send_request(port, "POST", "/translate?checkpoint=0", png(noise(16, 16)))[0] == 200


def test_the_server_listens_on_loopback_only(served: tuple[int, Path]) -> None:
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("only Linux lists its sockets there")
    listening = [line.split()[1] for line in table.read_text().splitlines() if line.split()[3] == "0A"]
    assert f"0100007F:{served[0]:04X}" in listening and f"00000000:{served[0]:04X}" not in listening


def test_checkpoints_of_one_name_are_shown_by_their_paths() -> None:
    files = [Path(name) for name in ("a/cat/latest_net_G.pth", "b/cat/latest_net_G.pth", "b/dog/latest_net_G.pth")]
    assert label_checkpoints(files) == {
        "a/cat/latest_net_G.pth": files[0],
        "b/cat/latest_net_G.pth": files[1],
        "dog / latest_net_G": files[2],
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no loopback address besides 127.0.0.1")
def test_the_server_accepts_its_own_host_name(served: tuple[int, Path]) -> None:
    host = "127.0.1.1"  # Debian's address for the machine's own name
    line = [sys.executable, ROOT / "scripts/app.py", "--checkpoint", served[1], "--port", "0", "--gpu_ids", "-1"]
    with subprocess.Popen([*line, "--host", host], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as app:
        try:
            address = app.stdout.readline().split("http://")[1].strip()
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
        finally:
            app.terminate()


def test_the_default_is_the_folder_of_all_runs(tmp_path: Path) -> None:
    line = refuse(tmp_path, "scripts/app.py", "--port", "0")
    assert line == "error: checkpoints: no such file or folder. Use a file such as latest_net_G.pth, or a run's folder."


def test_an_invalid_port_is_refused() -> None:
    line = [sys.executable, ROOT / "scripts/app.py", "--checkpoint", ".", "--port", "65536"]
    finished = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
    assert "'65536' is not an integer from 0 to 65535" in finished.stderr
