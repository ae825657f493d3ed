"""The images that a run is judged on while it trains: the same, in the same way, as test.py and scripts/evaluate.py."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from data.aligned_dataset import AlignedDataset, split_pair
from data.base_dataset import BaseDataset, Position
from data.eval_data import ImageFiles, Size, relative_stem
from data.image_folder import resolve_phase
from data.single_dataset import SingleDataset
from util.errors import UserError


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
