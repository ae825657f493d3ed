"""Images for the evaluation during training: the same as those of test.py and scripts/evaluate.py."""

from argparse import Namespace
from collections.abc import Iterator, Sequence

from torch import Tensor

from data import DATASETS
from data.base_dataset import SampleIndex
from data.image_folder import ImageFiles, Size, relative_stem


def common_size(sizes: set[Size]) -> Size | None:
    """Return the size that all images have, or None if they differ."""
    return next(iter(sizes)) if len(sizes) == 1 else None


class EvalDataset:
    """Source images of the evaluation split as test.py reads them, and the image files of the target domain.

    At most `opt.evaluation_pictures` images of each domain are used.

    Attributes:
        split: names of both folders, such as "testA to testB".
    """

    def __init__(self, opt: Namespace) -> None:
        """Build the split of the training options `opt`. Raise UserError if it has no images."""
        test_opt = Namespace(**vars(opt))
        test_opt.isTrain = False
        test_opt.phase = opt.evaluation_phase
        test_opt.max_dataset_size = opt.evaluation_pictures
        test_opt.load_size = opt.crop_size
        test_opt.no_flip = True
        test_opt.serial_batches = True

        dataset_class = DATASETS[opt.dataset_mode]
        self.grayscale = opt.output_nc == 1
        self.dataset = dataset_class.eval_source(test_opt)
        self.targets_on_disk = dataset_class.eval_targets(test_opt)
        self.split = f"{self.dataset.source_folder.name} to {self.targets_on_disk.root.name}"

    def inputs(self) -> Iterator[tuple[Tensor, str]]:
        """Yield each source image, (1, C, H, W) in [-1, 1], and its name. Unreadable images are skipped."""
        source = self.dataset.source
        for position in range(len(self.dataset)):
            sample = self.dataset[SampleIndex(1, position)]
            if sample is not None:
                yield sample[source][None], relative_stem(self.dataset.source_folder, sample[f"{source}_paths"])

    def real_images(self, size: Size | None) -> ImageFiles:
        """Return the images of the target domain, resized to `size` unless it is None."""
        return self.targets_on_disk.with_format(size, self.grayscale)

    def targets(self, names: Sequence[str], size: Size | None) -> ImageFiles:
        """Return the ground-truth images with these names. Raise UserError if one is missing."""
        return self.real_images(size).select(names)
