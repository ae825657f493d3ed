"""Ctrl-C and the stop signals of job schedulers: how they end a program, and how training defers them to a step's end."""

import os
import signal
import threading
import time
from contextlib import suppress
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
    """Return True if nothing else ignores or handles this signal. nohup ignores SIGHUP."""
    return signal.getsignal(number) in (signal.SIG_DFL, raise_terminated)


def quiet_sigint_during_import() -> None:
    """Make Ctrl-C end the program at once, without a traceback, until `restore_sigint`.

    A program calls it before it imports PyTorch, which takes seconds. An ignored SIGINT stays ignored, as in a script's
    background job.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def restore_sigint() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, and the other stop signals raise Terminated.

    Signals that are ignored or have another handler are left alone.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number != signal.SIGINT and is_free(number):
                signal.signal(number, raise_terminated)


def end_quietly() -> None:
    """Let no signal print a traceback while Python exits: Ctrl-C ends it at once, the others leave its status as it is."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (signal.default_int_handler, raise_terminated):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)


# Deferred even if ignored before: shells start background jobs with SIGINT ignored.
ALWAYS_DEFERRED = (signal.SIGINT, signal.SIGTERM)
# Seconds that a step may wait for its batch after a stop signal. Docker sends SIGKILL 10 seconds after SIGTERM.
TIMEOUT = 4.0
STDERR = 2
STOPPING = "stopping after this step, then saving"
GROUP_TIMEOUT = 20.0  # a process that stops alone breaks the step of the others


class DeferredInterrupt:
    """Context manager that defers a stop signal until `raise_if_requested`, because a step must not end in the middle.

    A second Ctrl-C raises at once, unless `ignore_repeats` or the exception of the first is on its way. Any other further
    signal is ignored. It must be entered in the main thread.

    Args:
        ignore_repeats: ignore a second Ctrl-C as well. Each process of a group receives several.
        announces: print on the first signal what happens, since the step may take long.

    Attributes:
        requested: a stop signal has arrived.
        forced: a second Ctrl-C has arrived before the end.
    """

    def __init__(self, ignore_repeats: bool = False, announces: bool = False) -> None:
        self.announces = announces
        self.ignore_repeats = ignore_repeats
        self.requested = False
        self.forced = False
        self._is_raised = False
        self._number: int = signal.SIGINT
        self._requested_at = 0.0
        self._timeout = GROUP_TIMEOUT if ignore_repeats else TIMEOUT
        self._ctrl_c_count = 0

    def __enter__(self) -> Self:
        deferred = [number for number in STOP_SIGNALS if number in ALWAYS_DEFERRED or is_free(number)]
        self._before = {number: signal.signal(number, self._handle) for number in deferred}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Restore the handlers. Raise KeyboardInterrupt if a stop was requested, unless another exception is on its way."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, Terminated after another stop signal."""
        if self.requested:
            self.stop()

    def raise_if_overdue(self) -> None:
        """Raise as `raise_if_requested` once the signal is older than the timeout. Call it while waiting between steps."""
        if self.requested and time.monotonic() - self._requested_at > self._timeout:
            self.stop()

    def stop(self) -> NoReturn:
        """Raise as `raise_if_requested`, even if only another process has received a signal."""
        self._is_raised = True
        raise KeyboardInterrupt if self._number == signal.SIGINT else Terminated(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._ctrl_c_count += number == signal.SIGINT
        if not self.requested:
            self.requested, self._number, self._requested_at = True, number, time.monotonic()
            if self.announces:
                self._announce()
        elif self._ctrl_c_count > 1 and number == signal.SIGINT and not self.ignore_repeats:
            self.forced = True
            if not self._is_raised:  # generators are being closed then, in which Python prints exceptions and ignores them
                self.stop()

    def _announce(self) -> None:
        """Print what the signal does. Write to the file itself: the signal may interrupt a print."""
        again = self._number == signal.SIGINT and not self.ignore_repeats
        text = f"{STOPPING}; again: stop now, unsaved" if again else STOPPING
        with suppress(OSError):  # stderr may be closed
            start = "\n" if os.isatty(STDERR) else ""  # below the progress bar and ^C
            os.write(STDERR, f"{start}{text}\n".encode())
