"""Counting the images of a run."""


class ImageCounter:
    """Counts images, and tells when a multiple of some number was crossed, however many images a step takes."""

    def __init__(self) -> None:
        self.seen = 0
        self._before = 0

    def advance(self, images: int) -> None:
        """Counts the images of one step."""
        self._before = self.seen
        self.seen += images

    def crossed(self, every: int) -> bool:
        """Whether the last step reached or passed a multiple of `every` images."""
        return self.seen // every > self._before // every
