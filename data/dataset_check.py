"""Checks of a training set before a run: channel counts and value ranges to take over, and images that may surprise."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from data.geometry import crops_need_large_images
from data.image_array import ImageArray, ImageError
from data.image_folder import CROP_REMEDY
from data.image_io import size_in_header
from data.image_reader import ReadOptions, split_page
from data.pillow_reader import is_srgb
from data.value_range import Percentiles, ValueRange, parse_value_range
from util.errors import UserError
from util.terminal import print_line

CHECKED_IMAGES = 16  # of each domain
PERCENTILE_IMAGES = 1000  # of each domain
WIDE_SHARE = 8  # images that use less than 1/8 of the range are reported

RANGE_OPTIONS = {"A": "value_range_A", "B": "value_range_B"}


def value_range_of(opt: Namespace, domain: str) -> ValueRange | None:
    """Return the value range of a domain, None for the full range of uint8 or uint16.

    Raises:
        UserError: it is given as percentiles, which only training computes.
    """
    own = RANGE_OPTIONS[domain]
    is_overridden = "value_range" in opt.explicit and own not in opt.explicit  # by a test's command line
    text = opt.value_range if is_overridden else getattr(opt, own) or opt.value_range
    if text is None:
        return None
    found = parse_value_range(text)
    if isinstance(found, Percentiles):
        raise UserError(f"--value_range {text}: only training computes percentiles. Use --value_range=LO,HI.")
    return found


def prepare_options(opt: Namespace, files: Mapping[str, Sequence[str]]) -> str:
    """Complete the options of a training from its images, and print what was decided or may surprise.

    Return a text about the images, such as "A 120, B 120 images of 256x256"; empty if there are no `files`.

    --input_nc and --output_nc, if not given, are taken over from images that are neither gray nor RGB. Gray images of more
    than 8 bits are taken over, too, if both domains have them. Percentiles of --value_range become numbers, which are saved
    with the run.

    Args:
        files: the images of each domain, "A" and "B".
    Raises:
        UserError: a value range cannot be computed, or an image is smaller than its crop.
    """
    if files and crops_need_large_images(opt.preprocess):
        _check_crops_fit(files, opt.crop_size)
    samples = {domain: _read_some(paths, CHECKED_IMAGES, opt) for domain, paths in files.items()}
    keeps_gray = _chooses_channels(opt) and all(found and _is_deep_gray(found[0][1]) for found in samples.values())
    for domain, found in samples.items():
        if found:
            _take_over_channels(opt, domain, *found[0], keeps_gray)
    _compute_percentiles(opt, files)
    _complete_ranges(opt, samples)
    for domain, found in samples.items():
        for line in _report(found, value_range_of(opt, domain)):
            print_line(f"note: {_folder(files[domain])}: {line}")
    return _describe(files, samples) if files else ""


def _describe(files: Mapping[str, Sequence[str]], samples: Mapping[str, Sequence[tuple[str, ImageArray]]]) -> str:
    counts = ", ".join(f"{domain} {len(found)}" for domain, found in files.items())
    total = f"{len(files['A'])} pairs" if _is_paired(files) else f"{counts} images"
    sizes = [array.size for found in samples.values() for _, array in found]
    if not sizes:
        return total
    distinct = set(sizes)
    size = "{}x{}".format(*sizes[0]) if len(distinct) == 1 else f"{len(distinct)} sizes"
    return f"{total} of {size}" + (f" ({len(sizes)} checked)" if len(sizes) < sum(map(len, files.values())) else "")


def _is_paired(files: Mapping[str, Sequence[str]]) -> bool:
    """Return True if each file is an image of both domains."""
    return len(files) == 2 and files["A"] is files["B"]


def _check_crops_fit(files: Mapping[str, Sequence[str]], crop_size: int) -> None:
    """Raise UserError if the header of an image says that it is smaller than the crop. Otherwise a run ends at the image."""
    images_per_file = 2 if _is_paired(files) else 1  # side by side
    small = []
    for path in dict.fromkeys(chain(*files.values())):
        if size := size_in_header(path):
            width, height = size[0] // images_per_file, size[1]
            if min(width, height) < crop_size:
                small.append((path, width, height))
    if small:
        (path, width, height), others = small[0], len(small) - 1
        also = f" (and {others} more)" if others else ""
        raise UserError(
            f"{path!r}{also}: {width}x{height} pixels before the crop, smaller than --crop_size {crop_size}. {CROP_REMEDY}"
        )


def _read_some(paths: Sequence[str], count: int, opt: Namespace) -> list[tuple[str, ImageArray]]:
    """Return up to `count` evenly spaced readable images and their paths."""
    found, options = [], ReadOptions.of(opt)
    for path in _evenly_spaced(paths, count):
        with suppress(ImageError):  # reported when its turn comes
            found.append((path, options.read_array(path)))
    return found


def _chooses_channels(opt: Namespace) -> bool:
    """Return True if neither options nor weights determine the numbers of channels."""
    is_given = not opt.explicit.isdisjoint({"input_nc", "output_nc"})
    return not (is_given or any(getattr(opt, name, None) for name in ("continue_train", "pretrained_name", "pretrained_G")))


def _is_deep_gray(array: ImageArray) -> bool:
    return array.bands == 1 and array.pixels.dtype != np.uint8


def _take_over_channels(opt: Namespace, domain: str, path: str, array: ImageArray, keeps_gray: bool) -> None:
    name = "input_nc" if (domain == "A") == (opt.direction == "AtoB") else "output_nc"
    if name in opt.explicit or array.bands == getattr(opt, name) or (array.fits(getattr(opt, name)) and not keeps_gray):
        return
    setattr(opt, name, array.bands)
    print_line(f"note: --{name} {array.bands}, the number of bands of {path!r}. Set --{name} to use another number.")


def _compute_percentiles(opt: Namespace, files: Mapping[str, Sequence[str]]) -> None:
    """Replace percentiles in the value ranges by numbers. --value_range covers all domains without a range of their own."""
    shared = [domain for domain in files if getattr(opt, RANGE_OPTIONS[domain]) is None]
    for name, domains in {"value_range": shared, **{RANGE_OPTIONS[domain]: [domain] for domain in files}}.items():
        text = getattr(opt, name)
        percentiles = None if text is None else parse_value_range(text)
        if not isinstance(percentiles, Percentiles):
            continue
        chosen = [path for domain in domains for path in _evenly_spaced(files[domain], PERCENTILE_IMAGES)]
        try:
            computed = percentiles.compute(_read_pixels(chosen, opt), len(chosen))
        except ValueError as error:
            raise UserError(f"--{name}={text}: {error}.") from None
        setattr(opt, name, str(computed))
        print_line(f"note: --{name}={computed}, computed from {text} of {len(chosen)} training images")


def _complete_ranges(opt: Namespace, samples: Mapping[str, Sequence[tuple[str, ImageArray]]]) -> None:
    """If one domain has a range, write down that of the other one too: results in its range need numbers."""
    ranges = {domain: value_range_of(opt, domain) for domain in samples}
    if not any(ranges.values()):
        return
    for domain, value_range in ranges.items():
        default = ValueRange.of_dtype(samples[domain][0][1].pixels.dtype) if samples[domain] else None
        if value_range is None and default is not None:
            setattr(opt, RANGE_OPTIONS[domain], str(default))


def _report(samples: Sequence[tuple[str, ImageArray]], value_range: ValueRange | None) -> Iterator[str]:
    """Yield a line for each property of the images that may surprise."""
    counts: Counter[str] = Counter()
    lowest, highest, clipped = float("inf"), float("-inf"), []
    for _, array in samples:
        mapped = value_range or ValueRange.of_dtype(array.pixels.dtype)
        valid = array.valid_samples
        counts["nodata"] += valid.size < array.pixels.size
        low, high = float(valid.min()), float(valid.max())
        counts["constant"] += low == high
        counts["invisible"] += array.alpha is not None and not array.alpha.any()
        counts["pages"] += array.info.pages > 1
        profile = array.info.icc_profile
        counts["profile"] += profile is not None and not is_srgb(profile)
        if mapped is None:
            continue
        clipped.append(mapped.clipped_share(valid))
        if low < high and (min(high, mapped.hi) - max(low, mapped.lo)) * WIDE_SHARE < mapped.hi - mapped.lo:
            counts["narrow"] += 1
            lowest, highest = min(lowest, low), max(highest, high)
    share = f"of {len(samples)} images checked"
    if counts["constant"]:
        yield f"{counts['constant']} {share} are constant"
    if counts["narrow"] * 2 > len(samples):
        proposal = ValueRange(lowest, highest)
        yield f"{counts['narrow']} {share} use less than 1/{WIDE_SHARE} of their range (see --value_range={proposal})"
    if counts["invisible"]:
        yield f"{counts['invisible']} {share} have an alpha of 0 everywhere; their colors are used"
    if counts["nodata"]:
        yield f"{counts['nodata']} {share} have samples of GDAL's nodata value, clipped to the range as any others"
    if counts["pages"]:
        yield (
            f"{counts['pages']} {share} have several pages; the largest is used "
            "(--tiff_pages all reads each as an image, --tiff_pages bands stacks them)"
        )
    if counts["profile"]:
        yield f"{counts['profile']} {share} have a color profile other than sRGB, ignored (--to_srgb converts 8-bit images)"
    if clipped and max(clipped) > 0:
        yield f"{np.mean(clipped):.2%} of the values of {len(clipped)} images checked lie outside {value_range}, clipped"


def _read_pixels(paths: Sequence[str], opt: Namespace) -> Iterator[np.ndarray]:
    for path in paths:
        for _, array in _read_some([path], 1, opt):
            yield array.valid_samples


def _evenly_spaced(paths: Sequence[str], count: int) -> list[str]:
    return [paths[index * len(paths) // min(count, len(paths))] for index in range(min(count, len(paths)))]


def _folder(paths: Sequence[str]) -> str:
    return Path(split_page(paths[0])[0]).parent.name
