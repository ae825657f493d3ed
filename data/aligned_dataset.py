"""Paired images side by side in one file, A left and B right: <dataroot>/<phase>."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.base_dataset import BaseDataset, Position, Sample
from data.image_folder import ImageFolder, list_images, resolve_phase
from data.image_io import ImageError
from data.transforms import Transform


class AlignedDataset(BaseDataset):
    """Each file once in an epoch; crop and flip are the same for both halves."""

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.source_folder = Path(opt.dataroot, resolve_phase(opt.dataroot, opt.phase))
        self.pairs = ImageFolder(list_images(str(self.source_folder), self.limit))
        self.domains = (self.pairs,)
        self.transform = PairTransform(self.transforms["A"], self.transforms["B"])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: Position) -> Sample | None:
        load = self.pairs.load_or_skip if self.is_train else self.pairs.load
        loaded = load(position.index, self.transform, self.rng_for(position))
        if loaded is None:
            return None
        halves, path = loaded
        A, B = halves.split(self.transform.channels)
        return {"A": A, "B": B, "A_paths": path, "B_paths": path}

    def transforms_for_epoch(self, epoch: int) -> Sequence["PairTransform"]:
        return (self.transform,)


@dataclass(frozen=True)
class PairTransform:
    """Lays the halves of a pair, which have one size, over each other: the channels of A, then those of B. What is drawn
    is thus drawn once for both."""

    A: Transform
    B: Transform

    @property
    def channels(self) -> list[int]:
        """How many channels A has, and B."""
        return [1 if half.grayscale else 3 for half in (self.A, self.B)]

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The uint8 pixels (channels of A and B, H, W) of a pair."""
        left, right = split_pair(image)
        return np.concatenate((self.A.prepare(left), self.B.prepare(right)))

    def finish(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The tensor of what `prepare` returned; A and B differ in nothing that happens here."""
        return self.A.finish(pixels, rng)


def split_pair(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half of `image`, equally large; the middle column of an odd width is in neither.

    Raises:
        ImageError: `image` is one pixel wide.
    """
    width, height = image.size
    if width < 2:
        raise ImageError("one pixel wide, which makes no pair")
    return image.crop((0, 0, width // 2, height)), image.crop((width - width // 2, 0, width, height))
