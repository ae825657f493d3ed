"""The visdom logger with real sockets: visdom's own server, and servers that misbehave."""

import json
import socket
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch

pytest.importorskip("visdom")

from visdom_servers import HANG_GUARD_SECONDS, free_port, no_server_line, silent_server, visdom_server, wait_until

from options import TrainOptions
from util.loggers import VisdomLogger, base, visdom_logger
from util.loggers.base import MAX_QUEUED, ScalarEvent, TrainingPosition
from util.loggers.visdom_logger import VisdomSettings

LOG_CALLS = 5000
VISUALS = {"real_A": torch.zeros(1, 3, 16, 16), "fake_B": torch.ones(1, 1, 16, 16), "real_B": torch.zeros(1, 3, 8, 8)}


def started(port: int, window: str = "cats", **settings: object) -> tuple[VisdomLogger, list[str]]:
    """Start a logger for that port. Return it, and the list of lines that it prints."""
    logger = VisdomLogger(VisdomSettings("cats", window, port=port, **settings))
    printed: list[str] = []
    logger.start(printed.append)
    return logger, printed


def finish(logger: VisdomLogger) -> None:
    """Close the logger, and wait until it has sent everything."""
    logger.close()
    wait_until(lambda: not logger.thread.is_alive())


def at(epoch: float) -> TrainingPosition:
    """Return the position that visdom's curves show at `epoch`, which starts at 1.0."""
    return TrainingPosition(int(epoch), epoch - 1, round((epoch - 1) * 100))


def log_many(logger: VisdomLogger) -> None:
    for call in range(LOG_CALLS):
        logger.log_scalars("losses", at(1 + call / LOG_CALLS), {"G_GAN": float(call), "D_real": 0.5})
        logger.log_images(at(2), VISUALS)


def window(port: int, name: str, env: str = "main") -> dict | None:
    """Return a window of the server; None if there is none, which visdom answers with a server error."""
    body = json.dumps({"win": name, "eid": env}).encode()
    try:
        with urlopen(Request(f"http://localhost:{port}/win_data", body), timeout=HANG_GUARD_SECONDS) as answer:
            return json.load(answer)
    except HTTPError:
        return None


def curves(port: int, name: str) -> dict[str, list[float]]:
    shown = window(port, name)
    return {trace["name"]: trace["y"] for trace in shown["content"]["data"]} if shown else {}


@pytest.fixture
def quick(monkeypatch) -> None:
    """Remove the pauses between flushes and between connection attempts."""
    monkeypatch.setattr(base, "FLUSH_INTERVAL", 0.02)
    monkeypatch.setattr(visdom_logger, "RETRY_SECONDS", 0.0)


@pytest.fixture(scope="module")
def server_port(tmp_path_factory) -> int:
    port = free_port()
    with visdom_server(port, tmp_path_factory.mktemp("visdom")):
        yield port


@pytest.mark.usefixtures("quick")
def test_curves_and_images_arrive_in_a_real_server(server_port: int) -> None:
    logger, printed = started(server_port, window="7")
    logger.log_scalars("losses", at(1.25), {"G_GAN": 1.0, "D_real": 2.0})
    wait_until(lambda: curves(server_port, "7_losses") == {"G_GAN": [1.0], "D_real": [2.0]})
    logger.log_scalars("losses", at(1.5), {"G_GAN": 3.0, "D_real": float("nan")})
    logger.log_scalars("losses", at(1.75), {"G_GAN": 4.0, "D_real": 5.0})
    logger.log_images(at(2), VISUALS)
    finish(logger)
    assert curves(server_port, "7_losses") == {"G_GAN": [1.0, 3.0, 4.0], "D_real": [2.0, None, 5.0]}
    shown = window(server_port, "7_images")
    assert shown["title"] == "cats: real_A | fake_B | real_B"
    assert (shown["width"], shown["height"]) == (3 * 256, round(3 * 256 * 16 / 52))
    assert shown["content"]["src"].startswith("data:image/png;base64,")
    assert printed == []
    assert not [thread.name for thread in threading.enumerate() if "Socket" in thread.name]


@pytest.mark.usefixtures("quick")
def test_each_metric_has_a_window(server_port: int) -> None:
    logger, _ = started(server_port, "10")
    for epoch, values in ((1.5, {"FID clean": 90.0, "KID": 0.1, "FID clean of G_ema": 80.0}), (2.0, {"KID": 0.05})):
        logger.log_scalars("evaluation", at(epoch), values)
    finish(logger)
    assert curves(server_port, "10_FID clean") == {"FID clean": [90.0], "FID clean of G_ema": [80.0]}
    assert curves(server_port, "10_KID") == {"KID": [0.1, 0.05]}
    assert window(server_port, "10_evaluation") is None


def test_zero_columns_give_one_window_per_image(server_port: int) -> None:
    logger, _ = started(server_port, columns=0, image_width=100, env="other")
    logger.log_images(at(2), VISUALS)
    finish(logger)
    for name in VISUALS:
        shown = window(server_port, f"cats_{name}", env="other")
        assert (shown["title"], shown["width"], shown["height"]) == (f"cats: {name}", 100, 100)


@pytest.mark.usefixtures("quick")
def test_a_late_or_restarted_server_receives_the_whole_curve(tmp_path) -> None:
    port = free_port()
    logger, printed = started(port)
    logger.log_scalars("losses", at(1.25), {"G": 1.0})
    wait_until(lambda: bool(printed))
    logger.log_scalars("losses", at(1.5), {"G": 2.0})
    with visdom_server(port, tmp_path):
        wait_until(lambda: curves(port, "cats_losses") == {"G": [1.0, 2.0]})
    with visdom_server(port, tmp_path):
        logger.log_scalars("losses", at(1.75), {"G": 3.0})
        wait_until(lambda: curves(port, "cats_losses") == {"G": [1.0, 2.0, 3.0]})
        logger.close()
    assert printed == [no_server_line(port)]


@pytest.mark.usefixtures("quick")
def test_a_server_that_stops_is_reported_once(tmp_path, capfd) -> None:
    port = free_port()
    with visdom_server(port, tmp_path) as server:
        logger, printed = started(port)
        logger.log_scalars("losses", at(1.0), {"G_GAN": 1.0, "D_real": 2.0})
        wait_until(lambda: bool(curves(port, "cats_losses")))
        server.kill()
        server.wait()
    log_many(logger)
    wait_until(lambda: bool(printed))
    finish(logger)
    assert printed == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_a_long_curve_is_downsampled_and_keeps_its_ends(server_port: int, monkeypatch) -> None:
    monkeypatch.setattr(visdom_logger, "MAX_POINTS", 10)
    logger, _ = started(server_port, window="9")
    for step in range(100):
        logger.log_scalars("losses", at(step), {"G": float(step)})
        wait_until(lambda: not logger.queue.events)
    finish(logger)
    shown = curves(server_port, "9_losses")["G"]
    assert len(shown) <= 10 and shown == sorted(shown) and shown[-1] == 99


@pytest.mark.usefixtures("quick")
def test_a_refused_connection_is_reported_once(capfd) -> None:
    port = free_port()
    logger, printed = started(port)
    log_many(logger)
    wait_until(lambda: bool(printed))
    finish(logger)
    assert printed == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


def test_a_silent_server_blocks_only_the_background_thread(monkeypatch) -> None:
    monkeypatch.setattr(visdom_logger, "RESPONSE_TIMEOUT", 100 * HANG_GUARD_SECONDS)
    with silent_server() as port:
        logger, printed = started(port)
        log_many(logger)  # a call that waits for an answer would block until the test is killed
        assert len(logger.queue.events) == MAX_QUEUED and len(logger.queue.images) == 1
        logger.close()
        assert logger.thread.is_alive() and logger.thread.daemon
        assert printed == []
    wait_until(lambda: not logger.thread.is_alive())  # the listener is closed, and with it the connection


@pytest.mark.usefixtures("quick")
def test_a_server_that_does_not_answer_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(visdom_logger, "RESPONSE_TIMEOUT", 0.1)
    with silent_server() as port:
        logger, printed = started(port)
        wait_until(lambda: bool(printed))
        logger.close()
    assert printed == [no_server_line(port)]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut", b"SSH-2.0-x\r\n", b"HTTP/1.0 404 No\r\n\r\n"]
)
@pytest.mark.usefixtures("quick")
def test_other_servers_at_the_port_do_no_harm(answer: bytes, capfd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        logger, printed = started(port)
        logger.log_scalars("losses", at(1), {"G": 1.0})
        wait_until(lambda: bool(printed))
        finish(logger)
        listener.shutdown(socket.SHUT_RDWR)
    assert printed == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


def from_options(*arguments: str) -> VisdomLogger | None:
    return VisdomLogger.from_options(TrainOptions().parse(["--name", "cats", *arguments]), Path("run"))


@pytest.mark.parametrize("display_id", ["0", "-1"])
def test_a_display_id_of_0_or_less_is_off(display_id: str) -> None:
    assert from_options("--display_id", display_id) is None


def test_the_published_options_are_the_settings() -> None:
    given = ["--display_id", "7", "--display_server", "http://host", "--display_port", "9", "--display_env", "e"]
    logger = from_options(*given, "--display_ncols", "2", "--display_winsize", "100")
    assert logger and logger.settings == VisdomSettings("cats", "7", "http://host", 9, "e", 2, 100)
    logger = from_options()
    assert logger and logger.settings == VisdomSettings("cats", "cats", requested=False)


@pytest.mark.parametrize(("given", "lines"), [([], 0), (["--display_id", "1"], 1)])
def test_a_missing_server_is_reported_only_if_visdom_is_requested(given: list[str], lines: int, tmp_path: Path) -> None:
    port = free_port()
    logger = VisdomLogger.from_options(TrainOptions().parse(["--display_port", str(port), *given]), tmp_path)
    printed: list[str] = []
    logger.open_backend(printed.append).flush([ScalarEvent("losses", TrainingPosition(1, 0.5, 1), {"G": 1.0})], None)
    assert printed == [no_server_line(port)] * lines
