"""Counting the images of a run."""

from typing import Any

from util.runtime.checkpoint import validate_count


class ImageCounter:
    """Counts images, of the run and of its epoch, and tells when a multiple of some number was crossed, however many images
    a step takes."""

    def __init__(self, first_epoch: int = 1) -> None:
        self.epoch = first_epoch
        self.seen_in_epoch = 0
        self.seen = 0
        self._before = 0

    def advance(self, images: int) -> None:
        """Counts the images of one step."""
        self._before = self.seen
        self.seen += images
        self.seen_in_epoch += images

    @property
    def place(self) -> str:
        """Where the run is, for people."""
        return f"in epoch {self.epoch}, after {self.seen_in_epoch} of its images"

    def end_epoch(self) -> None:
        """Goes to the beginning of the next epoch."""
        self.epoch += 1
        self.seen_in_epoch = 0

    def crossed(self, every: int) -> bool:
        """Whether the last step reached or passed a multiple of `every` images."""
        return self.seen // every > self._before // every

    def state_dict(self) -> dict[str, Any]:
        """Where the run is."""
        return {"epoch": self.epoch, "seen_in_epoch": self.seen_in_epoch, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting from where `state_dict` was taken."""
        self.epoch, self.seen_in_epoch, self.seen = (
            validate_count(state[name]) for name in ("epoch", "seen_in_epoch", "seen")
        )
