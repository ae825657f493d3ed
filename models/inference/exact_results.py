"""Images of test.py in the dtype, range, band count and file type of the files that they are, or are made of."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from data.dataset_check import value_range_of
from data.image_array import ImageArray, ImageError
from data.image_reader import ReadOptions, split_page
from data.image_writer import WRITERS, write_array
from data.value_range import ValueRange
from models.inference.image_io import from_output
from util.errors import UserError
from util.terminal import print_line

LOSSLESS = ("PNG", "TIFF", "NPY", "NPZ")
MADE_OF_B = ("real_B", "fake_A", "rec_B")


@dataclass(frozen=True)
class ExactFile:
    """A file to write: its ending and the function that writes it to a path."""

    suffix: str
    write: Callable[[Path], None]


class ExactResults:
    """Decides which visuals an 8-bit PNG cannot hold, and writes those in the format of the file that they are made of.

    That is the input, or for `real_B` and what is made of it, the file of the target domain. The others, made of 8-bit
    files of 1 or 3 bands in their full range, are left to the page, which writes them as published.
    """

    def __init__(self, opt: Namespace) -> None:
        source, target = ("A", "B") if opt.direction == "AtoB" else ("B", "A")
        # The model calls its source domain A, whatever the direction.
        self.ranges = {"A": value_range_of(opt, source), "B": value_range_of(opt, target)}
        self.input_nc = opt.input_nc
        self.options = ReadOptions.of(opt)
        self.is_alpha_noted = False
        self.is_published = self.ranges == {"A": None, "B": None} and {opt.input_nc, opt.output_nc} <= {1, 3}

    def __call__(self, paths: Mapping[str, str], visuals: Mapping[str, Tensor]) -> dict[str, ExactFile]:
        """Return the files of those visuals (1, C, H, W) of one sample that need them.

        Writing them raises UserError if a library is missing.

        Args:
            paths: the files of the sample, by domain. The model calls its source domain A.
            visuals: images by their published names.
        """
        sources = {path: self._source(path) for path in set(paths.values())}
        if (read := sources[paths["A"]]) is not None and read.alpha is not None and not read.has_alpha_band(self.input_nc):
            self._note_alpha(split_page(paths["A"])[0])
        files = {}
        for name, images in visuals.items():
            domain = "B" if name in MADE_OF_B else "A"
            if (source := sources[paths[domain]]) is not None:
                files[name] = self._file(images[0], source, self.ranges[name[-1]], self.ranges[domain])
        return files

    def _source(self, path: str) -> ImageArray | None:
        """Return the image of a file, None if 8-bit PNGs hold what is made of it."""
        try:
            if self.is_published and self.options.is_8_bit(path):
                return None
            source = self.options.read_array(path)
        except ImageError:  # changed since it was read
            return None
        return None if self.is_published and source.pixels.dtype == np.uint8 else source

    def _note_alpha(self, file: str) -> None:
        if not self.is_alpha_noted:
            print_line(f"note: {file}: its alpha is composited over white and not written. scripts/translate.py keeps it.")
        self.is_alpha_noted = True

    def _file(
        self, image: Tensor, source: ImageArray, value_range: ValueRange | None, source_range: ValueRange | None
    ) -> ExactFile:
        array = from_output(image, replace(source, alpha=None), value_range, source_range=source_range)
        if source.info.format in LOSSLESS and _holds(source.info.format, array):
            name = source.info.format
        else:
            name = "PNG" if _holds("PNG", array) else "TIFF"
        return ExactFile(WRITERS[name].extensions[0], partial(_write, array, name))


def _write(array: ImageArray, name: str, path: Path) -> None:
    try:
        write_array(array, path, name)
    except ImageError as error:
        raise UserError(f"{path.name}: cannot be written: {error}.") from None


def _holds(name: str, array: ImageArray) -> bool:
    return WRITERS[name].holds(array.pixels.dtype, array.bands, False)
