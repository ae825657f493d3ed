"""The web page of a run: its curves, and images of each epoch, the newest first."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from util.html.charts import run_charts
from util.html.page import PageImage, image_row, write_page
from util.images import save_image, tensor2im

IMAGE_NAME = re.compile(r"epoch(?P<epoch>\d+)_(?P<visual>.+)\.png")


class TrainingPage:
    """`<web_dir>/index.html` over `<web_dir>/images/epoch007_fake_B.png`, the published names.

    A run that is continued takes up the rows of the epochs before its first one from the images on disk.

    Args:
        web_dir: folder of the page, made when the first images come.
        name: of the run.
        first_epoch, last_epoch: of this run, counted from 1; first_epoch > 1 where it continues another.
        image_width: shown width of an image in pixels, roughly.
    """

    def __init__(self, web_dir: Path, name: str, first_epoch: int, last_epoch: int, image_width: int = 256) -> None:
        self.web_dir = web_dir
        self.name = name
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.image_width = image_width
        self.cards: dict[int, str] | None = None

    def update(self, epoch: int, visuals: Mapping[str, torch.Tensor], records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Shows these images as the row of the epoch, in place of what it showed.

        Args:
            epoch: counted from 1.
            visuals: published names and tensors (N, C, H, W) in [-1, 1]; the first image of each is taken.
            records: reports of the run so far (see metrics_log.py), for the curves.
        """
        if self.cards is None:
            self.cards = _earlier_cards(self.web_dir, self.first_epoch, tuple(visuals))
        images = []
        for visual, tensor in visuals.items():
            pixels = tensor2im(tensor)
            file = f"images/epoch{epoch:03d}_{visual}.png"
            save_image(pixels, self.web_dir / file)
            images.append(PageImage(visual, file, width=pixels.shape[1], height=pixels.shape[0]))
        self.cards[epoch] = image_row(f"epoch {epoch}", images)
        write_page(
            self.web_dir / "index.html",
            title=self.name,
            facts={"epoch": f"{epoch} of {self.last_epoch}", "updated": time.strftime("%Y-%m-%d %H:%M")},
            charts=run_charts(records),
            cards=[self.cards[shown] for shown in sorted(self.cards, reverse=True)],
            visuals=len(visuals),
            image_width=self.image_width,
        )


class NullTrainingPage:
    """Stands in for a page that is not wanted."""

    def update(self, epoch: int, visuals: Mapping[str, torch.Tensor], records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Does nothing."""


def _earlier_cards(web_dir: Path, before_epoch: int, order: Sequence[str]) -> dict[int, str]:
    """The rows of epochs before `before_epoch` from the images on disk, visuals in the given order, others last."""
    rows: dict[int, list[PageImage]] = defaultdict(list)
    for path in sorted(web_dir.glob("images/epoch*.png")):
        name = IMAGE_NAME.fullmatch(path.name)
        if name is None or int(name["epoch"]) >= before_epoch:
            continue
        try:
            with Image.open(path) as file:
                width, height = file.size
        except OSError:  # cut short when the run was killed
            continue
        rows[int(name["epoch"])].append(PageImage(name["visual"], f"images/{path.name}", width, height))
    rank = {visual: place for place, visual in enumerate(order)}
    return {
        epoch: image_row(f"epoch {epoch}", sorted(images, key=lambda image: rank.get(image.visual, len(rank))))
        for epoch, images in rows.items()
    }
