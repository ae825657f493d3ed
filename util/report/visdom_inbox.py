"""What the two threads of the visdom view share: its settings, and the inbox between them."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

MOST_POINTS = 4000  # of the loss curves

Point = tuple[float, Mapping[str, float]]  # epoch with its fraction, losses by name


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


@dataclass(frozen=True)
class Inbox:
    """What waits to be shown. Both sides use only calls that are atomic and never wait; the oldest gives way.

    Attributes:
        points: of the loss curves.
        pictures: the newest uint8 pictures (H, W[, 3]) by name.
        closing: set when nothing more will come.
    """

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    pictures: deque[Mapping[str, np.ndarray]] = field(default_factory=lambda: deque(maxlen=1))
    closing: threading.Event = field(default_factory=threading.Event)
