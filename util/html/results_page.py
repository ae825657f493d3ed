"""The page of a test: each input image beside what became of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from util.html.page import PageImage, image_row, write_page
from util.html.results_page import OutputNamer, linked_images
from util.images import save_image


class ResultsPage:
    """`<directory>/index.html` over `<directory>/images/<visual>/<name>.png`.

    Where an earlier test has left a page, the images that it links to and this one does not are removed when this one is
    saved: whoever takes a figure over a folder takes it over one test. No other file is touched.

    Args:
        directory: folder of the page, made when the first image comes.
        title: of the page.
        source_root: folder that the tested images come from; the names of the results mirror the folders below it.
        facts: what was tested, shown under the title, such as phase and epoch; the number of images is added.
        image_width: shown width of an image in pixels, roughly.
        save_image: writes an image to a file, at once or before long.
    """

    def __init__(
        self,
        directory: Path,
        title: str,
        source_root: Path,
        facts: Mapping[str, str],
        image_width: int = 256,
        save_image: Callable[[torch.Tensor, Path], None] = save_image,
    ) -> None:
        self.directory = directory
        self.title = title
        self.facts = facts
        self.image_width = image_width
        self.save_image = save_image
        self.names = OutputNamer(source_root)
        self.cards: list[str] = []
        self.files: set[str] = set()
        self.most_visuals = 1

    def add(self, source_path: str, visuals: Mapping[str, torch.Tensor]) -> None:
        """Saves the images of one input and remembers its row.

        Args:
            source_path: file of the input; names the row and the files.
            visuals: published names (`real_A`, `fake_B`) and tensors (1, C, H, W) in [-1, 1].
        """
        name = self.names.claim(source_path)
        images = []
        for visual, tensor in visuals.items():
            file = f"images/{visual}/{name}"
            self.save_image(tensor, self.directory / file)
            self.files.add(file)
            images.append(PageImage(visual, file, width=tensor.shape[3], height=tensor.shape[2]))
        self.cards.append(image_row(self.names.shown(source_path), images))
        self.most_visuals = max(self.most_visuals, len(images))

    def save(self) -> None:
        """Writes the page with all rows so far."""
        self.directory.mkdir(parents=True, exist_ok=True)
        page = self.directory / "index.html"
        left_over = linked_images(page) - self.files
        write_page(
            page,
            title=self.title,
            facts={**self.facts, "pictures": str(len(self.cards))},
            cards=self.cards,
            visuals=self.most_visuals,
            image_width=self.image_width,
        )
        for file in left_over:
            (self.directory / file).unlink(missing_ok=True)
