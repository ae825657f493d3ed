"""Visdom logger: curves and images on a visdom server that the user has started."""

import logging
import time
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

import numpy as np

from util.cli import non_negative_int, positive_int
from util.images import image_grid
from util.loggers.base import AsyncLogger, LoggedImages, LoggerBackend, ScalarEvent

MAX_POINTS = 4000  # of a chart; beyond that, every other point is dropped
RETRY_SECONDS = 30.0  # pause after a failed connection
RESPONSE_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True)
class VisdomSettings:
    """Address of the visdom server, and appearance of a run on it.

    Attributes:
        title: name of the run, shown in window titles.
        window: prefix of the window ids; runs with the same prefix share their windows.
        server: address with scheme.
        port: port of the server.
        env: visdom environment of the windows.
        columns: images per row of the image window; 0: one window per image.
        image_width: displayed width of an image in pixels.
        requested: the user has asked for visdom, so a missing server is reported.
    """

    title: str
    window: str
    server: str = "http://localhost"
    port: int = 8097
    env: str = "main"
    columns: int = 4
    image_width: int = 256
    requested: bool = True


class VisdomLogger(AsyncLogger):
    """Shows a run on a visdom server. The server is never started from here."""

    package = "visdom"
    close_timeout = 2.0

    def __init__(self, settings: VisdomSettings) -> None:
        super().__init__()
        self.settings = settings

    @staticmethod
    def add_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
        """Declare the published --display_* options of visdom."""
        group.add_argument(
            "--display_id",
            type=int,
            default=None,
            help="window id of the visdom display; 0 or less: off; by default the name of the run, if a server answers",
        )
        group.add_argument("--display_server", default="http://localhost", help="address of the visdom server")
        group.add_argument("--display_port", type=positive_int, default=8097, help="port of the visdom server")
        group.add_argument("--display_env", default="main", help="visdom environment")
        group.add_argument(
            "--display_ncols", type=non_negative_int, default=4, help="images per row; 0: one window per image"
        )

    @classmethod
    def from_options(cls, opt: Namespace, run_dir: Path) -> Self | None:
        """Return the logger unless --display_id is 0 or less, or not given while visdom is not installed."""
        requested = opt.display_id is not None
        is_off = opt.display_id <= 0 if requested else find_spec("visdom") is None
        if is_off:
            return None
        return cls(
            VisdomSettings(
                title=opt.name,
                window=opt.name if opt.display_id is None else str(opt.display_id),
                server=opt.display_server,
                port=opt.display_port,
                env=opt.display_env,
                columns=opt.display_ncols,
                image_width=opt.display_winsize,
                requested=requested,
            )
        )

    def open_backend(self, print_fn: Callable[[str], None]) -> LoggerBackend:
        """Import visdom. Raise ImportError if it is not installed."""
        return VisdomBackend(self.settings, timeout_visdom(), print_fn)


@dataclass
class ChartHistory:
    """All points of a chart, for a server that starts late or restarts, and the number of points it has received."""

    events: list[ScalarEvent] = field(default_factory=list)
    sent: int = 0

    def add(self, event: ScalarEvent) -> None:
        """Append a point. Drop every other point if there are more than MAX_POINTS; the newest stays."""
        self.events.append(event)
        if len(self.events) > MAX_POINTS:
            del self.events[-2::-2]
            self.sent = 0


def split_by_scale(event: ScalarEvent) -> list[ScalarEvent]:
    """Return an event for each window. Losses share one, as published; a metric shares it only with that of G_ema.

    Values of FID are a thousand times those of KID.
    """
    if event.chart == "losses":
        return [event]
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in event.values.items():
        metrics[name.partition(" of ")[0]][name] = value
    return [ScalarEvent(metric, event.position, values) for metric, values in metrics.items()]


class VisdomBackend:
    """Sends a run to a visdom server, and reconnects after a failure.

    Args:
        settings: address and appearance.
        visdom: class of the connection.
        print_fn: called once if a requested server does not answer.
    """

    def __init__(self, settings: VisdomSettings, visdom: Callable[..., Any], print_fn: Callable[[str], None]) -> None:
        self.settings = settings
        self.visdom = visdom
        self.print_fn = print_fn
        self.client: VisdomClient | None = None
        self.charts: dict[str, ChartHistory] = defaultdict(ChartHistory)
        self.images: LoggedImages | None = None
        self.retry_at = 0.0
        self.warned = False

    def flush(self, events: Sequence[ScalarEvent], images: LoggedImages | None) -> None:
        """Send new data, and earlier data that the server has not received."""
        for event in events:
            for part in split_by_scale(event):
                self.charts[part.chart].add(part)
        self.images = images or self.images
        if time.monotonic() < self.retry_at:
            return
        try:
            self._send_all()
        except Exception:  # any error of the server or visdom's client: training continues
            self.client = None
            self.retry_at = time.monotonic() + RETRY_SECONDS
            self._warn_once()

    def close(self) -> None:
        """Leave the windows on the server."""

    def _send_all(self) -> None:
        if self.client is None:
            self.client = VisdomClient(self.settings, self.visdom)
        for chart, history in self.charts.items():
            if history.sent < len(history.events):
                if history.sent and self.client.has_window(chart):
                    self.client.append(chart, history.events[history.sent :])
                else:
                    self.client.plot(chart, history.events)
                history.sent = len(history.events)
        if self.images:
            self.client.show_images(self.images[1])
            self.images = None

    def _warn_once(self) -> None:
        if self.settings.requested and not self.warned:
            self.warned = True
            self.print_fn(
                f"no visdom server at {self.settings.server}:{self.settings.port}: training continues without it. "
                "Start one with `python -m visdom.server`."
            )


class NoAnswerError(Exception):
    """Raised if the server does not answer as visdom does."""


def timeout_visdom() -> Callable[..., Any]:
    """Import visdom, and return its client class with a time limit on every request.

    Visdom's own requests have no time limit: a server that accepts and does not answer blocks its client forever. If they
    fail, visdom prints, even when asked to raise.
    """
    from visdom import Visdom  # optional package

    class TimeoutVisdom(Visdom):
        def _handle_post(self, url: str, data: str = "") -> str:
            # The method that visdom's documentation names for replacing its requests. All data is JSON.
            try:
                with urlopen(Request(url, data.encode()), timeout=RESPONSE_TIMEOUT) as answer:
                    return answer.read().decode()
            except (OSError, HTTPException) as error:
                raise NoAnswerError(url) from error

    return TimeoutVisdom


class VisdomClient:
    """Connection to a server, and the windows of one run on it. Every method waits for the network.

    Raises:
        NoAnswerError: in the constructor and in every method.
    """

    def __init__(self, settings: VisdomSettings, visdom: Callable[..., Any]) -> None:
        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        self.settings = settings
        # The incoming socket would start a thread that reconnects, and logs each failure, until the process exits.
        self.connection = visdom(server=settings.server, port=settings.port, env=settings.env, use_incoming_socket=False)

    def has_window(self, chart: str) -> bool:
        """Return True if the server has the window of this chart; a restarted server does not."""
        return bool(self.connection.win_exists(self._window(chart)))

    def plot(self, chart: str, events: Sequence[ScalarEvent]) -> None:
        """Plot the curves of a chart, replacing an earlier plot."""
        self._line(chart, events, update=None)

    def append(self, chart: str, events: Sequence[ScalarEvent]) -> None:
        """Append points to the curves of a chart."""
        self._line(chart, events, update="append")

    def show_images(self, images: Mapping[str, np.ndarray]) -> None:
        """Show uint8 images (H, W[, 3]), in one window or in one window each."""
        if self.settings.columns > 0:
            self._show("images", images)
        else:
            for name, image in images.items():
                self._show(name, {name: image})

    def _window(self, name: str) -> str:
        return f"{self.settings.window}_{name}"

    def _line(self, chart: str, events: Sequence[ScalarEvent], update: str | None) -> None:
        names = list(events[-1].values)
        epochs = np.array([1 + event.position.epochs_done for event in events])  # as published: epoch 1 starts at 1.0
        self.connection.line(
            X=np.tile(epochs[:, None], len(names)),
            Y=np.array([[event.values.get(name, np.nan) for name in names] for event in events]),
            win=self._window(chart),
            update=update,
            opts={"title": f"{self.settings.title}: {chart}", "legend": names, "xlabel": "epoch", "ylabel": chart},
        )

    def _show(self, window: str, images: Mapping[str, np.ndarray]) -> None:
        columns = min(len(images), max(1, self.settings.columns))
        pixels = image_grid(images, columns)
        width = columns * self.settings.image_width
        self.connection.image(
            pixels.transpose(2, 0, 1),
            win=self._window(window),
            opts={
                "title": f"{self.settings.title}: {' | '.join(images)}",
                "width": width,
                "height": round(width * pixels.shape[0] / pixels.shape[1]),
            },
        )
