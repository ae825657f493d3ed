"""The windows of a run on a visdom server: its curves and its images. Every call waits for the network."""

import logging
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from urllib.request import Request, urlopen

import numpy as np
from visdom import Visdom

from util.images import image_grid
from util.loggers.base import ScalarEvent
from util.loggers.visdom_logger import VisdomSettings

ANSWER_SECONDS = 5.0


class NoAnswerError(Exception):
    """Nothing answers at the address of the server as visdom does."""


class TimeoutVisdom(Visdom):
    """A visdom client that within seconds has an answer or raises `NoAnswerError`.

    Visdom's own posts have no time limit, so that a server which accepts and stays silent holds its client for ever.
    Where they fail it prints, even when asked to raise.
    """

    def _handle_post(self, url: str, data: str = "") -> str:
        # The method that visdom's documentation names for replacing how it posts. All that it posts is JSON.
        try:
            with urlopen(Request(url, data.encode()), timeout=ANSWER_SECONDS) as answer:
                return answer.read().decode()
        except (OSError, HTTPException) as error:
            raise NoAnswerError(url) from error


class VisdomClient:
    """A connection to a server, and the windows of one run there.

    Raises:
        NoAnswerError: on construction and from every method.
    """

    def __init__(self, settings: VisdomSettings) -> None:
        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        self.settings = settings
        # The incoming socket would start a thread that reconnects, and logs each failure, as long as the process lives.
        self.client = TimeoutVisdom(
            server=settings.server,
            port=settings.port,
            env=settings.env,
            use_incoming_socket=False,
        )

    def has_window(self, chart: str) -> bool:
        """Whether the server has this run's chart; one that was started anew, or told to forget it, has not."""
        return bool(self.client.win_exists(self._window(chart)))

    def draw(self, chart: str, points: Sequence[ScalarEvent]) -> None:
        """Draws the curves of a chart anew."""
        self._draw(chart, points, update=None)

    def extend(self, chart: str, points: Sequence[ScalarEvent]) -> None:
        """Continues the curves of a chart."""
        self._draw(chart, points, update="append")

    def show_images(self, images: Mapping[str, np.ndarray]) -> None:
        """Shows uint8 images (H, W[, 3]), in one window or in one each."""
        if self.settings.columns > 0:
            self._show("pictures", images)
        else:
            for name, image in images.items():
                self._show(name, {name: image})

    def _window(self, name: str) -> str:
        return f"{self.settings.window}_{name}"

    def _draw(self, chart: str, points: Sequence[ScalarEvent], update: str | None) -> None:
        names = list(points[-1].values)
        epochs = np.array([1 + point.position.epochs_done for point in points])  # as published: epoch 1 begins at 1.0
        self.client.line(
            X=np.tile(epochs[:, None], len(names)),
            Y=np.array([[point.values.get(name, np.nan) for name in names] for point in points]),
            win=self._window(chart),
            update=update,
            opts={"title": f"{self.settings.title}: {chart}", "legend": names, "xlabel": "epoch", "ylabel": chart},
        )

    def _show(self, window: str, images: Mapping[str, np.ndarray]) -> None:
        columns = min(len(images), max(1, self.settings.columns))
        pixels = image_grid(images, columns)
        width = columns * self.settings.image_width
        self.client.image(
            pixels.transpose(2, 0, 1),
            win=self._window(window),
            opts={
                "title": f"{self.settings.title}: {' | '.join(images)}",
                "width": width,
                "height": round(width * pixels.shape[0] / pixels.shape[1]),
            },
        )
