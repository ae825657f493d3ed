"""The thread between a run and its visdom board: it does the waiting, the retrying and the catching up."""

import time
from collections.abc import Callable

from util.report.visdom_board import VisdomBoard
from util.report.visdom_inbox import MOST_POINTS, Inbox, Point, VisdomSettings

SHOW_SECONDS = 1.0  # between two looks into the inbox, so that a fast run is shown in few posts
RETRY_SECONDS = 30.0  # until a server that was not there is tried again


class VisdomWorker:
    """Shows what comes into the inbox, while there is a server to show it.

    Args:
        settings: where and how.
        inbox: filled by the other thread.
        say: told once when the server is not there.
    """

    def __init__(self, settings: VisdomSettings, inbox: Inbox, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.inbox = inbox
        self.say = say
        self.board: VisdomBoard | None = None
        self.curve: list[Point] = []  # all of it: a server may come late, or be started anew
        self.drawn = 0  # points of it that have been drawn, unless they are lost with the server
        self.retry_at = 0.0
        self.complained = False

    def run(self) -> None:
        """Body of the thread: ends once the inbox is closing and its last things have been tried."""
        self._look()
        while not self.inbox.closing.wait(SHOW_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        while self.inbox.points:
            self.curve.append(self.inbox.points.popleft())
        if len(self.curve) > MOST_POINTS:
            del self.curve[-2::-2]  # every other point, the newest stays
            self.drawn = 0
        if time.monotonic() < self.retry_at:
            return
        try:
            self._show()
        except Exception:  # whatever a server or visdom's client comes up with: training goes on
            self.board = None
            self.retry_at = time.monotonic() + RETRY_SECONDS
            self._complain_once()

    def _show(self) -> None:
        if self.board is None:
            self.board = VisdomBoard(self.settings)
        if self.drawn < len(self.curve):
            if self.drawn and self.board.has_curves():
                self.board.extend_curves(self.curve[self.drawn :])
            else:
                self.board.draw_curves(self.curve)
            self.drawn = len(self.curve)
        if self.inbox.pictures:
            self.board.show_pictures(self.inbox.pictures.popleft())

    def _complain_once(self) -> None:
        # Not while the process may be ending: a thread killed in the midst of printing can take standard output along.
        if self.complained or self.inbox.closing.is_set():
            return
        self.complained = True
        self.say(
            f"no visdom server at {self.settings.server}:{self.settings.port}: training goes on without the live view; "
            "start one with `python -m visdom.server`"
        )
