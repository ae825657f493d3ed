"""Live view on a visdom server that the user has started; training never waits for it."""

from collections.abc import Callable
from dataclasses import dataclass

from util.loggers.base import AsyncLogger, Logger, LoggerBackend, LoggerGroup

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
        columns: images per row of the one image window; 0 gives every image a window of its own.
        image_width: shown width of an image in pixels.
    """

    server: str
    port: int
    env: str
    title: str
    window: str
    columns: int
    image_width: int


def visdom_logger(
    name: str,
    display_id: int | None = None,
    display_server: str = "http://localhost",
    display_port: int = 8097,
    display_env: str = "main",
    display_ncols: int = 4,
    display_winsize: int = 256,
) -> Logger:
    """The live view that the published options describe.

    Args:
        name: of the run; titles its windows, and tells them from another run's where `display_id` is None.
        display_id: id of the windows; 0 or less switches the view off.
        display_server, display_port, display_env: where the windows lie. The server is never started from here.
        display_ncols: images per row; 0 gives every image a window of its own.
        display_winsize: shown width of an image in pixels.
    """
    if display_id is not None and display_id <= 0:
        return LoggerGroup([])
    window = name if display_id is None else str(display_id)
    settings = VisdomSettings(display_server, display_port, display_env, name, window, display_ncols, display_winsize)

    def open_backend(say: Callable[[str], None]) -> LoggerBackend:
        from util.loggers.visdom_backend import VisdomBackend

        return VisdomBackend(settings, say)

    return AsyncLogger("visdom", open_backend, CLOSE_SECONDS)
