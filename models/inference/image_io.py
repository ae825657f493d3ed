"""Image files as arrays of 8 or 16 bits with alpha, the tensors that networks take, and the input and output paths."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from data.image_folder import list_images
from data.image_io import EXTENSIONS, open_exif_transposed
from data.pillow_reader import check_bit_depth, is_gray16, to_gray16
from util.errors import UserError
from util.files import atomic_write

# ITU-R 601-2 luma, in the fixed-point form of Pillow's convert("L").
LUMA = np.array([19595, 38470, 7471])
ORIENTATION = ExifTags.Base.Orientation
# Settings for Pillow's save(); the lossy formats at a quality without visible artifacts.
SAVE_SETTINGS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
MAX_LISTED = 3  # file names in an error message


@dataclass(frozen=True)
class ImageArray:
    """An image: `color` (H, W, 1 or 3) and `alpha` (H, W) or None, both uint8 or both uint16."""

    color: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None  # color profile, copied unchanged

    @property
    def max_value(self) -> int:
        """Value of white: 255 or 65535."""
        return int(np.iinfo(self.color.dtype).max)


def from_pil(image: Image.Image) -> ImageArray:
    """Return the pixels of a PIL image, upright by its EXIF orientation.

    Raises:
        ImageError: the image has 32-bit samples, whose value of white is undefined.
    """
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "L", "LA") else None
    if is_gray16(image):
        # Transpose after reading: a transposed copy loses the TIFF tags that define the samples.
        gray = Image.fromarray(to_gray16(image).astype(np.uint16))
        gray.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        return ImageArray(np.asarray(ImageOps.exif_transpose(gray))[:, :, None])
    check_bit_depth(image)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return ImageArray(pixels[:, :, :3], pixels[:, :, 3], profile)
    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return ImageArray(pixels.reshape(*pixels.shape[:2], -1), None, profile)


def to_pil(array: ImageArray) -> Image.Image:
    """Return a PIL image: RGB, RGBA, L, LA, or I;16 for 16-bit gray.

    16-bit color becomes 8-bit color, because Pillow has no 16-bit color.
    """
    color, alpha = array.color, array.alpha
    if color.dtype == np.uint16 and (color.shape[2] == 3 or alpha is not None):
        color, alpha = _to_8_bit(color), None if alpha is None else _to_8_bit(alpha)
    image = Image.fromarray(np.ascontiguousarray(color[:, :, 0] if color.shape[2] == 1 else color))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    if array.icc_profile is not None:
        image.info["icc_profile"] = array.icc_profile
    return image


def to_tensor(array: ImageArray, channels: int) -> Tensor:
    """Return the (channels, H, W) float32 tensor in [-1, 1] for a network with this number of input channels.

    Fully transparent pixels become white, as in training. Partly transparent pixels keep their color, because the output
    gets the same alpha.
    """
    color = array.color
    if array.alpha is not None:
        color = np.where(array.alpha[:, :, None] == 0, color.dtype.type(array.max_value), color)
    if channels == 1 and color.shape[2] == 3:
        luma = (color.astype(np.int64) @ LUMA + 2**15) >> 16
        color = luma.astype(color.dtype)[:, :, None]
    values = np.ascontiguousarray(color.transpose(2, 0, 1)).astype(np.float32)
    values /= array.max_value
    values -= 0.5
    values /= 0.5
    tensor = torch.from_numpy(values)
    return tensor.expand(channels, -1, -1) if tensor.shape[0] == 1 else tensor


def from_output(output: Tensor, source: ImageArray) -> ImageArray:
    """Return a network's output (C, H, W) in [-1, 1] as an image with the source's bit depth, alpha and color profile.

    Values are truncated, not rounded, as in test.py and in the published code. Alpha is resized to the output's size.
    """
    scaled = ((output.float() + 1) / 2 * source.max_value).clamp(0, source.max_value)
    color = scaled.permute(1, 2, 0).cpu().numpy().astype(source.color.dtype)
    alpha = source.alpha
    if alpha is not None and alpha.shape != color.shape[:2]:
        plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
        resized = resize(plane, *color.shape[:2]).clamp(0, source.max_value).round()
        alpha = resized[0, 0].numpy().astype(alpha.dtype)
    profile = source.icc_profile if color.shape[2] == source.color.shape[2] else None
    return ImageArray(color, alpha, profile)


def resize(batch: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width): bicubic, antialiased."""
    return torch.nn.functional.interpolate(batch, (height, width), mode="bicubic", antialias=True)


def _to_8_bit(samples: np.ndarray) -> np.ndarray:
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_image_array(path: Path) -> ImageArray:
    """Read the first frame of a file, upright by its EXIF orientation. Raise ImageError if that fails."""
    with open_exif_transposed(str(path)) as image:
        return from_pil(image)


def write_image_array(array: ImageArray, path: Path) -> None:
    """Write an image atomically, in the format of the file extension.

    Raise OSError, ValueError or EnvironmentFailure if the disk, the format or the folder does not accept it.
    """
    file_format = Image.registered_extensions()[path.suffix.lower()]
    image = to_pil(array)
    with atomic_write(path) as tmp_path:
        image.save(tmp_path, file_format, icc_profile=array.icc_profile, **SAVE_SETTINGS.get(file_format, {}))


@dataclass(frozen=True)
class Job:
    """A file to translate and the path of the result."""

    source: Path
    target: Path


def plan_inputs(sources: Sequence[str], output: Path) -> list[Job]:
    """Return the jobs for several inputs, such as the files of a pattern that the shell has expanded.

    The tree below `output` mirrors the tree of the files below their common folder, as with a quoted pattern.

    Raises:
        UserError: as `plan_jobs`, or two inputs would have the same result.
    """
    if len(sources) == 1:
        return plan_jobs(sources[0], output)
    if output.suffix.lower() in EXTENSIONS and not output.is_dir():
        raise UserError(f"--output {output}: a file name, but there are {len(sources)} inputs. Use a folder.")
    files = [Path(source) for source in sources if Path(source).is_file()]
    root = os.path.commonpath([os.path.abspath(file.parent) for file in files]) if files else ""  # noqa: PTH100 - keeps links
    jobs = [Job(file, output / os.path.relpath(file, root)) for file in files]
    for source in sources:
        if not Path(source).is_file():
            jobs += plan_jobs(source, output)
    inputs: dict[Path, Path] = {}
    for job in jobs:
        if inputs.setdefault(job.target, job.source) != job.source:
            raise UserError(
                f"--input: {inputs[job.target]} and {job.source} have the same result {job.target}. "
                "Translate them separately."
            )
    return _check_targets(jobs)


def plan_jobs(source: str, output: Path) -> list[Job]:
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
        return _check_targets([Job(path, output if is_file_name else output / path.name)])
    elif glob.has_magic(source):
        found = sorted(Path(file) for file in glob.glob(source, recursive=True))  # noqa: PTH207 - it keeps `..` as written
        root, files = _fixed_part(path), [file for file in found if file.suffix.lower() in EXTENSIONS and file.is_file()]
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
    return _check_targets([Job(file, output / file.relative_to(root)) for file in files])


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
    """Return the jobs. Raise UserError if a result would overwrite an input."""
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"--output: {job.target} is one of the input images. Use another folder or file name.")
    return jobs


def _fixed_part(pattern: Path) -> Path:
    """Return the folder in front of the first wildcard of a pattern."""
    first = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:first])


def _is_within(path: Path, folder: Path) -> bool:
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return inner == outer or outer in inner.parents
