"""Base class of the datasets: a dataset maps an index (epoch, position) to a sample."""

import os
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL.Image import Resampling

from data.dataset_check import value_range_of
from data.domain_folder import check_data_folders, domain_folder, domain_root
from data.image_files import ImageFiles
from data.image_folder import ImageFolder, TwoStageTransform, list_images
from data.image_reader import ImageReader, ReadOptions
from data.rng import RngStream, make_rng
from data.transforms import create_transform

# "A", "B": (C, H, W) float32 tensors in [-1, 1]; "A_paths", "B_paths": the files they were read from.
Sample = dict[str, Any]


@dataclass(frozen=True)
class SampleIndex:
    """Index of a sample in a run. Together with the seed it determines every random number of the sample."""

    epoch: int  # from 1
    position: int  # from 0, within the epoch, in the dataset's own order
    data_pass: int | None = None  # pass over the dataset, from 1, if it is not the epoch (--steps_per_epoch)

    @property
    def random_key(self) -> tuple[int, int]:
        """Pass and position: the same pair never comes twice in a run, so no random numbers repeat."""
        return (self.epoch if self.data_pass is None else self.data_pass), self.position


class BaseDataset(ABC):
    """A dataset returns one sample for each index, always the same one for the same index and seed.

    A is read from the A folder and B from the B folder; the model applies --direction. Only the number of channels
    depends on it here: the source domain has --input_nc, the target domain --output_nc.

    A subclass sets `domains` and `source_folder`, and adds its own options in `modify_commandline_options`. One line in
    DATASETS makes it a choice of --dataset_mode.
    """

    is_shuffled: ClassVar[bool] = True  # False: training reads the positions of an epoch in order
    resample: ClassVar[Resampling] = Resampling.BICUBIC

    domains: tuple[ImageFolder, ...]  # the image files that samples are read from
    source_folder: Path  # the folder of the images to translate

    @property
    def has_wide_range(self) -> bool:
        """Return True if the images have other than 8-bit samples, which are stretched for display."""
        return any(domain.has_wide_range for domain in self.domains)

    def __init__(self, opt: Namespace) -> None:
        check_data_folders(opt, self.folder_domains(opt))
        self.roots = {d: domain_root(opt, d) for d in "AB"}
        self.is_train: bool = opt.isTrain
        self.seed: int = opt.seed
        self.limit = None if opt.max_dataset_size == float("inf") else int(opt.max_dataset_size)
        self.source, self.target = source_and_target(opt)
        channels = {self.source: opt.input_nc, self.target: opt.output_nc}
        flags = {self.source: "--input_nc", self.target: "--output_nc"}
        ranges = {d: value_range_of(opt, d) for d in "AB"}
        self.transforms = {d: create_transform(opt, self.resample, channels[d], ranges[d]) for d in "AB"}
        self.readers = {d: ImageReader((channels[d],), ranges[d] is not None, flags[d], ReadOptions.of(opt)) for d in "AB"}

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        """Add the options of this dataset to `parser` and set its defaults."""
        return parser

    @classmethod
    def folder_domains(cls, opt: Namespace) -> str:
        """Return the domains that are read from folders of their own, and that --dataroot_A and --dataroot_B can set."""
        return "AB"

    @classmethod
    def training_files(cls, opt: Namespace) -> dict[str, list[str]]:
        """Return the images of the domains "A" and "B" that are checked before training; by default none.

        Raises:
            UserError: a folder is missing or has no images.
        """
        return {}

    @classmethod
    def eval_source(cls, opt: Namespace) -> "BaseDataset":
        """Return the dataset whose source images are translated in an evaluation during training.

        `opt` holds the options of a test of the evaluation split. Only the source domain of its samples is used.

        Raises:
            UserError: this dataset has no such split.
        """
        return cls(opt)

    @classmethod
    def eval_targets(cls, opt: Namespace) -> ImageFiles:
        """Return the real images of the target domain for the same evaluation, by default those of <phase><domain>.

        Raises:
            UserError: there are none.
        """
        _, target = source_and_target(opt)
        return ImageFiles.from_dir(domain_folder(opt, target), opt.max_dataset_size, options=ReadOptions.of(opt))

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples in an epoch."""

    @abstractmethod
    def __getitem__(self, index: SampleIndex) -> Sample | None:
        """Return the sample at `index`, or None at test time if its image cannot be read.

        Raises:
            UserError: an image is smaller than the crop, or no image of a domain can be read.
        """

    @abstractmethod
    def transforms_for_epoch(self, epoch: int) -> Sequence[TwoStageTransform]:
        """Return the transform of each of the `domains` in `epoch`."""

    def rng_for(self, index: SampleIndex) -> np.random.Generator:
        """Return a new generator for the random numbers of the sample at `index`."""
        return make_rng(RngStream.IMAGE, self.seed, *index.random_key)

    def relative_paths(self) -> list[list[str]]:
        """Return the image paths of each domain, relative to --dataroot, or to the domain's own folder."""
        return [[os.path.relpath(path, root) for path in domain.paths] for domain, root in self._domains_and_roots()]

    def restore_paths(self, relative_paths: list[list[str]]) -> None:
        """Replace the images that were found by those of `relative_paths`."""
        for (domain, root), paths in zip(self._domains_and_roots(), relative_paths, strict=True):
            domain.paths = [str(Path(root, path)) for path in paths]

    def _domains_and_roots(self) -> list[tuple[ImageFolder, str]]:
        names = "AB" if len(self.domains) == 2 else self.source
        return [(domain, self.roots[name]) for domain, name in zip(self.domains, names, strict=False)]

    def pop_skipped(self) -> dict[str, str]:
        """Return the images found unusable since the last call: path -> reason."""
        skipped: dict[str, str] = {}
        for domain in self.domains:
            skipped |= domain.skipped
            domain.skipped.clear()
        return skipped


def list_paths(opt: Namespace, folder: Path) -> list[str]:
    """Return the sorted paths of the images below `folder`, at most --max_dataset_size, with a path per page if asked for.

    Raises:
        UserError: `folder` is missing or has no images.
    """
    limit = None if opt.max_dataset_size == float("inf") else int(opt.max_dataset_size)
    return ReadOptions.of(opt).with_pages(list_images(str(folder)))[:limit]


def source_and_target(opt: Namespace) -> tuple[str, str]:
    """Return the names of the source and the target domain, "A" and "B" or reversed."""
    return ("A", "B") if opt.direction == "AtoB" else ("B", "A")
