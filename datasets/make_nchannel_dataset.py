"""Generate a small dataset of images that are not 8-bit RGB, without any download.

    python datasets/make_nchannel_dataset.py --kind satellite [--output datasets/satellite] [--seed 0] [--size 64]

| --kind | files | A | B |
|---|---|---|---|
| satellite | 5-band uint16 GeoTIFF, reflectance times 10000 | fields in spring | the same kind of fields, dry |
| microscopy | 16-bit gray PNG with 12-bit samples | phase contrast: dark nuclei in cells | fluorescence: bright nuclei |
| ct | float32 .npy, Hounsfield units | without contrast agent | with contrast agent in the vessels |

trainA and trainB show different scenes. testA and testB show the same scenes under equal names, for paired metrics. The same
seed gives the same images.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python adds only the folder of the script
from atomic_dir import atomic_dir

from data.image_array import FileInfo, ImageArray, TiffTag
from data.image_writer import write_array
from util.cli import CLIParser, positive_int, seed
from util.errors import UserError, exit_on_user_error

Array = NDArray[np.float64]
# Reflectance of soil, spring and dry vegetation in the bands blue, green, red, near infrared and short-wave infrared.
SOIL = np.array([0.08, 0.11, 0.15, 0.22, 0.28])
GREEN = np.array([0.03, 0.07, 0.04, 0.45, 0.18])
DRY = np.array([0.07, 0.12, 0.17, 0.27, 0.33])
# ModelPixelScale and ModelTiepoint of pixels of 10 m; TIFF type 12 is a 64-bit float.
GEO_TAGS = (
    TiffTag(33550, 12, 3, (10.0, 10.0, 0.0)),
    TiffTag(33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5400000.0, 0.0)),
)


def satellite(rng: np.random.Generator, size: int) -> tuple[ImageArray, ImageArray]:
    """Return fields in spring, and the same fields dry."""
    rows, columns = (np.sort(rng.integers(0, size, 4)) for _ in range(2))
    field = np.searchsorted(rows, np.arange(size))[:, None] * 5 + np.searchsorted(columns, np.arange(size))[None]
    cover = rng.uniform(0, 1, 25)[field][:, :, None]  # share of vegetation
    texture = rng.normal(1, 0.03, (size, size, 1))
    info = FileInfo("TIFF", geo_tags=GEO_TAGS)
    images = [((SOIL * (1 - cover) + plants * cover) * texture * 10000).clip(0, 10000) for plants in (GREEN, DRY)]
    return ImageArray(images[0].astype(np.uint16), info=info), ImageArray(images[1].astype(np.uint16), info=info)


def microscopy(rng: np.random.Generator, size: int) -> tuple[ImageArray, ImageArray]:
    """Return cells in phase contrast, and their nuclei in fluorescence."""
    cells = nuclei = np.zeros((size, size))
    for _ in range(6):
        center, radius = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0.1, 0.18) * size
        cells = np.maximum(cells, disk(size, center, radius))
        nuclei = np.maximum(nuclei, disk(size, center + rng.normal(0, 0.02, 2) * size, 0.4 * radius))
    noise = rng.normal(0, 20, (2, size, size))
    phase, fluorescence = 1800 + 700 * cells - 1400 * nuclei + noise[0], 150 + 250 * cells + 3000 * nuclei + noise[1]
    return to_image(phase.clip(0, 4095), np.uint16), to_image(fluorescence.clip(0, 4095), np.uint16)


def ct(rng: np.random.Generator, size: int) -> tuple[ImageArray, ImageArray]:
    """Return a slice of a body without and with contrast agent: air -1000, fat -90, soft tissue 50, bone 900."""
    middle = np.array([0.5, 0.5]) * size
    body = disk(size, middle, rng.uniform(0.36, 0.44) * size)
    inside = disk(size, middle, 0.32 * size)
    spine = disk(size, np.array([0.72, 0.5]) * size, 0.07 * size)
    vessels = np.zeros((size, size))
    for _ in range(3):
        vessels = np.maximum(vessels, disk(size, rng.uniform(0.35, 0.6, 2) * size, rng.uniform(0.03, 0.06) * size))
    plain = -1000 + 910 * body + 140 * inside + 850 * spine * (1 - vessels)
    noise = rng.normal(0, 8, (2, size, size))
    return to_image(plain + noise[0], np.float32), to_image(plain + 250 * vessels + noise[1], np.float32)


def to_image(values: Array, dtype: type) -> ImageArray:
    """Return a gray image of this type."""
    return ImageArray(values.astype(dtype)[:, :, None], info=FileInfo("NPY", has_band_axis=False))


def disk(size: int, center: Array, radius: float) -> Array:
    """Return 1 inside a disk and 0 outside, with an edge of one pixel."""
    rows, columns = np.mgrid[:size, :size]
    return np.clip(radius + 0.5 - np.hypot(rows - center[0], columns - center[1]), 0, 1)


KINDS: dict[str, tuple[Callable[[np.random.Generator, int], tuple[ImageArray, ImageArray]], str]] = {
    "satellite": (satellite, ".tif"),
    "microscopy": (microscopy, ".png"),
    "ct": (ct, ".npy"),
}


def generate(folder: Path, options: Namespace) -> None:
    """Write trainA, trainB, testA and testB into `folder`."""
    scene, ending = KINDS[options.kind]
    for name in ("trainA", "trainB", "testA", "testB"):
        (folder / name).mkdir(parents=True)
    # Each scene has a generator of its own: scene i does not depend on the number of scenes.
    for number in range(options.train):
        for domain in (0, 1):
            image = scene(np.random.default_rng([options.seed, domain, number]), options.size)[domain]
            write_array(image, folder / f"train{'AB'[domain]}" / f"{number:04}{ending}")
    for number in range(options.test):
        for domain, image in enumerate(scene(np.random.default_rng([options.seed, 2, number]), options.size)):
            write_array(image, folder / f"test{'AB'[domain]}" / f"{number:04}{ending}")


@exit_on_user_error()
def main() -> None:
    """Run the program."""
    parser = CLIParser(description="Generate a dataset of 5-band, 16-bit or floating-point images.")
    parser.add_argument("--kind", choices=list(KINDS), required=True, help="kind of images")
    parser.add_argument("--output", type=Path, default=None, help="folder to create; by default datasets/<kind>")
    parser.add_argument("--seed", type=seed, default=0, help="random seed")
    parser.add_argument("--size", type=positive_int, default=64, help="width and height of the images in pixels")
    parser.add_argument("--train", type=positive_int, default=100, help="number of images in each of trainA, trainB")
    parser.add_argument("--test", type=positive_int, default=10, help="number of pairs in testA, testB")
    options = parser.parse_args()
    output = options.output or Path("datasets") / options.kind
    if output.exists():
        raise UserError(f"--output {output}: exists. Remove it, or use another folder.")
    with atomic_dir(output) as folder:
        generate(folder, options)
    print(f"{output} is ready: {options.train} + {options.train} images to train on, {options.test} pairs to test on")


if __name__ == "__main__":
    main()
