"""What a dataset is: a map from a place in an epoch to a sample."""

import os
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL.Image import Resampling

from data.image_folder import ImageFolder, TwoStageTransform, check_dataroot
from data.rng import RngStream, generator
from data.transforms import create_transform
from util.errors import UserError

# "A", "B": (C, H, W) float32 tensors in [-1, 1]; "A_paths", "B_paths": the files they came from.
Sample = dict[str, Any]


@dataclass(frozen=True)
class Position:
    """A place in the run's stream of samples. With the seed it decides every random draw of its sample."""

    epoch: int  # from 1
    index: int  # from 0, within the epoch, in the dataset's own order


class BaseDataset(ABC):
    """A dataset gives one sample for each position, and always the same one for the same position and seed.

    A comes from the A folder and B from the B folder; the model applies --direction. Only the number of channels
    follows it here: the source domain has --input_nc, the target domain --output_nc.
    """

    is_shuffled: ClassVar[bool] = True  # whether training takes the positions of an epoch in random order
    resample: ClassVar[Resampling] = Resampling.BICUBIC

    domains: tuple[ImageFolder, ...]  # what samples are read from; a subclass fills it
    source_folder: Path  # where the images to translate lie; a subclass fills it

    def __init__(self, opt: Namespace) -> None:
        check_dataroot(opt.dataroot)
        self.dataroot: str = opt.dataroot
        self.is_train: bool = opt.isTrain
        self.seed: int = opt.seed
        self.limit = None if opt.max_dataset_size == float("inf") else int(opt.max_dataset_size)
        self.source, self.target = ("A", "B") if opt.direction == "AtoB" else ("B", "A")
        for flag, channels in (("--input_nc", opt.input_nc), ("--output_nc", opt.output_nc)):
            if channels not in (1, 3):
                raise UserError(f"{flag} {channels}: images are read as gray (1) or RGB (3)")
        channels = {self.source: opt.input_nc, self.target: opt.output_nc}
        self.transforms = {d: create_transform(opt, self.resample, grayscale=channels[d] == 1) for d in "AB"}

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        """Adds the dataset's own options to `parser` and sets its defaults."""
        return parser

    @abstractmethod
    def __len__(self) -> int:
        """Samples in an epoch."""

    @abstractmethod
    def __getitem__(self, position: Position) -> Sample | None:
        """The sample at `position`; None when its image cannot be read and has no substitute (at test).

        Raises:
            UserError: an image is too small to be cropped, or no image of a domain can be read any more.
        """

    @abstractmethod
    def transforms_for_epoch(self, epoch: int) -> Sequence[TwoStageTransform]:
        """What happens in `epoch` to the images of each of the `domains`."""

    def rng_for(self, position: Position) -> np.random.Generator:
        """A new generator of the random draws of the sample at `position`."""
        return generator(RngStream.IMAGE, self.seed, position.epoch, position.index)

    def names(self) -> list[list[str]]:
        """The images of each domain as they are called below --dataroot."""
        return [[os.path.relpath(path, self.dataroot) for path in domain.paths] for domain in self.domains]

    def restore_paths(self, names: list[list[str]]) -> None:
        """Takes these images, named as by `names`, in place of those that were found."""
        for domain, below in zip(self.domains, names, strict=True):
            domain.paths = [str(Path(self.dataroot, name)) for name in below]

    def pop_skipped(self) -> dict[str, str]:
        """Paths of images found unusable since the last call, each with the reason."""
        skipped: dict[str, str] = {}
        for domain in self.domains:
            skipped |= domain.skipped
            domain.skipped.clear()
        return skipped
