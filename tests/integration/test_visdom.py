"""The live view against real sockets: visdom's own server, and whatever may be in its place."""

import json
import socket
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch

pytest.importorskip("visdom")

from visdom_servers import HANG_GUARD_SECONDS, free_port, no_server_line, silent_server, visdom_server, wait_until

from util.loggers import base, visdom_backend, visdom_client
from util.loggers.base import MOST_POINTS, AsyncLogger, Logger, LoggerGroup, TrainingPosition
from util.loggers.visdom_logger import visdom_logger

PLOT_CALLS = 5000
VISUALS = {"real_A": torch.zeros(1, 3, 16, 16), "fake_B": torch.ones(1, 1, 16, 16), "real_B": torch.zeros(1, 3, 8, 8)}


def started(port: int, **settings: object) -> tuple[AsyncLogger, list[str]]:
    """A live view at that port, and what it says from now on."""
    sink = visdom_logger("cats", display_port=port, **settings)
    assert isinstance(sink, AsyncLogger)
    said: list[str] = []
    sink.start(said.append)
    return sink, said


def finish(sink: AsyncLogger) -> None:
    """Closes the view, and waits until it has shown everything."""
    sink.close()
    wait_until(lambda: not sink.thread.is_alive())


def at(epoch: float) -> TrainingPosition:
    """The moment that visdom's curves show at `epoch`, which begins at 1.0."""
    return TrainingPosition(int(epoch), epoch - 1, round((epoch - 1) * 100))


def plot_many(sink: Logger) -> None:
    for call in range(PLOT_CALLS):
        sink.plot("losses", at(1 + call / PLOT_CALLS), {"G_GAN": float(call), "D_real": 0.5})
        sink.images(at(2), VISUALS)


def window(port: int, name: str, env: str = "main") -> dict | None:
    """A window as the server holds it; None where it has none, which visdom answers with an error of the server."""
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
    """No pauses between looks into the inbox or between attempts."""
    monkeypatch.setattr(base, "FLUSH_INTERVAL", 0.02)
    monkeypatch.setattr(visdom_backend, "RETRY_SECONDS", 0.0)


@pytest.fixture(scope="module")
def server_port(tmp_path_factory) -> int:
    port = free_port()
    with visdom_server(port, tmp_path_factory.mktemp("visdom")):
        yield port


@pytest.mark.usefixtures("quick")
def test_curves_and_images_arrive_in_a_real_server(server_port: int) -> None:
    sink, said = started(server_port, display_id=7)
    sink.plot("losses", at(1.25), {"G_GAN": 1.0, "D_real": 2.0})
    wait_until(lambda: curves(server_port, "7_losses") == {"G_GAN": [1.0], "D_real": [2.0]})
    sink.plot("losses", at(1.5), {"G_GAN": 3.0, "D_real": float("nan")})
    sink.plot("losses", at(1.75), {"G_GAN": 4.0, "D_real": 5.0})
    sink.images(at(2), VISUALS)
    finish(sink)
    assert curves(server_port, "7_losses") == {"G_GAN": [1.0, 3.0, 4.0], "D_real": [2.0, None, 5.0]}
    shown = window(server_port, "7_images")
    assert shown["title"] == "cats: real_A | fake_B | real_B"
    assert (shown["width"], shown["height"]) == (3 * 256, round(3 * 256 * 16 / 52))
    assert shown["content"]["src"].startswith("data:image/png;base64,")
    assert said == []
    assert not [thread.name for thread in threading.enumerate() if "Socket" in thread.name]


@pytest.mark.usefixtures("quick")
def test_no_columns_means_a_window_per_image_and_no_id_means_the_runs_name(server_port: int) -> None:
    sink, _ = started(server_port, display_ncols=0, display_winsize=100, display_env="other")
    sink.images(at(2), VISUALS)
    finish(sink)
    for name in VISUALS:
        shown = window(server_port, f"cats_{name}", env="other")
        assert (shown["title"], shown["width"], shown["height"]) == (f"cats: {name}", 100, 100)


@pytest.mark.usefixtures("quick")
def test_a_server_that_comes_late_or_anew_gets_the_whole_curve(tmp_path) -> None:
    port = free_port()
    sink, said = started(port)
    sink.plot("losses", at(1.25), {"G": 1.0})
    wait_until(lambda: bool(said))
    sink.plot("losses", at(1.5), {"G": 2.0})
    with visdom_server(port, tmp_path):
        wait_until(lambda: curves(port, "cats_losses") == {"G": [1.0, 2.0]})
    with visdom_server(port, tmp_path):
        sink.plot("losses", at(1.75), {"G": 3.0})
        wait_until(lambda: curves(port, "cats_losses") == {"G": [1.0, 2.0, 3.0]})
        sink.close()
    assert said == [no_server_line(port)]


@pytest.mark.usefixtures("quick")
def test_a_server_that_dies_midway_is_mentioned_once(tmp_path, capfd) -> None:
    port = free_port()
    with visdom_server(port, tmp_path) as server:
        sink, said = started(port)
        sink.plot("losses", at(1.0), {"G_GAN": 1.0, "D_real": 2.0})
        wait_until(lambda: bool(curves(port, "cats_losses")))
        server.kill()
        server.wait()
    plot_many(sink)
    wait_until(lambda: bool(said))
    finish(sink)
    assert said == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_a_long_curve_is_thinned_and_keeps_its_ends(server_port: int, monkeypatch) -> None:
    monkeypatch.setattr(visdom_backend, "MOST_POINTS", 10)
    sink, _ = started(server_port, display_id=9)
    for step in range(100):
        sink.plot("losses", at(step), {"G": float(step)})
        wait_until(lambda: not sink.queue.points)
    finish(sink)
    shown = curves(server_port, "9_losses")["G"]
    assert len(shown) <= 10 and shown == sorted(shown) and shown[-1] == 99


@pytest.mark.usefixtures("quick")
def test_a_refused_connection_is_mentioned_once_and_quietly(capfd) -> None:
    port = free_port()
    sink, said = started(port)
    plot_many(sink)
    wait_until(lambda: bool(said))
    finish(sink)
    assert said == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


def test_a_silent_server_holds_up_its_thread_and_nobody_else(monkeypatch) -> None:
    monkeypatch.setattr(visdom_client, "ANSWER_SECONDS", 100 * HANG_GUARD_SECONDS)
    with silent_server() as port:
        sink, said = started(port)
        plot_many(sink)  # whoever waits here for an answer waits until the test is killed
        assert len(sink.queue.points) == MOST_POINTS and len(sink.queue.images) == 1
        sink.close()
        assert sink.thread.is_alive() and sink.thread.daemon
        assert said == []
    wait_until(lambda: not sink.thread.is_alive())  # the listener is gone, and with it the connection


@pytest.mark.usefixtures("quick")
def test_a_server_that_stays_silent_too_long_is_mentioned(monkeypatch) -> None:
    monkeypatch.setattr(visdom_client, "ANSWER_SECONDS", 0.1)
    with silent_server() as port:
        sink, said = started(port)
        wait_until(lambda: bool(said))
        sink.close()
    assert said == [no_server_line(port)]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut", b"SSH-2.0-x\r\n", b"HTTP/1.0 404 No\r\n\r\n"]
)
@pytest.mark.usefixtures("quick")
def test_whatever_else_listens_there_is_survived(answer: bytes, capfd) -> None:
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
        sink, said = started(port)
        sink.plot("losses", at(1), {"G": 1.0})
        wait_until(lambda: bool(said))
        finish(sink)
        listener.shutdown(socket.SHUT_RDWR)
    assert said == [no_server_line(port)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("display_id", [0, -1])
def test_zero_or_less_switches_the_view_off(display_id: int) -> None:
    view = visdom_logger("cats", display_id=display_id)
    assert isinstance(view, LoggerGroup) and not view.views
    view.start(print)
    plot_many(view)
    view.close()
