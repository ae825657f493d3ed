"""Single-image translation (SinCUT): random crops of the one image in trainA and of the one in trainB.

Park et al. 2020 (arXiv 2007.15651), section 4.3 and appendix.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from data.base_dataset import BaseDataset, Position, Sample
from data.image_folder import TwoStageTransform, list_images
from data.image_io import ImageError, read_image
from data.rng import RngStream, generator
from data.transforms import Transform, box, grid_cells, resize_array, zoomed_size
from util.cli import set_declared_defaults
from util.errors import UserError

CROPS_PER_EPOCH = 100_000


class SingleImageDataset(BaseDataset):
    """Training: crops of both images; each image is zoomed once per minibatch, in which no place occurs twice.

    With --singleimage_published_sampling each crop has a zoom of its own, and places may recur. Testing: one sample,
    both images as --preprocess says, by default whole. trainA and trainB are read in every phase.
    """

    is_shuffled = False  # the crops of a minibatch have consecutive indices, by which they share a zoom
    resample = Resampling.BILINEAR

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.domains = ()  # nothing is read later on
        image_A, self.path_A = _load_single_image(Path(opt.dataroot, "trainA"))
        image_B, self.path_B = _load_single_image(Path(opt.dataroot, "trainB"))
        self.source_folder = Path(opt.dataroot, f"train{self.source}")
        self.images = {"A": image_A, "B": image_B}
        if self.is_train:
            if self.transforms["A"].steps != ("zoom", "patch"):
                raise UserError(
                    f"--preprocess {opt.preprocess} does not fit --dataset_mode singleimage, which trains on crops of "
                    f"zoomed images: give --preprocess zoom_and_patch"
                )
            crops_per_zoom = 1 if opt.singleimage_published_sampling else opt.batch_size
            self.crops = {
                d: ZoomCropSampler(self.images[d], self.transforms[d], crops_per_zoom, (self.seed, number))
                for number, d in enumerate("AB")
            }

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        set_declared_defaults(parser, preprocess="zoom_and_patch" if is_train else "none", num_test=1)
        if is_train:
            group = parser.add_argument_group("single images")
            group.add_argument(
                "--singleimage_published_sampling",
                action="store_true",
                help="a zoom for each crop, places that may recur; without it, one zoom and distinct places in a batch",
            )
        return parser

    def __len__(self) -> int:
        return min(CROPS_PER_EPOCH, self.limit or CROPS_PER_EPOCH) if self.is_train else 1

    def __getitem__(self, position: Position) -> Sample:
        rng = self.rng_for(position)
        if self.is_train:
            A, B = (self.crops[d](position, rng) for d in "AB")
        else:
            A, B = (self.transforms[d](self.images[d], rng) for d in "AB")
        return {"A": A, "B": B, "A_paths": self.path_A, "B_paths": self.path_B}

    def transforms_for_epoch(self, epoch: int) -> Sequence[TwoStageTransform]:
        return ()


class ZoomCropSampler:
    """Random crops of one image, `crops_per_zoom` consecutive ones from the same zoom of it and from distinct places.

    A zoom scales each axis by a factor of its own; the places are the cells of a grid at a random offset. When the
    zoomed image has fewer cells than crops are asked for, another grid is laid.
    """

    def __init__(self, image: Image.Image, transform: Transform, crops_per_zoom: int, key: tuple[int, ...]) -> None:
        """Args: key, with epoch and number of the zoom, decides the draws of zooms and places."""
        self.pixels = np.ascontiguousarray(transform.prepare(image))
        self.crop_size = transform.crop_size
        self.random_scale_max = transform.random_scale_max
        self.resample = transform.resample
        self.finish = replace(transform, steps=()).finish
        self.crops_per_zoom = crops_per_zoom
        self.key = key
        self._zoom_at: tuple[int, int] | None = None  # epoch and number of the zoom at hand

    def __call__(self, position: Position, rng: np.random.Generator) -> torch.Tensor:
        """The (C, H, W) tensor of the crop at `position`; `rng` decides its flip."""
        number, member = divmod(position.index, self.crops_per_zoom)
        if self._zoom_at != (position.epoch, number):
            self._zoomed, self._places = self._zoom(position.epoch, number)
            self._zoom_at = position.epoch, number
        return self.finish(box(self._zoomed, *self._places[member], self.crop_size, self.crop_size), rng)

    def _zoom(self, epoch: int, number: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The zoomed image (C, H, W), and the (left, top) of its crops."""
        rng = generator(RngStream.ZOOM, *self.key, epoch, number)
        size = zoomed_size(self.pixels, self.random_scale_max, self.crop_size, rng)
        places: list[tuple[int, int]] = []
        while len(places) < self.crops_per_zoom:
            places += grid_cells(*size, self.crop_size, rng)
        return resize_array(self.pixels, *size, self.resample), places


def _load_single_image(folder: Path) -> tuple[Image.Image, str]:
    """The image in `folder`, and its path. Raises a UserError unless there is exactly one, and readable."""
    paths = list_images(str(folder))
    if len(paths) > 1:
        raise UserError(f"{folder} holds {len(paths)} images, but --dataset_mode singleimage takes exactly one")
    try:
        return read_image(paths[0]), paths[0]
    except ImageError as error:
        raise UserError(f"no image can be read in {folder}; of {paths[0]!r}: {error}") from error
