"""Paired images side by side in one file, A left and B right: <dataroot>/<phase>."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from data.base_dataset import BaseDataset, Sample, SampleIndex, list_paths, source_and_target
from data.image_array import ImageArray, ImageError
from data.image_files import ImageFiles
from data.image_folder import ImageFolder, resolve_phase
from data.image_reader import ReadOptions
from data.transforms import Transform, to_tensor

ImageT = TypeVar("ImageT", Image.Image, ImageArray, Image.Image | ImageArray)


class AlignedDataset(BaseDataset):
    """Each file once per epoch, with the same crop and flip for both halves."""

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.source_folder = Path(opt.dataroot, resolve_phase(opt.dataroot, opt.phase))
        reader_A, reader_B = self.readers["A"], self.readers["B"]
        both = replace(
            reader_A,
            channels=reader_A.channels + reader_B.channels,
            has_range=reader_A.has_range and reader_B.has_range,
        )
        self.pairs = ImageFolder(list_paths(opt, self.source_folder), both)
        self.domains = (self.pairs,)
        self.transform = PairTransform(self.transforms["A"], self.transforms["B"])

    @classmethod
    def folder_domains(cls, opt: Namespace) -> str:
        """Return "": a pair is one file."""
        return ""

    @classmethod
    def training_files(cls, opt: Namespace) -> dict[str, list[str]]:
        """Return the pairs, as images of both domains."""
        return dict.fromkeys("AB", list_paths(opt, Path(opt.dataroot, opt.phase)))

    @classmethod
    def eval_targets(cls, opt: Namespace) -> ImageFiles:
        """Return the target half of each pair."""
        _, target = source_and_target(opt)
        folder = Path(opt.dataroot, resolve_phase(opt.dataroot, opt.phase))
        crop_fn = partial(half_of_pair, domain=target)
        return ImageFiles.from_dir(folder, opt.max_dataset_size, crop_fn, ReadOptions.of(opt))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: SampleIndex) -> Sample | None:
        load = self.pairs.load_or_skip if self.is_train else self.pairs.load
        loaded = load(index.position, self.transform, self.rng_for(index))
        if loaded is None:
            return None
        halves, path = loaded
        A, B = halves.split(self.transform.channels)
        return {"A": A, "B": B, "A_paths": path, "B_paths": path}

    def transforms_for_epoch(self, epoch: int) -> Sequence["PairTransform"]:
        return (self.transform,)


@dataclass(frozen=True)
class PairTransform:
    """Concatenate the halves of a pair, which have one size, along the channels: A first, then B.

    Both halves therefore share all random numbers.
    """

    A: Transform
    B: Transform

    @property
    def channels(self) -> list[int]:
        """Return the number of channels of A and of B."""
        return [self.A.channels, self.B.channels]

    def apply_deterministic(self, image: Image.Image | ImageArray) -> np.ndarray:
        """Return the pixels (channels of A and B, H, W) of a pair."""
        left, right = split_pair(image)
        return np.concatenate((self.A.apply_deterministic(left), self.B.apply_deterministic(right)))

    def apply_random(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Return the tensor (C, H, W). The random stage is the same for A and B, their value ranges may differ."""
        augmented = self.A.augment(pixels, rng)
        if self.A.value_range == self.B.value_range:
            return to_tensor(augmented, self.A.value_range)
        A, B = augmented[: self.A.channels], augmented[self.A.channels :]
        return torch.cat((to_tensor(A, self.A.value_range), to_tensor(B, self.B.value_range)))


def split_pair(image: ImageT) -> tuple[ImageT, ImageT]:
    """Return the left and the right half of `image`, of equal size; the middle column of an odd width is dropped.

    Raises:
        ImageError: `image` is one pixel wide.
    """
    width, height = image.size
    if width < 2:
        raise ImageError("one pixel wide, cannot be split into a pair")
    return image.crop((0, 0, width // 2, height)), image.crop((width - width // 2, 0, width, height))


def half_of_pair(image: ImageT, domain: str) -> ImageT:
    """Return the left half for domain "A", the right half for "B"."""
    return split_pair(image)["AB".index(domain)]
