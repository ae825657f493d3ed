"""Position of a run: its epoch, and the images it has trained on."""

from typing import Any


class ImageCounter:
    """Count the images of a run and of its current epoch.

    Attributes:
        epoch: current epoch, counted from 1.
        images_in_epoch: images trained on in this epoch.
        total_images: images trained on since the run started.
    """

    def __init__(self, first_epoch: int = 1) -> None:
        self.epoch = first_epoch
        self.images_in_epoch = 0
        self.total_images = 0
        self._before = 0

    def advance(self, images: int) -> None:
        """Count the images of one step."""
        self._before = self.total_images
        self.total_images += images
        self.images_in_epoch += images

    @property
    def position_text(self) -> str:
        """The position for messages."""
        return f"in epoch {self.epoch}, after {self.images_in_epoch} of its images"

    def end_epoch(self) -> None:
        """Advance to the start of the next epoch."""
        self.epoch += 1
        self.images_in_epoch = 0

    def crossed(self, every: int) -> bool:
        """Return True if the last step reached or passed a multiple of `every` images, whatever the batch size."""
        return self.total_images // every > self._before // every

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"epoch": self.epoch, "seen_in_epoch": self.images_in_epoch, "seen": self.total_images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` returned."""
        self.epoch, self.images_in_epoch, self.total_images = (
            validate_count(state[name]) for name in ("epoch", "seen_in_epoch", "seen")
        )


def validate_count(value: Any) -> int:
    """Return the value if it is a non-negative integer. Raise ValueError if it is not."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a non-negative integer")
    return value
