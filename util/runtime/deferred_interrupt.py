"""Ctrl-C, held back until the program is at a point where it can stop."""

import signal
from types import FrameType, TracebackType
from typing import Self


class DeferredInterrupt:
    """While it is entered, a first Ctrl-C is only noted, for `raise_if_asked`; a second one interrupts at once.

    Python would raise KeyboardInterrupt wherever it happens to be: within a step, or where a worker process is being
    forked, which swallows it. To be entered in the main thread.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises KeyboardInterrupt where one was asked for, unless something else ends the program already."""
        signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.raise_if_asked()

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt where Ctrl-C was pressed."""
        if self.asked:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.raise_if_asked()
        self.asked = True
