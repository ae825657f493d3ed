"""Where the wall-clock time of a training loop goes: into its steps, or into waiting for data."""

import time


class StepTimer:
    """Adds up both over the images since the last report.

    Only the wall clock is read: no device is synchronized for its sake. What a GPU is still busy with is paid for by
    whatever waits for its results next, such as reading the losses, so that the mean over an interval is right.
    """

    def __init__(self) -> None:
        self.waiting = 0.0
        self.working = 0.0
        self.images = 0
        self.lap_began = time.perf_counter()

    def begin(self) -> None:
        """Begins the wait for a batch; what came before counts as neither."""
        self._lap()

    def data_ready(self, images: int) -> None:
        """Ends the wait: a batch of so many images is there."""
        self.waiting += self._lap()
        self.images += images

    def step_end(self) -> None:
        """Ends the work on a batch and begins the wait for the next."""
        self.working += self._lap()

    def pop_averages(self) -> tuple[float, float]:
        """Called within a step: seconds of work and of waiting per image since the last call."""
        self.step_end()
        images = max(1, self.images)
        means = self.working / images, self.waiting / images
        self.waiting = self.working = 0.0
        self.images = 0
        return means

    def _lap(self) -> float:
        began, self.lap_began = self.lap_began, time.perf_counter()
        return self.lap_began - began
