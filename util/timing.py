"""Speed of a training run, and durations as text."""

import time


class StepTimer:
    """Measures seconds of data loading and of computation per image.

    Only the wall clock is read; no device is synchronized. Work that a GPU still has to finish counts when the next
    operation waits for it, such as reading the losses. The mean over an interval is therefore right.
    """

    def __init__(self) -> None:
        self.data_seconds = 0.0
        self.step_seconds = 0.0
        self.images = 0
        self.last_lap = time.perf_counter()

    def start(self) -> None:
        """Start waiting for a batch; exclude the time since the last call."""
        self._lap()

    def data_ready(self, images: int) -> None:
        """Stop waiting: a batch of this many images was loaded."""
        self.data_seconds += self._lap()
        self.images += images

    def step_end(self) -> None:
        """End the step, and start waiting for the next batch."""
        self.step_seconds += self._lap()

    def pop_averages(self) -> tuple[float, float]:
        """Return seconds of computation and of data loading per image since the last call. Call it within a step."""
        self.step_end()
        images = max(1, self.images)
        averages = self.step_seconds / images, self.data_seconds / images
        self.data_seconds = self.step_seconds = 0.0
        self.images = 0
        return averages

    def _lap(self) -> float:
        previous, self.last_lap = self.last_lap, time.perf_counter()
        return self.last_lap - previous


class Pace:
    """Measures the speed of a run since its first step, which includes the warm-up of the device.

    Saves and evaluations count as well, so that the speed tells the time that is left.
    """

    def __init__(self) -> None:
        self.images = 0
        self.start: float | None = None

    def advance(self, images: int) -> None:
        """Count the images of a step at its end."""
        if self.start is None:
            self.start = time.perf_counter()
        else:
            self.images += images

    @property
    def images_per_second(self) -> float:
        """The mean speed; 0 before the second step."""
        return 0.0 if self.start is None else self.images / max(1e-9, time.perf_counter() - self.start)


def format_duration(seconds: float) -> str:
    """Return a duration such as "2 d 3 h", "3 h 5 min", "5 min" or "40 s"."""
    minutes = round(seconds / 60)
    if minutes >= 24 * 60:
        return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 100 else f"{seconds:.0f} s"
