"""Options that say how image files are read, for train.py, test.py, scripts/translate.py and scripts/evaluate.py."""

from argparse import ArgumentParser, _ArgumentGroup

from util.cli import positive_float


def add_reading_arguments(group: ArgumentParser | _ArgumentGroup, has_saved: bool = False) -> None:
    """Declare the options of `data.image_reader.ReadOptions`. With `has_saved`, None stands for a saved value."""
    group.add_argument(
        "--tiff_pages",
        choices=["largest", "all", "bands"],
        default=None if has_saved else "largest",
        help="pages of a TIFF to read: the largest, all as an image each, or all as the bands of one image",
    )
    group.add_argument(
        "--max_megapixels",
        type=positive_float,
        default=None,
        help="maximum size of an image in megapixels, 179 by default: a larger one may be an attack on the memory",
    )
    group.add_argument(
        "--to_srgb",
        action="store_true",
        default=None if has_saved else False,
        help="convert 8-bit images with a color profile to sRGB",
    )
