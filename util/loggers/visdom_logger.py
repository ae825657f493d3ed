"""Live view on a visdom server that the user has started; training never waits for it."""

from collections.abc import Callable
from dataclasses import dataclass

from util.loggers.base import BackgroundView, LiveView, LiveViews, Screen

CLOSE_SECONDS = 2.0  # for the last things to be shown


@dataclass(frozen=True)
class VisdomSettings:
    """Where the visdom server is and how a run appears on it.

    Attributes:
        server: address with its scheme, such as "http://localhost".
        port: of the server.
        env: visdom environment that the windows lie in.
        title: of the run, in the titles of its windows.
        window: begins the ids of its windows; runs with the same id share them.
        columns: pictures per row of the one picture window; 0 gives every picture a window of its own.
        picture_width: shown width of a picture in pixels.
    """

    server: str
    port: int
    env: str
    title: str
    window: str
    columns: int
    picture_width: int


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
        return LiveViews([])
    window = name if display_id is None else str(display_id)
    settings = VisdomSettings(display_server, display_port, display_env, name, window, display_ncols, display_winsize)

    def open_screen(say: Callable[[str], None]) -> Screen:
        from util.loggers.visdom_backend import VisdomScreen

        return VisdomScreen(settings, say)

    return BackgroundView("visdom", open_screen, CLOSE_SECONDS)
