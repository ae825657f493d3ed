"""Fixed samples of a training page: the same source images, translated at every update, with a slider over the epochs."""

import copy
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from dominate import tags
from torch import Tensor, nn

from util.channel_view import ChannelView
from util.html.page import CAPTIONS, PageImage, cards, image_row
from util.images import save_image
from util.runtime.ema import EMA_SUFFIX
from util.runtime.rng import fork_rng_seeded

# Training images of the size of a crop between two translations of one sample. A generator's forward pass is a tenth of
# a step of CUT, so that even with short epochs no more than about one percent of the time is spent on samples.
CROPS_PER_SAMPLE = 10


class FixedSamples:
    """Source images, and the networks that translate them for the page.

    Training is unaffected: copies of the networks translate, in their current mode as in test.py, injected noise has a seed
    of its own, and the random state is restored.

    Args:
        images: (1, C, H, W) in [-1, 1] by name.
        generators: the networks by name. The first is the newest generator, others are its EMA.
        device: device of the networks.
        seed: random seed of the noise.
        crop_pixels: pixels of a training crop.

    Attributes:
        interval: images to train on between two translations.
    """

    def __init__(
        self,
        images: Mapping[str, Tensor],
        generators: Mapping[str, nn.Module],
        device: torch.device,
        seed: int,
        crop_pixels: int,
    ) -> None:
        self.images = images
        self.generators = generators
        self.device = device
        self.seed = seed
        pixels = sum(image.shape[2] * image.shape[3] for image in images.values()) * len(generators)
        self.interval = CROPS_PER_SAMPLE * pixels // crop_pixels

    def translate(self) -> dict[str, list[Tensor]]:
        """Return the translations of all images by each network, (1, C, H, W) in [-1, 1]."""
        return {name: self._translate(network) for name, network in self.generators.items()}

    def _translate(self, network: nn.Module) -> list[Tensor]:
        frozen: Any = copy.deepcopy(network)  # a models.networks.base.Generator
        frozen.set_rng(torch.Generator(self.device).manual_seed(self.seed))
        with fork_rng_seeded(self.seed), torch.inference_mode():
            return [frozen(image.to(self.device)) for image in self.images.values()]


class SampleSection:
    """The section of the page. Images are `<web_dir>/samples/<key>/epoch007_1_G.png`, where the key depends on the inputs.

    A resumed run shows the translations of earlier epochs, unless its samples are others than before.

    Args:
        web_dir: folder of the page.
        samples: the images and networks.
        first_epoch: translations of earlier epochs are shown if they are on disk.
        view: which channels of an image are shown.
        image_width: approximate displayed width of an image in pixels.
    """

    def __init__(
        self, web_dir: Path, samples: FixedSamples, first_epoch: int, view: ChannelView, image_width: int = 256
    ) -> None:
        self.web_dir = web_dir
        self.samples = samples
        self.view = view
        self.image_width = image_width
        key = zlib.crc32(b"".join(image.numpy().tobytes() for image in samples.images.values()))
        self.folder = f"samples/{key:08x}"
        for number, image in enumerate(samples.images.values(), 1):
            save_image(view.tensor(image), web_dir / self.folder / f"input_{number}.png")
        self.epochs = {epoch for epoch in self._epochs_on_disk() if epoch < first_epoch}
        self.translated_at: int | None = None  # images trained on

    def update(self, epoch: int, images: int, is_last: bool = False) -> None:
        """Translate the samples after `images` images of the run, unless the last time is less than the interval ago."""
        interval = 1 if is_last else self.samples.interval
        if self.translated_at is not None and images - self.translated_at < interval:
            return
        self.translated_at = images
        for name, translations in self.samples.translate().items():
            for number, translation in enumerate(translations, 1):
                save_image(self.view.tensor(translation), self.web_dir / self._file(epoch, number, name))
        self.epochs.add(epoch)

    def html(self) -> str:
        """Return the HTML of the section with the newest translations. The script shows the slider."""
        epochs = sorted(self.epochs)
        rows = [image_row(name, self._images(number, epochs)) for number, name in enumerate(self.samples.images, 1)]
        slider = tags.input_(type="range", min="0", max=str(len(epochs) - 1), value=str(len(epochs) - 1), autocomplete="off")
        section = tags.section(
            tags.div(
                tags.h3("the same images in every epoch"),
                *([tags.label("epoch", slider, tags.output(str(epochs[-1])), hidden=True)] if epochs else []),
                cls="samples-head",
            ),
            cards(rows, 1 + len(self.samples.generators), self.image_width),
            cls="samples",
        )
        section["data-epochs"] = " ".join(f"{epoch:03d}" for epoch in epochs)
        return section.render(pretty=False)

    def _images(self, number: int, epochs: list[int]) -> list[PageImage]:
        height, width = list(self.samples.images.values())[number - 1].shape[2:]
        images = [PageImage("real_A", f"{self.folder}/input_{number}.png", width, height, caption=CAPTIONS["real_A"])]
        for name in self.samples.generators if epochs else ():
            is_average = name.endswith(EMA_SUFFIX)
            visual, caption = (name, "moving average") if is_average else ("fake_B", CAPTIONS["fake_B"])
            images.append(PageImage(visual, self._file(epochs[-1], number, name), width, height, caption=caption))
        return images

    def _file(self, epoch: int, number: int, generator: str) -> str:
        return f"{self.folder}/epoch{epoch:03d}_{number}_{generator}.png"

    def _epochs_on_disk(self) -> set[int]:
        """Return the epochs of which the translations of all samples are on disk."""
        folder = self.web_dir / self.folder
        names = [re.match(r"epoch(\d+)_", path.name) for path in folder.glob("epoch*.png")]
        return {
            epoch
            for epoch in {int(name[1]) for name in names if name}
            if all(
                (self.web_dir / self._file(epoch, number, generator)).exists()
                for number in range(1, 1 + len(self.samples.images))
                for generator in self.samples.generators
            )
        }
