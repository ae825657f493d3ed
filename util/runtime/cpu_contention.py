"""Noticing that other programs take the cores that this process computes on."""

import time
from pathlib import Path

import torch

THREADS = Path("/proc/self/task")
WINDOW = 20.0  # seconds
NOTABLE_SHARE = 0.25


class CPUContention:
    """Measures which share of the time the threads of this process wait for a core. Linux only; elsewhere it is silent.

    The threads of an operator wait for each other, so that a step is as slow as its slowest thread.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self.window = window
        self.started = time.perf_counter()
        self.waited = _seconds_waited()
        self.noticed = False

    def check(self) -> str | None:
        """Return a notice if, since the last check that is a window ago, a thread waited for long. There is only one.

        Call it as often as you like: it reads files of /proc once in a window.
        """
        elapsed = time.perf_counter() - self.started
        if self.noticed or elapsed < self.window:
            return None
        self.started += elapsed
        before, self.waited = self.waited, _seconds_waited()
        share = max((after - before.get(thread, 0.0) for thread, after in self.waited.items()), default=0.0) / elapsed
        self.noticed = share > NOTABLE_SHARE
        return _describe(min(share, 1.0)) if self.noticed else None


def _describe(share: float) -> str:
    threads = torch.get_num_threads()
    text = f"note: other programs use the CPU, and training waits for a core {share:.0%} of the time."
    return f"{text} OMP_NUM_THREADS=1 may be faster than {threads} threads." if threads > 1 else text


def _seconds_waited() -> dict[str, float]:
    """Return the seconds that each thread of this process was ready to run, but had no core."""
    waited = {}
    for thread in THREADS.iterdir() if THREADS.is_dir() else ():
        try:
            waited[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # the thread has ended, or the kernel has no statistics
            continue
    return waited
