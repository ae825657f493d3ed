"""The images that a run is judged on while it trains: the same, in the same way, as test.py and scripts/evaluate.py."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from data.aligned_dataset import AlignedDataset, split_pair
from data.base_dataset import BaseDataset, Position
from data.image_folder import list_images, resolve_phase
from data.image_io import ImageError, read_image
from data.single_dataset import SingleDataset
from util.errors import UserError

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class ImageFiles:
    """The images, uint8 (H, W, 3), of the files `paths` below `root`; read anew whenever they are iterated over.

    `part` takes the image out of what the file holds; `size`, where it is given, is what it is then resized to, as the
    resize of --preprocess does. Iterating raises UserError at an image that cannot be read.
    """

    root: Path
    paths: tuple[str, ...]
    part: Callable[[Image.Image], Image.Image] | None = None
    size: Size | None = None
    grayscale: bool = False

    @classmethod
    def below(cls, root: Path, limit: int | None = None, part: Callable[[Image.Image], Image.Image] | None = None) -> Self:
        """All images below `root`, sorted, at most the first `limit`. Raises UserError where there is none."""
        return cls(root, tuple(list_images(str(root), limit)), part)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            try:
                image = read_image(path) if self.part is None else self.part(read_image(path))
            except ImageError as error:
                raise UserError(f"{path!r} cannot be judged: {error}; take it out") from None
            if self.grayscale:
                image = image.convert("L")
            if self.size is not None:
                image = image.resize(self.size, Resampling.BICUBIC)
            yield np.asarray(image.convert("RGB"))

    def like(self, size: Size | None, grayscale: bool) -> Self:
        """The same images, resized and in gray where that is asked for."""
        return replace(self, size=size, grayscale=grayscale)

    def named(self, names: Sequence[str]) -> Self:
        """The images that go by these names, in their order. Raises UserError where one is missing."""
        paths = {relative_stem(self.root, path): path for path in reversed(self.paths)}
        missing = [name for name in names if name not in paths]
        if missing:
            raise UserError(
                f"{self.root} has no image named {missing[0]}: there is no truth to compare its translation with"
            )
        return replace(self, paths=tuple(paths[name] for name in names))


def relative_stem(root: Path, path: str) -> str:
    """Where the image lies below `root`, without the file's ending: what the images of a pair have in common."""
    return Path(path).relative_to(root).with_suffix("").as_posix()


def common_size(sizes: set[Size]) -> Size | None:
    """The size that all images have; None where they differ."""
    return next(iter(sizes)) if len(sizes) == 1 else None


class EvalDataset:
    """The first images of the source domain, as test.py reads them, and those of the target domain, as files.

    `split` says where they come from. The options are those of the training, with `evaluation_phase` and
    `evaluation_pictures`, which is the most that is taken of each domain. Raises UserError where there are none.
    """

    def __init__(self, opt: Namespace) -> None:
        if opt.dataset_mode == "singleimage":
            raise UserError("a run on a single pair of images has nothing to be judged on: leave out the figures")
        as_tested = Namespace(**vars(opt))
        as_tested.isTrain = False
        as_tested.phase = opt.evaluation_phase
        as_tested.max_dataset_size = opt.evaluation_pictures
        as_tested.load_size = opt.crop_size
        as_tested.no_flip = True
        as_tested.serial_batches = True

        self.source, target = ("A", "B") if opt.direction == "AtoB" else ("B", "A")
        self.gray = opt.output_nc == 1
        self.dataset: BaseDataset
        if opt.dataset_mode == "aligned":
            self.dataset = AlignedDataset(as_tested)
            folder, half = self.dataset.source_folder, partial(half_of_pair, number="AB".index(target))
            self.real = ImageFiles.below(folder, opt.evaluation_pictures, half)
        else:
            self.dataset = SingleDataset(as_tested)
            folder = Path(opt.dataroot, resolve_phase(opt.dataroot, opt.evaluation_phase, target) + target)
            self.real = ImageFiles.below(folder, opt.evaluation_pictures)
        self.split = f"{self.dataset.source_folder.name} to {folder.name}"

    def sources(self) -> Iterator[tuple[Tensor, str]]:
        """Each image to translate, (1, C, H, W) in [-1, 1], and its name; what cannot be read is left out."""
        for index in range(len(self.dataset)):
            sample = self.dataset[Position(1, index)]
            if sample is not None:
                yield sample[self.source][None], relative_stem(self.dataset.source_folder, sample[f"{self.source}_paths"])

    def real_at(self, size: Size | None) -> ImageFiles:
        """The images of the target domain, resized where a size is given."""
        return self.real.like(size, self.gray)

    def truth_at(self, names: Sequence[str], size: Size | None) -> ImageFiles:
        """Those of these names. Raises UserError where one is missing."""
        return self.real_at(size).named(names)


def half_of_pair(image: Image.Image, number: int) -> Image.Image:
    """The left half for 0, the right one for 1."""
    return split_pair(image)[number]
