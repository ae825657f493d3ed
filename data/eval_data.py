"""Images for the evaluation during training and for scripts/evaluate.py: sources, real images, and ground truth.

All images go through the geometry of a test. A file that cannot be read is left out and counted, and is tried again at the
next evaluation.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data import DATASETS
from data.base_dataset import BaseDataset, SampleIndex, source_and_target
from data.dataset_check import value_range_of
from data.geometry import describe_geometry, geometry_for_test
from data.image_files import ExactFormat, ImageFiles, Size
from data.image_io import ImageError, open_exif_transposed
from data.transforms import ImageTooSmallError, Transform, create_transform
from data.value_range import ValueRange
from util.channel_view import ChannelView, parse_channels
from util.errors import UserError
from util.images import describe_skipped, tensor2float, tensor2im, to_rgb
from util.pairs import describe_matches, match_pairs
from util.terminal import print_line

Skipped = dict[str, str]  # path -> reason
GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")  # of Pillow


def image_format(images: ImageFiles) -> tuple[Size | None, bool, int | None]:
    """Return the common size of the files, None if they differ, and True if all of them are grayscale.

    The last value is the number of bands of files that are not 8-bit images of 1 or 3 bands, None if all are.
    Print a warning if only some are grayscale: the real images keep their colors.
    """
    sizes, gray, bands = set(), 0, None
    for path in images.paths:
        try:
            if not images.options.is_8_bit(path):
                array = images.options.read_array(path)
                sizes.add(array.size)
                bands = bands if array.pixels.dtype == np.uint8 and array.bands in (1, 3) else array.bands
                gray += array.bands == 1
                continue
            with open_exif_transposed(path, max_pixels=images.options.max_pixels) as image:
                sizes.add(image.size)
                gray += image.mode in GRAY_MODES
        except ImageError as error:
            raise UserError(f"{path!r}: cannot be evaluated: {error}. Remove the file.") from None
    if 0 < gray < len(images):
        print_line(
            f"warning: {images.root}: {gray} of {len(images)} images are grayscale. The real images keep their colors."
        )
    return next(iter(sizes)) if len(sizes) == 1 else None, gray == len(images), bands


def describe_channels(exact: ExactFormat) -> dict[str, str]:
    """Return which channels metrics of all and of three channels use, and the value range, in words."""
    shown = ",".join(str(index + 1) for index in exact.order[: 3 if exact.channels >= 3 else 1])
    return {
        "all": f"all {exact.channels}",
        "shown": f"{shown} of {exact.channels}",
        "value_range": "full range of the dtype" if exact.value_range is None else str(exact.value_range),
    }


def exact_format_of_page(
    record: Mapping[str, Any], channels: int, visual: str, value_range: str | None, show_channels: str | None
) -> ExactFormat:
    """Return how the files of a visual with this number of channels are compared, from the record of their page.

    A `value_range` and `show_channels` that are given take precedence.
    """
    text = value_range or (record.get("value_range") or {}).get(visual[-1])
    view = ChannelView(parse_channels(show_channels or record.get("show_channels")))
    return ExactFormat(channels, tuple(view.order(channels)), None if text is None else ValueRange.parse(text))


def transform_of_page(record: Mapping[str, Any], channels: int) -> Transform | None:
    """Return the transform by which test.py read images, from the record of its page; None if it is not recorded.

    Raises:
        UserError: the record is damaged.
    """
    if "preprocess" not in record:
        return None
    try:
        opt = Namespace(no_flip=True, random_scale_max=1.0, isTrain=False, preprocess=record["preprocess"])
        opt.load_size, opt.crop_size = int(record["load_size"]), int(record["crop_size"])
        mode = DATASETS.get(record["dataset_mode"], BaseDataset)
        return create_transform(opt, mode.resample, channels=channels)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"page.json: damaged ({error!r}). Run test.py again.") from None


def find_targets(names: Sequence[str], targets: ImageFiles, *, has_extension: bool = True) -> list[str | None]:
    """Return the path of the ground truth of each name, None if there is none. The rule is that of `match_pairs`.

    Raises:
        UserError: a match is ambiguous, or nothing matches.
    """
    paths = dict(zip(targets.names(), targets.paths, strict=True))
    matches = match_pairs(names, paths, has_extension=has_extension)
    if not matches:
        raise UserError(
            f"{targets.root}: no image is the ground truth of one of {len(names)} images such as {names[0]}. Paired metrics "
            f"need pairs of equal names."
        )
    return [paths[matches[name]] if name in matches else None for name in names]


def options_of_test(opt: Namespace, phase: str, *, any_size: bool) -> Namespace:
    """Return the training options `opt`, changed to read images of a split as test.py does.

    Args:
        any_size: the generator accepts images of any size, see `geometry_for_test`.
    """
    preprocess, load_size = geometry_for_test(opt.preprocess, opt.load_size, opt.crop_size, any_size=any_size)
    changes = {"isTrain": False, "phase": phase, "preprocess": preprocess, "load_size": load_size}
    return Namespace(**vars(opt) | changes | {"no_flip": True, "serial_batches": True})


class ReadableImages:
    """The first `limit` images of `files` that can be used. Each iteration adds the others before them to `skipped`."""

    def __init__(self, files: ImageFiles, skipped: Skipped, limit: int | None = None) -> None:
        self.files = files
        self.skipped = skipped
        self.limit = limit

    def __len__(self) -> int:
        """Return the number of images if all files can be used."""
        return len(self.files.paths[: self.limit])

    def __iter__(self) -> Iterator[np.ndarray]:
        images = GroundTruth(self.files, self.files.paths, self.skipped)
        return islice((image for image in images if image is not None), self.limit)


class GroundTruth:
    """The image of each of `paths`, read as `files` reads it; None for None and for a file that cannot be used.

    Each iteration adds the unusable files to `skipped`.
    """

    def __init__(self, files: ImageFiles, paths: Sequence[str | None], skipped: Skipped) -> None:
        self.files = files
        self.paths = paths
        self.skipped = skipped

    def __iter__(self) -> Iterator[np.ndarray | None]:
        for path in self.paths:
            try:
                yield None if path is None else self.files.read(path)
            except (ImageError, ImageTooSmallError) as error:
                assert path is not None
                self.skipped[path] = str(error)
                yield None


class EvalDataset:
    """Source images of the evaluation split as test.py reads them, and the image files of the target domain.

    At most `opt.evaluation_pictures` images of each domain are used. Ground truth is searched among all.

    Attributes:
        split: names of both folders, such as "testA to testB".
        skipped: unusable files since it was last cleared, path -> reason.
    """

    def __init__(self, opt: Namespace, *, any_size: bool = True) -> None:
        """Build the split of the training options `opt`. Raise UserError if it has no images.

        Args:
            any_size: the generator accepts images of any size, see `geometry_for_test`.
        """
        test_opt = options_of_test(opt, opt.evaluation_phase, any_size=any_size)
        test_opt.max_dataset_size = opt.evaluation_pictures

        dataset_class = DATASETS[opt.dataset_mode]
        self.grayscale = opt.output_nc == 1
        self.view = ChannelView(parse_channels(opt.show_channels))
        self.geometry = describe_geometry(test_opt.preprocess, test_opt.load_size, test_opt.crop_size)
        self.dataset = dataset_class.eval_source(test_opt)
        self.real_files = dataset_class.eval_targets(test_opt)
        test_opt.max_dataset_size = None
        self.target_files = dataset_class.eval_targets(test_opt)
        source, target = source_and_target(opt)
        value_range = value_range_of(opt, target)
        is_8_bit = not self.dataset.has_wide_range and value_range_of(opt, source) is None is value_range
        self.exact = None
        if not is_8_bit or not {opt.input_nc, opt.output_nc} <= {1, 3}:
            self.exact = ExactFormat(opt.output_nc, tuple(self.view.order(opt.output_nc)), value_range)
        self.transform = self.dataset.transforms[target]
        self.split = f"{self.dataset.source_folder.name} to {self.real_files.root.name}"
        self.skipped: Skipped = {}

    def check(self, needs_pairs: bool) -> Iterator[str]:
        """Yield lines that describe the split: geometry, matched pairs, and files whose header cannot be read.

        Raises:
            UserError: `needs_pairs`, and there are none, or they are ambiguous.
        """
        yield f"evaluation: {self.split}, {self.geometry}"
        if needs_pairs:
            yield describe_matches(sum(path is not None for path in self._target_of.values()), len(self.dataset))
        unreadable: Skipped = {}
        for path in [*self._source_paths, *self.real_files.paths]:
            try:
                self.target_files.options.is_8_bit(path)
            except ImageError as error:
                unreadable[path] = str(error)
        if unreadable:
            yield f"warning: evaluation: {describe_skipped(unreadable)}; tried again at each evaluation"

    def inputs(self) -> Iterator[tuple[Tensor, str]]:
        """Yield each source image, (1, C, H, W) in [-1, 1], and its path below the folder. Skip unusable images."""
        source = self.dataset.source
        self.dataset.pop_skipped()  # of the check that some image can be read
        for position in range(len(self.dataset)):
            sample = self.dataset[SampleIndex(1, position)]
            if sample is not None:
                yield sample[source][None], self._name(sample[f"{source}_paths"])
        self.skipped |= self.dataset.pop_skipped()

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Return the pixels that metrics compare of an image (1, C, H, W) in [-1, 1]: as test.py saves it."""
        if self.exact is None:
            return to_rgb(tensor2im(image))
        return tensor2float(image[:, self.view.order(image.shape[1])])

    @property
    def channels(self) -> dict[str, str]:
        """Return which channels metrics use, and the value range, in words; {} for 8-bit images of 1 or 3 channels."""
        return {} if self.exact is None else describe_channels(self.exact)

    def real_images(self, size: Size | None) -> ReadableImages:
        """Return the images of the target domain, with the geometry of a test, resized to `size` unless it is None."""
        return ReadableImages(self.real_files.with_format(size, self.grayscale, self.transform, self.exact), self.skipped)

    def targets(self, names: Sequence[str], size: Size | None) -> GroundTruth:
        """Return the ground truth of each of `names`, resized like real images; None for an image without one."""
        files = self.target_files.with_format(size, self.grayscale, self.transform, self.exact)
        return GroundTruth(files, [self._target_of[name] for name in names], self.skipped)

    @cached_property
    def _target_of(self) -> dict[str, str | None]:
        names = [self._name(path) for path in self._source_paths]
        return dict(zip(names, find_targets(names, self.target_files), strict=True))

    @property
    def _source_paths(self) -> list[str]:
        domains = self.dataset.domains
        return domains["AB".index(self.dataset.source) if len(domains) > 1 else 0].paths

    def _name(self, path: str) -> str:
        return Path(path).relative_to(self.dataset.source_folder).as_posix()
