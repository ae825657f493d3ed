"""Says on stderr how far a download has come: one moving line on a terminal, a line now and then in a log."""

import sys
import time
from typing import Self

SECONDS_ON_TERMINAL, SECONDS_IN_LOG = 0.2, 10.0  # between two reports


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class TransferProgress:
    """Counts bytes: `received` of `length` (None where the server does not say)."""

    def __init__(self, start: int, length: int | None) -> None:
        self.start = start
        self.received = start
        self.length = length
        self.on_terminal = sys.stderr.isatty()
        self.pause = SECONDS_ON_TERMINAL if self.on_terminal else SECONDS_IN_LOG
        self.begun = self.last_said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.show()
        if self.on_terminal:
            say("")

    def add(self, count: int) -> None:
        self.received += count
        if time.monotonic() - self.last_said >= self.pause:
            self.show()

    def show(self) -> None:
        self.last_said = time.monotonic()
        speed = (self.received - self.start) / max(self.last_said - self.begun, 1e-3)
        parts = [f"{self.received / 1e6:.1f} MB", f"{speed / 1e6:.1f} MB/s"]
        if self.length:
            parts[0] = f"{self.received / 1e6:.1f} of {self.length / 1e6:.1f} MB"
            parts.insert(1, f"{100 * self.received // self.length} %")
            if speed:
                parts.append(f"{(self.length - self.received) / speed:.0f} s left")
        line = "  " + ", ".join(parts)
        if self.on_terminal:
            print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)
        else:
            say(line)
