"""Signals by which terminals and job schedulers ask a program to stop."""

import signal
from types import FrameType
from typing import NoReturn

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
