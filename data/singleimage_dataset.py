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

from data.base_dataset import BaseDataset, Sample, SampleIndex
from data.domain_folder import domain_folder
from data.image_array import ImageArray
from data.image_folder import ImageFolder, TwoStageTransform, list_images
from data.image_reader import ImageReader, pixels_of
from data.rng import RngStream, make_rng
from data.transforms import ImageTooSmallError, Transform, crop_box, grid_cells, resize_array, zoomed_size
from util.cli import set_declared_defaults
from util.errors import UserError

CROPS_PER_EPOCH = 100_000


class SingleImageDataset(BaseDataset):
    """Training: crops of both images. Each image is zoomed once per minibatch, whose crops do not overlap.

    With --singleimage_published_sampling each crop has its own zoom, and crops may overlap. Testing: one sample, both
    images as --preprocess says, by default uncropped. trainA and trainB are read in every phase.
    """

    is_shuffled = False  # the crops of a minibatch need consecutive positions, because they share a zoom
    resample = Resampling.BILINEAR

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.domains = ()  # no file is read after the constructor
        image_A, self.path_A = _load_single_image(domain_folder(opt, "A", "train"), self.readers["A"])
        image_B, self.path_B = _load_single_image(domain_folder(opt, "B", "train"), self.readers["B"])
        self.source_folder = domain_folder(opt, self.source, "train")
        self.images = {"A": image_A, "B": image_B}
        if self.is_train:
            if self.transforms["A"].ops != ("zoom", "patch"):
                raise UserError(
                    f"--preprocess {opt.preprocess}: incompatible with --dataset_mode singleimage, which trains on crops of "
                    f"zoomed images. Use --preprocess zoom_and_patch."
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
            group = parser.add_argument_group("single-image")
            group.add_argument(
                "--singleimage_published_sampling",
                action="store_true",
                help="a zoom for each crop, and crops that may overlap, instead of one zoom and disjoint crops per batch",
            )
        return parser

    @classmethod
    def training_files(cls, opt: Namespace) -> dict[str, list[str]]:
        """Return the image of each domain."""
        return {domain: list_images(str(domain_folder(opt, domain, "train"))) for domain in "AB"}

    @classmethod
    def eval_source(cls, opt: Namespace) -> BaseDataset:
        """Raise UserError: a single pair of images has no split to evaluate on."""
        raise UserError(
            "--dataset_mode singleimage: a single pair of images cannot be evaluated. Remove the metric options."
        )

    @property
    def has_wide_range(self) -> bool:
        """Return True if one of the images has other than 8-bit samples."""
        return any(pixels_of(image).dtype != np.uint8 for image in self.images.values())

    def __len__(self) -> int:
        return min(CROPS_PER_EPOCH, self.limit or CROPS_PER_EPOCH) if self.is_train else 1

    def __getitem__(self, index: SampleIndex) -> Sample:
        rng = self.rng_for(index)
        if self.is_train:
            A, B = (self.crops[d](index, rng) for d in "AB")
        else:
            A, B = (self._whole_image(d, rng) for d in "AB")
        return {"A": A, "B": B, "A_paths": self.path_A, "B_paths": self.path_B}

    def _whole_image(self, domain: str, rng: np.random.Generator) -> torch.Tensor:
        try:
            return self.transforms[domain](self.images[domain], rng)
        except ImageTooSmallError as error:
            path = self.path_A if domain == "A" else self.path_B
            raise UserError(f"{path!r}: {error}. Use --preprocess none to test whole images.") from None

    def transforms_for_epoch(self, epoch: int) -> Sequence[TwoStageTransform]:
        return ()


class ZoomCropSampler:
    """Random crops of one image. `crops_per_zoom` consecutive crops share a zoom of the image and do not overlap.

    A zoom scales each axis by its own factor. The crops are cells of a grid at a random offset. If the zoomed image has
    fewer cells than crops, another grid is sampled.
    """

    def __init__(
        self, image: Image.Image | ImageArray, transform: Transform, crops_per_zoom: int, key: tuple[int, ...]
    ) -> None:
        """Prepare `image`. Args: key, pass and index of the zoom seed the generator of zooms and offsets."""
        self.pixels = np.ascontiguousarray(transform.apply_deterministic(image))
        self.crop_size = transform.crop_size
        self.random_scale_max = transform.random_scale_max
        self.resample = transform.resample
        self.apply_random = replace(transform, ops=()).apply_random
        self.crops_per_zoom = crops_per_zoom
        self.key = key
        self._current_zoom: tuple[int, int] | None = None  # pass and index of the zoom in `_zoomed`

    def __call__(self, index: SampleIndex, rng: np.random.Generator) -> torch.Tensor:
        """Return the crop at `index`, a tensor (C, H, W). `rng` decides its flip."""
        data_pass, position = index.random_key
        zoom_index, crop_index = divmod(position, self.crops_per_zoom)
        if self._current_zoom != (data_pass, zoom_index):
            self._zoomed, self._crop_offsets = self._sample_zoom(data_pass, zoom_index)
            self._current_zoom = data_pass, zoom_index
        left, top = self._crop_offsets[crop_index]
        return self.apply_random(crop_box(self._zoomed, left, top, self.crop_size, self.crop_size), rng)

    def _sample_zoom(self, data_pass: int, zoom_index: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Return the zoomed image (C, H, W), and the (left, top) of its crops."""
        rng = make_rng(RngStream.ZOOM, *self.key, data_pass, zoom_index)
        size = zoomed_size(self.pixels, self.random_scale_max, self.crop_size, rng)
        crop_offsets: list[tuple[int, int]] = []
        while len(crop_offsets) < self.crops_per_zoom:
            crop_offsets += grid_cells(*size, self.crop_size, rng)
        return resize_array(self.pixels, *size, self.resample), crop_offsets


def _load_single_image(folder: Path, read: ImageReader) -> tuple[Image.Image | ImageArray, str]:
    """Return the image in `folder`, and its path. Raise UserError unless there is exactly one, and readable."""
    paths = list_images(str(folder))
    if len(paths) > 1:
        raise UserError(
            f"{folder}: {len(paths)} images, but --dataset_mode singleimage needs exactly one. Remove the others."
        )
    ImageFolder(paths, read)  # says which option a readable image needs
    return read(paths[0]), paths[0]
