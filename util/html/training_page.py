"""Training page: curves, and images of each epoch, the newest first."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from util.html.charts import run_charts
from util.html.page import PageImage, image_row, write_page
from util.images import save_image, tensor2im
from util.train_log import Row

IMAGE_NAME = re.compile(r"epoch(?P<epoch>\d+)_(?P<visual>.+)\.png")


class TrainingPage:
    """Writes `<web_dir>/index.html` and images such as `<web_dir>/images/epoch007_fake_B.png`, the published names.

    A resumed run adds the rows of earlier epochs from the images on disk.

    Args:
        web_dir: folder of the page, created with the first images.
        name: name of the run.
        first_epoch: counted from 1; greater than 1 if the run is resumed.
        last_epoch: last epoch of the run.
        image_width: approximate displayed width of an image in pixels.
    """

    def __init__(self, web_dir: Path, name: str, first_epoch: int, last_epoch: int, image_width: int = 256) -> None:
        self.web_dir = web_dir
        self.name = name
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.image_width = image_width
        self.image_rows: dict[int, str] | None = None

    def update(self, epoch: int, visuals: Mapping[str, torch.Tensor], rows: Sequence[Row] = ()) -> None:
        """Write the page with these images as the row of the epoch, replacing earlier images of the epoch.

        Args:
            epoch: counted from 1.
            visuals: tensors (N, C, H, W) in [-1, 1] by their published names; the first image of each is shown.
            rows: rows of metrics.jsonl so far, for the curves.
        """
        if self.image_rows is None:
            self.image_rows = _earlier_rows(self.web_dir, self.first_epoch, tuple(visuals))
        images = []
        for visual, tensor in visuals.items():
            pixels = tensor2im(tensor)
            file = f"images/epoch{epoch:03d}_{visual}.png"
            save_image(pixels, self.web_dir / file)
            images.append(PageImage(visual, file, width=pixels.shape[1], height=pixels.shape[0]))
        self.image_rows[epoch] = image_row(f"epoch {epoch}", images)
        write_page(
            self.web_dir / "index.html",
            title=self.name,
            facts={"epoch": f"{epoch} of {self.last_epoch}", "updated": time.strftime("%Y-%m-%d %H:%M")},
            charts=run_charts(rows),
            rows=[self.image_rows[shown] for shown in sorted(self.image_rows, reverse=True)],
            visuals=len(visuals),
            image_width=self.image_width,
        )


def _earlier_rows(web_dir: Path, before_epoch: int, order: Sequence[str]) -> dict[int, str]:
    """Return the rows of the epochs before `before_epoch` from the images on disk, in the given order of visuals."""
    rows: dict[int, list[PageImage]] = defaultdict(list)
    for path in sorted(web_dir.glob("images/epoch*.png")):
        name = IMAGE_NAME.fullmatch(path.name)
        if name is None or int(name["epoch"]) >= before_epoch:
            continue
        try:
            with Image.open(path) as file:
                width, height = file.size
        except OSError:  # truncated when the run was killed
            continue
        rows[int(name["epoch"])].append(PageImage(name["visual"], f"images/{path.name}", width, height))
    rank = {visual: index for index, visual in enumerate(order)}
    return {
        epoch: image_row(f"epoch {epoch}", sorted(images, key=lambda image: rank.get(image.visual, len(rank))))
        for epoch, images in rows.items()
    }
