"""Weights & Biases logger, which runs the W&B client in a separate process.

The client waits for its server when it starts and when the process exits, for a minute or more if the server does not
answer. A separate process can wait without delaying training, and finish the upload after training has ended.
"""

import os
import pickle
import subprocess
import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from util.loggers.base import AsyncLogger, LoggedImages, LoggerBackend, ScalarEvent

WANDB_PROCESS = Path(__file__).with_name("wandb_process.py")


class WandbLogger(AsyncLogger):
    """Logs to W&B, to the project of the environment variable WANDB_PROJECT, or "CUT".

    With WANDB_MODE=offline nothing is uploaded; `wandb sync` uploads `<run_dir>/wandb` later.
    """

    package = "wandb"
    close_timeout = 15.0  # afterwards the upload continues in its own process

    def __init__(self, run_dir: Path, name: str) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.name = name

    @staticmethod
    def add_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
        """Declare --use_wandb."""
        group.add_argument("--use_wandb", action="store_true", help="log to Weights & Biases")

    @classmethod
    def from_options(cls, opt: Namespace, run_dir: Path) -> Self | None:
        """Return the logger if --use_wandb is given."""
        return cls(run_dir, opt.name) if opt.use_wandb else None

    def open_backend(self, print_fn: Callable[[str], None]) -> LoggerBackend:
        """Create the backend. Raise ImportError if wandb is not installed."""
        return WandbBackend(self.run_dir, self.name)


class WandbBackend:
    """Sends all data to the process that talks to W&B. Raises ImportError if wandb is not installed."""

    def __init__(self, run_dir: Path, name: str) -> None:
        if find_spec("wandb") is None:
            raise ImportError("wandb")
        self.log = run_dir / "wandb_log.txt"
        self.command = [sys.executable, "-P", str(WANDB_PROCESS), str(run_dir), name]
        self.process: subprocess.Popen[bytes] | None = None

    def flush(self, events: Sequence[ScalarEvent], images: LoggedImages | None) -> None:
        """Send scalars and images. Raise OSError if the process has exited."""
        if self.process is None:
            self._start()
        for event in events:
            self._send(event.position.images, {f"{event.chart}/{name}": value for name, value in event.values.items()}, {})
        if images:
            position, by_name = images
            self._send(position.images, {}, by_name)
        assert self.process
        if self.process.poll() is not None:
            raise self._exit_error()

    def close(self) -> None:
        """Close the pipe, and wait until the process exits."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,  # Python would flush a buffer when the run exits, and block
                start_new_session=True,  # Ctrl-C is for the training process
            )

    def _send(self, *message: object) -> None:
        assert self.process and self.process.stdin
        unsent = memoryview(pickle.dumps(message))
        try:
            while unsent:
                unsent = unsent[os.write(self.process.stdin.fileno(), unsent) :]
        except BrokenPipeError:
            raise self._exit_error() from None

    def _exit_error(self) -> OSError:
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return OSError(f"{last}; see {self.log}")
