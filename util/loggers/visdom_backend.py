"""What stands between a run and its visdom board: it does the retrying and the catching up."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from util.loggers.base import Images, ScalarEvent
from util.loggers.visdom_client import VisdomClient
from util.loggers.visdom_logger import VisdomSettings

MAX_POINTS = 4000  # of a chart; every other one is given up when there are more
RETRY_SECONDS = 30.0  # until a server that was not there is tried again


@dataclass
class Curves:
    """All points of a chart, since a server may come late or be started anew, and how many of them have been drawn."""

    points: list[ScalarEvent] = field(default_factory=list)
    drawn: int = 0

    def add(self, point: ScalarEvent) -> None:
        self.points.append(point)
        if len(self.points) > MAX_POINTS:
            del self.points[-2::-2]  # the newest stays
            self.drawn = 0


class VisdomBackend:
    """A `LoggerBackend` that shows a run while there is a server to show it.

    Args:
        settings: where and how.
        say: told once when the server is not there.
    """

    def __init__(self, settings: VisdomSettings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.say = say
        self.board: VisdomClient | None = None
        self.charts: dict[str, Curves] = defaultdict(Curves)
        self.images: Images | None = None
        self.retry_at = 0.0
        self.warned = False

    def show(self, points: Sequence[ScalarEvent], images: Images | None) -> None:
        """Shows what has come, and what could not be shown before."""
        for point in points:
            self.charts[point.chart].add(point)
        self.images = images or self.images
        if time.monotonic() < self.retry_at:
            return
        try:
            self._show_all()
        except Exception:  # whatever a server or visdom's client comes up with: training goes on
            self.board = None
            self.retry_at = time.monotonic() + RETRY_SECONDS
            self._warn_once()

    def close(self) -> None:
        """Leaves the windows on the server."""

    def _show_all(self) -> None:
        if self.board is None:
            self.board = VisdomClient(self.settings)
        for chart, curves in self.charts.items():
            if curves.drawn < len(curves.points):
                if curves.drawn and self.board.has_window(chart):
                    self.board.extend(chart, curves.points[curves.drawn :])
                else:
                    self.board.draw(chart, curves.points)
                curves.drawn = len(curves.points)
        if self.images:
            self.board.show_images(self.images[1])
            self.images = None

    def _warn_once(self) -> None:
        if not self.warned:
            self.warned = True
            self.say(
                f"no visdom server at {self.settings.server}:{self.settings.port}: training goes on without the live view; "
                "start one with `python -m visdom.server`"
            )
