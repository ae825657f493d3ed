"""Ctrl-C and the stop signals of job schedulers, deferred until training can stop."""

import signal
import time
from types import FrameType, TracebackType
from typing import NoReturn, Self

# SIGINT is Ctrl-C. A terminal that closes and a broken ssh connection send SIGHUP. Slurm, PBS, LSF and torchrun send
# SIGTERM. A limit of CPU time sends SIGXCPU. Grid Engine (SIGUSR1, SIGUSR2), LSF (SIGUSR2) and `sbatch --signal`
# warn by a user signal, which would end the program by default. SIGQUIT keeps its meaning: end at once with a core dump.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))  # Windows has only the first two


class Terminated(KeyboardInterrupt):
    """A stop signal other than Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Raise Terminated. Ignore further stop signals except Ctrl-C: schedulers repeat theirs while a program ends."""
    for other in STOP_SIGNALS:
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)


def is_free(number: signal.Signals) -> bool:
    """Return whether nobody else ignores or handles this signal, as nohup does with SIGHUP."""
    return signal.getsignal(number) in (signal.SIG_DFL, raise_terminated)


# Handled even if ignored before: shells start background jobs with SIGINT ignored.
ALWAYS = (signal.SIGINT, signal.SIGTERM)
# Seconds that a step may wait for its batch after a stop signal. Docker sends SIGKILL 10 seconds after SIGTERM.
TIMEOUT = 4.0
PATIENCE_OF_A_GROUP = 20.0  # a process that stops alone breaks the step of the others


class DeferredInterrupt:
    """In the body, a first stop signal is only noted, for `raise_if_requested`. A second Ctrl-C interrupts at once, unless
    `ignore_repeats`, as in a group of processes. Other signals that follow are ignored.

    Python would raise KeyboardInterrupt in the middle of a step. To be entered in the main thread.
    """

    def __init__(self, ignore_repeats: bool = False) -> None:
        self.ignore_repeats = ignore_repeats
        self.asked = False
        self.forced = False
        self._number: int = signal.SIGINT
        self._asked_at = 0.0
        self._patience = PATIENCE_OF_A_GROUP if ignore_repeats else TIMEOUT
        self._presses = 0  # of Ctrl-C

    def __enter__(self) -> Self:
        heeded = [number for number in STOP_SIGNALS if number in ALWAYS or is_free(number)]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise KeyboardInterrupt if a stop was asked for, unless something else ends the program already."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, Terminated after another stop signal."""
        if self.asked:
            self.stop()

    def raise_if_overdue(self) -> None:
        """Raise as `raise_if_requested` if the signal is too old. To be called while waiting between steps."""
        if self.asked and time.monotonic() - self._asked_at > self._patience:
            self.stop()

    def stop(self) -> NoReturn:
        """Raise as `raise_if_requested`, even if only another process was asked."""
        raise KeyboardInterrupt if self._number == signal.SIGINT else Terminated(self._number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._presses += number == signal.SIGINT
        if not self.asked:
            self.asked, self._number, self._asked_at = True, number, time.monotonic()
        elif self._presses > 1 and number == signal.SIGINT and not self.ignore_repeats:
            self.forced = True
            self.stop()
