"""Results of test.py in the dtype, range, band count and file type of their inputs."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from data.dataset_check import value_range_of
from data.image_array import ImageArray, ImageError
from data.image_io import is_8_bit, read_array
from data.image_reader import max_pixels, split_page
from data.image_writer import WRITERS, write_array
from data.value_range import ValueRange
from models.inference.image_io import from_output
from util.errors import UserError
from util.terminal import print_line

LOSSLESS = ("PNG", "TIFF", "NPY", "NPZ")


@dataclass(frozen=True)
class ExactFile:
    """A file to write: its ending and the function that writes it to a path."""

    suffix: str
    write: Callable[[Path], None]


class ExactResults:
    """Decides which results an 8-bit PNG cannot hold, and writes those in the format of their input.

    The others, 8-bit images of 1 or 3 bands in their full range, are left to the page, which writes them as published.
    """

    def __init__(self, opt: Namespace) -> None:
        source, target = ("A", "B") if opt.direction == "AtoB" else ("B", "A")
        # The model calls its source domain A, whatever the direction.
        self.ranges = {"A": value_range_of(opt, source), "B": value_range_of(opt, target)}
        self.max_pixels = max_pixels(opt)
        self.input_nc, self.to_srgb = opt.input_nc, opt.to_srgb
        self.is_alpha_noted = False
        self.is_published = self.ranges == {"A": None, "B": None} and {opt.input_nc, opt.output_nc} <= {1, 3}

    def __call__(self, path: str, visuals: Mapping[str, Tensor]) -> dict[str, ExactFile]:
        """Return the files of those visuals (1, C, H, W) of one input that need them.

        Writing them raises UserError if a library is missing.
        """
        file, page = split_page(path)
        try:
            if self.is_published and is_8_bit(file):
                return {}
            source = read_array(file, page, self.max_pixels, self.to_srgb)
        except ImageError:  # changed since it was read
            return {}
        if self.is_published and source.pixels.dtype == np.uint8:
            return {}
        if source.alpha is not None and not source.has_alpha_band(self.input_nc):
            self._note_alpha(file)
        source = replace(source, alpha=None)
        return {name: self._file(images[0], source, self.ranges.get(name[-1])) for name, images in visuals.items()}

    def _note_alpha(self, file: str) -> None:
        if not self.is_alpha_noted:
            print_line(f"note: {file}: its alpha is composited over white and not written. scripts/translate.py keeps it.")
        self.is_alpha_noted = True

    def _file(self, image: Tensor, source: ImageArray, value_range: ValueRange | None) -> ExactFile:
        array = from_output(image, source, value_range, source_range=self.ranges["A"])
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
