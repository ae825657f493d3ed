"""Images of any band count and dtype as network inputs and outputs, and the input and output paths."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from data.image_array import ImageArray, ImageError, transpose_by_orientation
from data.image_folder import list_images
from data.image_io import EXTENSIONS, writable_name
from data.image_reader import with_pages
from data.image_writer import check_writable, derive, output_format, write_array
from data.pillow_reader import from_pil as from_upright_pil
from data.transforms import to_tensor as scale
from data.value_range import ValueRange
from util.errors import UserError
from util.files import atomic_write
from util.html.page_record import IMAGES, is_output_folder
from util.terminal import print_line

ORIENTATION = ExifTags.Base.Orientation
MAX_LISTED = 3  # file names in a message, or with one reason
MIN_LEVELS = 256  # with fewer, results from 0 to 1 would be black and white


def from_pil(image: Image.Image) -> ImageArray:
    """Return the pixels of a PIL image, upright by its EXIF orientation.

    Raises:
        ImageError: the image has 32-bit samples, whose value of white is undefined.
    """
    image.load()  # turns a TIFF upright
    array, orientation = from_upright_pil(image), image.getexif().get(ORIENTATION, 1)
    alpha = None if array.alpha is None else transpose_by_orientation(array.alpha, orientation)
    return ImageArray(transpose_by_orientation(array.pixels, orientation), alpha, array.info)


def to_tensor(array: ImageArray, channels: int, value_range: ValueRange | None = None) -> Tensor:
    """Return the (channels, H, W) float32 tensor in [-1, 1] for a network with this number of input channels.

    Fully transparent pixels become white, as in training. Partly transparent pixels keep their color, because the output
    gets the same alpha.

    Args:
        value_range: maps to [-1, 1]; None: the full range of uint8 or uint16.
    Raises:
        BandCountError: another number of bands.
        UndefinedRangeError: signed or floating-point samples without a range.
    """
    pixels, alpha = array.pixels, array.alpha
    if alpha is not None and alpha.any() and not array.has_alpha_band(channels):
        pixels = np.where(alpha[:, :, None] == 0, pixels.dtype.type(np.iinfo(pixels.dtype).max), pixels)
        alpha = None
    return scale(ImageArray(pixels, alpha, array.info).with_channels(channels).transpose(2, 0, 1), value_range)


def from_output(
    output: Tensor,
    source: ImageArray,
    value_range: ValueRange | None = None,
    source_range: ValueRange | None = None,
) -> ImageArray:
    """Return a network's output (C, H, W) in [-1, 1] as an image with the source's dtype, alpha and file properties.

    Values are rounded, so that an identity network returns 8- and 16-bit images exactly. Alpha is resized to the output's
    size. A dtype that cannot hold `value_range`, or has fewer levels in it than 8 bits, becomes int16 or float32.

    Args:
        value_range: the values of -1 and 1; None: the full range of the source's dtype.
        source_range: the values of the source that -1 and 1 stand for. If it is `value_range`, any number of levels will do.
    """
    dtype = result_dtype(source.pixels.dtype, value_range, source_range)
    mapped = value_range or ValueRange.of_dtype(dtype) or ValueRange(-1, 1)
    pixels = mapped.denormalize(output.float().permute(1, 2, 0).cpu().numpy(), dtype)
    alpha = source.alpha if dtype == source.pixels.dtype and not source.has_alpha_band(pixels.shape[2]) else None
    if alpha is not None and alpha.shape != pixels.shape[:2]:
        plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
        resized = resize(plane, *pixels.shape[:2]).clamp(0, int(np.iinfo(alpha.dtype).max)).round()
        alpha = resized[0, 0].numpy().astype(alpha.dtype)
    return derive(source, pixels, alpha)


def result_dtype(dtype: np.dtype, value_range: ValueRange | None, source_range: ValueRange | None) -> np.dtype:
    """Return the dtype of a translation to `value_range`: `dtype`, that of its source, if possible; see `from_output`."""
    if value_range is None or dtype.kind == "f":
        return dtype
    if value_range.hi - value_range.lo < MIN_LEVELS - 1 and value_range != source_range:
        return np.dtype(np.float32)
    is_integer = float(value_range.lo).is_integer() and float(value_range.hi).is_integer()
    for candidate in (dtype, np.dtype(np.int16)):
        limits = np.iinfo(candidate)
        if limits.min <= value_range.lo and value_range.hi <= limits.max and (is_integer or candidate == dtype):
            return candidate
    return np.dtype(np.float32)


def resize(batch: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width): bicubic, antialiased."""
    return torch.nn.functional.interpolate(batch, (height, width), mode="bicubic", antialias=True)


def write_image_array(array: ImageArray, path: Path) -> None:
    """Write an image atomically, in the format of the file extension; without one, in the format of its source.

    Raises:
        ImageError: the format cannot hold the image.
        OSError, ValueError, EnvironmentFailure: the disk, the format or the folder does not accept it.
    """
    file_format = output_format(path, array.info)
    with atomic_write(path) as tmp_path:
        write_array(array, tmp_path, file_format)


def check_target(source: ImageArray, path: Path, bands: int, dtype: np.dtype) -> None:
    """Raise ImageError if the file `path` cannot hold a translation of this kind, before it is computed."""
    has_alpha = source.alpha is not None and dtype == source.pixels.dtype and not source.has_alpha_band(bands)
    try:
        check_writable(output_format(path, source.info), dtype, bands, has_alpha)
    except ImageError as error:
        raise ImageError(f"{error}, for example with --format tif") from None


@dataclass(frozen=True)
class Job:
    """A file to translate and the path of the result."""

    source: Path
    target: Path


def plan_inputs(sources: Sequence[str], output: Path, suffix: str | None = None, all_pages: bool = False) -> list[Job]:
    """Return the jobs for several inputs, such as the files of a pattern that the shell has expanded.

    The tree below `output` mirrors the tree of the files below their common folder, as with a quoted pattern.

    Args:
        sources: images, folders and patterns.
        output: folder of the results, or a file name for one image.
        suffix: ending of the results, such as ".tif"; None: that of each input.
        all_pages: translate all pages of a TIFF, those of a.tif to a/page_0000.tif and so on, instead of the largest.
    Raises:
        UserError: as `plan_jobs`, or two inputs would have the same result.
    """
    jobs = plan_jobs(sources[0], output, suffix) if len(sources) == 1 else _plan_several(sources, output, suffix)
    return _check_targets([page for job in jobs for page in _page_jobs(job)]) if all_pages else jobs


def _page_jobs(job: Job) -> list[Job]:
    paths = with_pages([str(job.source)])
    if len(paths) == 1:
        return [job]
    folder, suffix = job.target.with_suffix(""), job.target.suffix
    return [Job(Path(path), folder / f"{Path(path).name}{suffix}") for path in paths]


def _plan_several(sources: Sequence[str], output: Path, suffix: str | None) -> list[Job]:
    if output.suffix.lower() in EXTENSIONS and not output.is_dir():
        raise UserError(f"--output {output}: a file name, but there are {len(sources)} inputs. Use a folder.")
    files = [Path(source) for source in sources if Path(source).is_file()]
    root = os.path.commonpath([os.path.abspath(file.parent) for file in files]) if files else ""  # noqa: PTH100 - keeps links
    jobs = [Job(file, _result_name(output / os.path.relpath(file, root), suffix)) for file in files]
    for source in sources:
        if not Path(source).is_file():
            jobs += plan_jobs(source, output, suffix)
    return _check_targets(jobs)


def plan_jobs(source: str, output: Path, suffix: str | None = None) -> list[Job]:
    """Return the jobs for an image, for all images below a folder, or for a pattern such as `in/*.jpg`.

    The tree below `output` mirrors the tree below the folder, or below the fixed part of the pattern. For a single image,
    `output` may be a file name.

    Raises:
        UserError: there is no image, or results would overwrite inputs or lie among them.
    """
    path = Path(source)
    if path.is_dir():
        root, files = path, [Path(file) for file in list_images(source)]
    elif path.is_file():
        is_file_name = output.suffix.lower() in EXTENSIONS and not output.is_dir()
        if not is_file_name and not output.is_dir() and output.suffix.lower() in Image.registered_extensions():
            raise UserError(f"--output {output}: images are not written as {output.suffix}. Use .png, or give a folder.")
        if is_file_name and suffix not in (None, output.suffix.lower()):
            raise UserError(f"--format: {suffix} contradicts --output {output}. Remove one of them.")
        return _check_targets([Job(path, output if is_file_name else _result_name(output / path.name, suffix))])
    elif glob.has_magic(source):
        found = sorted(Path(file) for file in glob.glob(source, recursive=True))  # noqa: PTH207 - it keeps `..` as written
        root, files = _fixed_part(path), [file for file in found if file.suffix.lower() in EXTENSIONS and file.is_file()]
        if "**" in path.parts and IMAGES not in path.parts:
            files = _without_outputs(files, root)
        if not files:
            raise UserError(
                f"--input {source}: no image matches this pattern ({len(found)} other files and folders do). "
                f"Use a pattern for files that end in {', '.join(EXTENSIONS)}."
            )
    else:
        raise UserError(f"--input {source}: no such file or folder. Check the path.")
    if _is_within(output, root):
        raise UserError(
            f"--output {output}: inside --input {root}, so that the next run would read the results as input. "
            "Use a folder outside."
        )
    return _check_targets([Job(file, _result_name(output / file.relative_to(root), suffix)) for file in files])


def plan_video(source: Path, output: Path) -> Job:
    """Return the job for a video. `output` is a file name if it has an extension, else a folder.

    Raise UserError if the result would overwrite the input.
    """
    is_file_name = output.suffix and not output.is_dir()
    return _check_targets([Job(source, output if is_file_name else output / source.name)])[0]


def pending_jobs(jobs: Sequence[Job], resume: bool, overwrite: bool) -> list[Job]:
    """Return the jobs without a result, or all jobs with `overwrite`.

    Raise UserError if there are results and neither `resume` nor `overwrite` is set.
    """
    done = [job for job in jobs if job.target.exists()]
    if not done or overwrite:
        return list(jobs)
    if resume:
        return [job for job in jobs if not job.target.exists()]
    names = ", ".join(str(job.target) for job in done[:MAX_LISTED])
    raise UserError(
        f"--output: {len(done)} of {len(jobs)} results exist ({names}{', …' if len(done) > MAX_LISTED else ''}). "
        "Use --resume to skip them or --overwrite to replace them."
    )


def _check_targets(jobs: list[Job]) -> list[Job]:
    """Return the jobs. Raise UserError if a result would overwrite an input or another result."""
    sources = {os.path.realpath(job.source) for job in jobs}
    inputs: dict[Path, Path] = {}
    for job in jobs:
        if inputs.setdefault(job.target, job.source) != job.source:
            raise UserError(
                f"--input: {inputs[job.target]} and {job.source} have the same result {job.target}. "
                "Translate them separately."
            )
        if os.path.realpath(job.target) in sources:
            raise UserError(f"--output: {job.target} is one of the input images. Use another folder or file name.")
    return jobs


def _without_outputs(files: Sequence[Path], root: Path) -> list[Path]:
    """Return the files that are not in results pages or run folders below `root`. Print how many are."""
    folders = {parent for file in files for parent in file.parents if root in parent.parents}
    outputs = {folder for folder in folders if is_output_folder(folder, [entry.name for entry in folder.iterdir()])}
    kept = [file for file in files if outputs.isdisjoint(file.parents)]
    if len(kept) < len(files):
        print_line(f"{root}: {len(files) - len(kept)} images are not read, because train.py or test.py wrote their folders")
    return kept


def _result_name(path: Path, suffix: str | None) -> Path:
    """Return the path with the ending `suffix`. If it is None, formats that are only read get .tif, others keep theirs."""
    return writable_name(path) if suffix is None else path.with_suffix(suffix)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder in front of the first wildcard of a pattern."""
    first = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:first])


def _is_within(path: Path, folder: Path) -> bool:
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return inner == outer or outer in inner.parents
