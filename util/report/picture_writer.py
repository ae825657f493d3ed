"""Writes images in threads of their own, while the program goes on."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from util.images import save_image


class AsyncImageWriter:
    """To be entered. What was handed over is written when the body ends well, and dropped when it does not.

    An error of writing is raised by one of the next calls, or by the end of the body.
    """

    def __init__(self, threads: int) -> None:
        """Args: threads is how many write, 0 to write in the caller's."""
        self.threads = threads
        self._pool = ThreadPoolExecutor(max(threads, 1))
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def save(self, image: torch.Tensor, path: Path) -> None:
        """As `save_image`, soon. Waits where too many images would pile up. `image` must stay as it is."""
        if self.threads == 0:
            save_image(image, path)
            return
        while len(self._pending) >= 4 * self.threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(save_image, image, path))
