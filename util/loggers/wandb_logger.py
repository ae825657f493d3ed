"""Live view on Weights & Biases, by way of a process of its own.

W&B's client waits for its server when it starts and when the process ends, a minute and more where nothing answers. In a
process of its own it can wait as long as it likes, and go on uploading after the training has ended.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from util.loggers.base import AsyncLogger, Images, ScalarEvent

CLOSE_SECONDS = 15.0  # for the upload to be finished; afterwards it goes on without the run
WRITER = Path(__file__).with_name("wandb_writer.py")


def wandb_logger(run_dir: Path, name: str) -> AsyncLogger:
    """A live view on W&B, in the project that WANDB_PROJECT names, or "CUT".

    WANDB_MODE=offline uploads nothing: `wandb sync` does so later, from `<run_dir>/wandb`.
    """

    def open_backend(say: Callable[[str], None]) -> WandbBackend:
        return WandbBackend(run_dir, name)

    return AsyncLogger("wandb", open_backend, CLOSE_SECONDS)


class WandbBackend:
    """Pass everything to a process that talks to W&B. Raises ImportError if wandb is not installed."""

    def __init__(self, run_dir: Path, name: str) -> None:
        if find_spec("wandb") is None:
            raise ImportError("wandb")
        self.log = run_dir / "wandb_log.txt"
        self.command = [sys.executable, "-P", str(WRITER), str(run_dir), name]
        self.process: subprocess.Popen[bytes] | None = None

    def show(self, points: Sequence[ScalarEvent], images: Images | None) -> None:
        """Sends the points and the images. Raises OSError where the process has ended."""
        if self.process is None:
            self._start()
        for point in points:
            self._send(point.position.images, {f"{point.chart}/{name}": value for name, value in point.values.items()}, {})
        if images:
            position, by_name = images
            self._send(position.images, {}, by_name)
        assert self.process
        if self.process.poll() is not None:
            raise self._ended()

    def close(self) -> None:
        """Tells the process that nothing more will come, and waits for its end."""
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
                bufsize=0,  # without a buffer of Python's, which would want to be flushed when the run ends
                start_new_session=True,  # Ctrl-C is for the training
            )

    def _send(self, *message: object) -> None:
        assert self.process and self.process.stdin
        unsent = memoryview(pickle.dumps(message))
        try:
            while unsent:
                unsent = unsent[os.write(self.process.stdin.fileno(), unsent) :]
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> OSError:
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return OSError(f"{last}; see {self.log}")
