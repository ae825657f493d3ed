"""Live view on a visdom server that the user has started; training never waits for it."""

import threading
from collections.abc import Callable, Mapping

import torch
from PIL import Image

from util.report.live_view import LiveView, NoLiveView
from util.report.pictures import to_uint8
from util.report.visdom_inbox import Inbox, VisdomSettings

CLOSE_SECONDS = 2.0  # how long the last things may take to be shown when the run ends


def open_visdom(
    name: str,
    display_id: int | None = None,
    display_server: str = "http://localhost",
    display_port: int = 8097,
    display_env: str = "main",
    display_ncols: int = 4,
    display_winsize: int = 256,
) -> LiveView:
    """The live view that the published options describe.

    Args:
        name: of the run; titles its windows, and tells them from another run's where `display_id` is None.
        display_id: id of the windows; 0 or less switches the view off.
        display_server, display_port, display_env: where the windows lie. The server is never started from here.
        display_ncols: pictures per row; 0 gives every picture a window of its own.
        display_winsize: shown width of a picture in pixels.
    """
    if display_id is not None and display_id <= 0:
        return NoLiveView()
    window = name if display_id is None else str(display_id)
    return VisdomSink(
        VisdomSettings(display_server, display_port, display_env, name, window, display_ncols, display_winsize)
    )


class VisdomSink:
    """A `LiveView` on a visdom server.

    The caller's thread only puts things into a bounded inbox, the oldest giving way. A daemon thread does all the
    waiting for a server that is not there, does not answer or goes away.
    """

    def __init__(self, settings: VisdomSettings) -> None:
        self.settings = settings
        self.inbox = Inbox()
        self.thread: threading.Thread | None = None

    def start(self, say: Callable[[str], None]) -> None:
        """Starts the thread, or says that visdom is not installed."""
        # Imported here and not in the thread: a data loader that forks its workers meanwhile would copy a half-done
        # import with its lock held for ever. PIL's file formats are imported on first use, so they come now as well.
        Image.preinit()
        try:
            from util.report.visdom_worker import VisdomWorker
        except ImportError:
            say("visdom is not installed: training goes on without the live view; `pip install visdom` brings it")
            return
        worker = VisdomWorker(self.settings, self.inbox, say)
        self.thread = threading.Thread(target=worker.run, name="visdom", daemon=True)
        self.thread.start()

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        """Continues the loss curves at `epoch`, whose fraction tells how much of the epoch is done."""
        self.inbox.points.append((epoch, dict(losses)))

    def pictures(self, visuals: Mapping[str, torch.Tensor]) -> None:
        """Shows the first picture of each tensor (N, C, H, W) in [-1, 1] in place of those before."""
        self.inbox.pictures.append({name: to_uint8(tensor) for name, tensor in visuals.items()})

    def close(self) -> None:
        """Gives the last things a moment to be shown."""
        self.inbox.closing.set()
        if self.thread is not None:
            self.thread.join(CLOSE_SECONDS)
