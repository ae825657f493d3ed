"""Ctrl-C and SIGTERM, held back until the program is at a point where it can stop."""

import signal
from types import FrameType, TracebackType
from typing import NoReturn, Self


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which job schedulers end a program."""


SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


class DeferredInterrupt:
    """While it is entered, a first Ctrl-C, or the SIGTERM of a job scheduler, is only noted, for `raise_if_asked`; a second
    one interrupts at once, unless `ignores_more`.

    Python would raise KeyboardInterrupt wherever it happens to be: within a step, or where a worker process is being
    forked, which swallows it. To be entered in the main thread.
    """

    def __init__(self, ignores_more: bool = False) -> None:
        self.ignores_more = ignores_more
        self.asked = False
        self.asked_twice = False
        self._interruption: type[KeyboardInterrupt] = KeyboardInterrupt

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises KeyboardInterrupt where one was asked for, unless something else ends the program already."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.raise_if_asked()

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt where Ctrl-C was pressed, Terminated where SIGTERM came."""
        if self.asked:
            self.stop()

    def stop(self) -> NoReturn:
        """Raises what `raise_if_asked` would, even if it is another process that was asked."""
        raise self._interruption

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and self.ignores_more:
            return
        self.asked_twice = self.asked
        self.raise_if_asked()
        self._interruption = SIGNALS[signal.Signals(number)]
        self.asked = True
