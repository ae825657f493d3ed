"""Images as arrays of 8 or 16 bits with their alpha, and the tensors in [-1, 1] that networks take."""

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
from data.image_io import EXTENSIONS, check_bit_depth, is_16_bit, open_exif_transposed, to_gray16
from util.errors import UserError
from util.files import atomic_write

# ITU-R 601-2 luma, in the fixed-point form of Pillow's convert("L").
LUMA = np.array([19595, 38470, 7471])
ORIENTATION = ExifTags.Base.Orientation


@dataclass(frozen=True)
class ImageArray:
    """An image: `color` (H, W, 1 or 3) and `alpha` (H, W) or None, both uint8 or both uint16."""

    color: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None  # the meaning of the colors, handed on as it is

    @property
    def white(self) -> int:
        """The largest value of a sample: 255 or 65535."""
        return int(np.iinfo(self.color.dtype).max)


def from_pil(image: Image.Image) -> ImageArray:
    """The samples of a PIL image, upright by its EXIF orientation.

    Raises:
        ImageError: they are 32-bit samples, whose white is not defined.
    """
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "L", "LA") else None
    if is_16_bit(image):
        # Turned afterwards: a turned copy has lost what the file says of its samples.
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


def to_pil(samples: ImageArray) -> Image.Image:
    """A PIL image: RGB, RGBA, L, LA, or I;16 for 16-bit gray. 16-bit color, which Pillow does not have, becomes 8-bit."""
    color, alpha = samples.color, samples.alpha
    if color.dtype == np.uint16 and (color.shape[2] == 3 or alpha is not None):
        color, alpha = _to_8_bit(color), None if alpha is None else _to_8_bit(alpha)
    image = Image.fromarray(np.ascontiguousarray(color[:, :, 0] if color.shape[2] == 1 else color))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    if samples.icc_profile is not None:
        image.info["icc_profile"] = samples.icc_profile
    return image


def to_tensor_from_array(samples: ImageArray, channels: int) -> Tensor:
    """The (channels, H, W) float32 tensor in [-1, 1] that a network with as many input channels takes.

    What alpha hides altogether is white, as in the images that networks are trained on; what shows through keeps its
    color, since the translation gets the same alpha.
    """
    color = samples.color
    if samples.alpha is not None:
        color = np.where(samples.alpha[:, :, None] == 0, color.dtype.type(samples.white), color)
    if channels == 1 and color.shape[2] == 3:
        luma = (color.astype(np.int64) @ LUMA + 2**15) >> 16
        color = luma.astype(color.dtype)[:, :, None]
    values = np.ascontiguousarray(color.transpose(2, 0, 1)).astype(np.float32)
    values /= samples.white
    values -= 0.5
    values /= 0.5
    tensor = torch.from_numpy(values)
    return tensor.expand(channels, -1, -1) if tensor.shape[0] == 1 else tensor


def from_output(translation: Tensor, source: ImageArray) -> ImageArray:
    """The translation (C, H, W) in [-1, 1] as samples of the source's depth, with its alpha and its color profile.

    Values are truncated, not rounded, as test.py and the published code do. Alpha is resized where the translation has
    another size than the source.
    """
    scaled = ((translation.float() + 1) / 2 * source.white).clamp(0, source.white)
    color = scaled.permute(1, 2, 0).cpu().numpy().astype(source.color.dtype)
    alpha = source.alpha
    if alpha is not None and alpha.shape != color.shape[:2]:
        plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
        resized = resize(plane, *color.shape[:2]).clamp(0, source.white).round()
        alpha = resized[0, 0].numpy().astype(alpha.dtype)
    profile = source.icc_profile if color.shape[2] == source.color.shape[2] else None
    return ImageArray(color, alpha, profile)


def resize(batch: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) at another size, bicubic, antialiased where it shrinks."""
    return torch.nn.functional.interpolate(batch, (height, width), mode="bicubic", antialias=True)


def _to_8_bit(samples: np.ndarray) -> np.ndarray:
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


# How each kind is written where it matters; the lossy ones at a quality that does not show.
SAVE_SETTINGS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
MAX_LISTED = 3  # names that a refusal lists


@dataclass(frozen=True)
class Job:
    """An image to translate, and where to."""

    source: Path
    target: Path


def plan_jobs(source: str, output: Path) -> list[Job]:
    """What is to be translated: an image, all images below a folder, or those that a pattern such as `in/*.jpg` finds.

    Results lie below `output` as the sources lie below the folder, or below the pattern's fixed part, under equal names.
    For a single image `output` may be the result's own name.

    Raises:
        UserError: there is no image, or results would be written over sources or among them.
    """
    path = Path(source)
    if path.is_dir():
        root, files = path, [Path(file) for file in list_images(source)]
    elif path.is_file():
        named = output.suffix.lower() in EXTENSIONS and not output.is_dir()
        return _build_validated([Job(path, output if named else output / path.name)])
    elif glob.has_magic(source):
        found = sorted(Path(file) for file in glob.glob(source, recursive=True))  # noqa: PTH207 - it keeps `..` as written
        root, files = _fixed_part(path), [file for file in found if file.suffix.lower() in EXTENSIONS and file.is_file()]
        if not files:
            raise UserError(f"--input {source} matches no image, of {len(found)} files and folders that it matches")
    else:
        raise UserError(f"--input {source}: there is no such file or folder")
    if _is_within(output, root):
        raise UserError(
            f"--output {output} lies within --input {root}: its images would be taken for input the next time; "
            "name a folder outside"
        )
    return _build_validated([Job(file, output / file.relative_to(root)) for file in files])


def plan_video(source: Path, output: Path) -> Job:
    """A video, to `output` itself where that ends as videos do, or below it. Raises UserError where that is the source."""
    named = output.suffix and not output.is_dir()
    return _build_validated([Job(source, output if named else output / source.name)])[0]


def pending_jobs(jobs: Sequence[Job], resume: bool, overwrite: bool) -> list[Job]:
    """The jobs whose result is not there yet; with `overwrite` all.

    Raises UserError where results are there and neither is asked for.
    """
    done = [job for job in jobs if job.target.exists()]
    if not done or overwrite:
        return list(jobs)
    if resume:
        return [job for job in jobs if not job.target.exists()]
    names = ", ".join(str(job.target) for job in done[:MAX_LISTED])
    raise UserError(
        f"{len(done)} of {len(jobs)} results are there already ({names}{', …' if len(done) > MAX_LISTED else ''}): "
        "--resume keeps them and does the others, --overwrite makes them anew"
    )


def read_image_array(path: Path) -> ImageArray:
    """The first image in a file, upright. Raises ImageError."""
    with open_exif_transposed(str(path)) as image:
        return from_pil(image)


def write_image_array(samples: ImageArray, path: Path) -> None:
    """Writes the kind of image that the name says. The file is complete or not there.

    Raises OSError, ValueError or EnvironmentFailure where the disk, the kind of file, or the folder does not take it.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    image = to_pil(samples)
    with atomic_write(path) as unfinished:
        image.save(unfinished, kind, icc_profile=samples.icc_profile, **SAVE_SETTINGS.get(kind, {}))


def _build_validated(jobs: list[Job]) -> list[Job]:
    """The jobs themselves. Raises UserError where a result would be written over a source."""
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target} is one of the images to translate; name another --output")
    return jobs


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern starts from."""
    wild = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:wild])


def _is_within(path: Path, folder: Path) -> bool:
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return inner == outer or outer in inner.parents
