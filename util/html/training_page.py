"""Training page: status of the run, fixed samples, curves, and images of each epoch, the newest first."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from util.errors import DivergedError
from util.html.charts import run_charts
from util.html.fixed_samples import SampleSection
from util.html.page import CAPTIONS, PageImage, RunStatus, charts_section, image_row, write_page
from util.images import save_image, tensor2im
from util.train_log import Row

IMAGE_NAME = re.compile(r"epoch(?P<epoch>\d+)_(?P<visual>.+)\.png")
RUNNING = "running"
REFRESH_SECONDS = 30  # at least, between two updates without new images
MAX_COST = 0.005  # of such updates, as a fraction of the time
MIN_PATIENCE = 600  # seconds; an evaluation or a compilation may take minutes


class TrainingPage:
    """Writes `<web_dir>/index.html` and images such as `<web_dir>/images/epoch007_fake_B.png`, the published names.

    A resumed run adds the rows of earlier epochs from the images on disk.

    Args:
        web_dir: folder of the page, created with the first update.
        name: name of the run.
        first_epoch: counted from 1; greater than 1 if the run is resumed.
        last_epoch: last epoch of the run.
        image_width: approximate displayed width of an image in pixels.
        facts: names and values shown under the title, after those that every update has.
        samples: section of the fixed samples; None: there are none.
        captions: captions of images by their published names, in the order of the images.
    """

    def __init__(
        self,
        web_dir: Path,
        name: str,
        first_epoch: int,
        last_epoch: int,
        image_width: int = 256,
        facts: Mapping[str, str] | None = None,
        samples: SampleSection | None = None,
        captions: Mapping[str, str] = CAPTIONS,
    ) -> None:
        self.web_dir = web_dir
        self.path = web_dir / "index.html"
        self.name = name
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.image_width = image_width
        self.facts = facts or {}
        self.samples = samples
        self.captions = captions
        self.has_images = False  # of this start of the run
        self.visuals = tuple(captions)
        self.image_rows = self._earlier_rows()
        self._written_at: float | None = None
        self._longest_gap = self._cost = 0.0  # seconds

    @property
    def is_due(self) -> bool:
        """Return True if the last update was so long ago that another one costs little."""
        pause = max(REFRESH_SECONDS, self._cost / MAX_COST)
        return self._written_at is None or time.monotonic() - self._written_at > pause

    def add_images(self, epoch: int, visuals: Mapping[str, torch.Tensor]) -> None:
        """Save images as the row of the epoch, replacing earlier images of the epoch. The next update shows them.

        Args:
            epoch: counted from 1.
            visuals: tensors (N, C, H, W) in [-1, 1] by their published names; the first image of each is shown.
        """
        if not self.has_images:
            self.has_images, self.visuals = True, tuple(visuals)
            self.image_rows = self._earlier_rows()
        images = []
        for visual, tensor in visuals.items():
            pixels = tensor2im(tensor)
            file = f"images/epoch{epoch:03d}_{visual}.png"
            save_image(pixels, self.web_dir / file)
            images.append(self._image(visual, file, width=pixels.shape[1], height=pixels.shape[0]))
        self.image_rows[epoch] = image_row(f"epoch {epoch}", images)

    def write(self, rows: Sequence[Row], epoch: int, status: str = RUNNING, facts: Mapping[str, str] | None = None) -> None:
        """Write the page.

        Args:
            rows: rows of metrics.jsonl so far, for the curves.
            epoch: current epoch, counted from 1.
            status: "running", or how the run has ended.
            facts: more about the status, such as the speed.
        """
        started = time.monotonic()
        if self._written_at is not None:
            self._longest_gap = max(self._longest_gap, started - self._written_at)
        charts = run_charts(rows)
        sections = [self.samples.html()] if self.samples else []
        sections += [charts_section(charts)] if charts else []
        self.web_dir.mkdir(parents=True, exist_ok=True)
        write_page(
            self.path,
            title=self.name,
            facts={
                "status": status,
                "epoch": f"{epoch} of {self.last_epoch}",
                **(facts or {}),
                **self.facts,
                "updated": time.strftime("%Y-%m-%d %H:%M"),
            },
            rows=[self.image_rows[shown] for shown in sorted(self.image_rows, reverse=True)],
            visuals=len(self.visuals),
            image_width=self.image_width,
            sections=sections,
            status=RunStatus(status == RUNNING, time.time(), max(MIN_PATIENCE, 3 * self._longest_gap)),
        )
        self._written_at = time.monotonic()
        self._cost = self._written_at - started

    def _image(self, visual: str, file: str, width: int, height: int) -> PageImage:
        return PageImage(visual, file, width, height, caption=self.captions.get(visual))

    def _earlier_rows(self) -> dict[int, str]:
        """Return the rows of the epochs before the first one from the images on disk, in the order of `visuals`."""
        rows: dict[int, list[PageImage]] = defaultdict(list)
        for path in sorted(self.web_dir.glob("images/epoch*.png")):
            name = IMAGE_NAME.fullmatch(path.name)
            if name is None or int(name["epoch"]) >= self.first_epoch:
                continue
            try:
                with Image.open(path) as file:
                    width, height = file.size
            except OSError:  # truncated when the run was killed
                continue
            rows[int(name["epoch"])].append(self._image(name["visual"], f"images/{path.name}", width, height))
        rank = {visual: index for index, visual in enumerate(self.visuals)}
        return {
            epoch: image_row(f"epoch {epoch}", sorted(images, key=lambda image: rank.get(image.visual, len(rank))))
            for epoch, images in rows.items()
        }


def describe_end(error: BaseException | None) -> tuple[str, str]:
    """Return the status of a run that has ended, and the reason if it was an error or a signal."""
    if error is None:
        return "finished", ""
    reason = str(error) or ("" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
    return "diverged" if isinstance(error, DivergedError) else "stopped", reason
