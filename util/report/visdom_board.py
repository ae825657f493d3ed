"""The windows of a run on a visdom server: its loss curves and its pictures. Every call waits for the network."""

import logging
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from urllib.request import Request, urlopen

import numpy as np
from visdom import Visdom

from util.report.pictures import picture_grid
from util.report.visdom_inbox import Point, VisdomSettings

ANSWER_SECONDS = 5.0


class NoAnswerError(Exception):
    """Nothing answers at the address of the server as visdom does."""


class PromptVisdom(Visdom):
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


class VisdomBoard:
    """A connection to a server, and the windows of one run there.

    Raises:
        NoAnswerError: on construction and from every method.
    """

    def __init__(self, settings: VisdomSettings) -> None:
        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        self.settings = settings
        self._curves = f"{settings.window}_losses"
        # The incoming socket would start a thread that reconnects, and logs each failure, as long as the process lives.
        self.client = PromptVisdom(
            server=settings.server,
            port=settings.port,
            env=settings.env,
            use_incoming_socket=False,
        )

    def has_curves(self) -> bool:
        """Whether the server has this run's loss curves; one that was started anew, or told to forget them, has not."""
        return bool(self.client.win_exists(self._curves))

    def draw_curves(self, points: Sequence[Point]) -> None:
        """Draws the loss curves anew."""
        self._draw(points, update=None)

    def extend_curves(self, points: Sequence[Point]) -> None:
        """Continues the loss curves."""
        self._draw(points, update="append")

    def show_pictures(self, pictures: Mapping[str, np.ndarray]) -> None:
        """Shows uint8 pictures (H, W[, 3]), in one window or in one each."""
        if self.settings.columns > 0:
            self._show("pictures", pictures)
        else:
            for name, picture in pictures.items():
                self._show(name, {name: picture})

    def _draw(self, points: Sequence[Point], update: str | None) -> None:
        names = list(points[-1][1])
        epochs = np.array([epoch for epoch, _ in points])
        self.client.line(
            X=np.tile(epochs[:, None], len(names)),
            Y=np.array([[losses.get(name, np.nan) for name in names] for _, losses in points]),
            win=self._curves,
            update=update,
            opts={"title": f"{self.settings.title}: losses", "legend": names, "xlabel": "epoch", "ylabel": "loss"},
        )

    def _show(self, window: str, pictures: Mapping[str, np.ndarray]) -> None:
        columns = min(len(pictures), max(1, self.settings.columns))
        pixels = picture_grid(pictures, columns)
        width = columns * self.settings.picture_width
        self.client.image(
            pixels.transpose(2, 0, 1),
            win=f"{self.settings.window}_{window}",
            opts={
                "title": f"{self.settings.title}: {' | '.join(pictures)}",
                "width": width,
                "height": round(width * pixels.shape[0] / pixels.shape[1]),
            },
        )
