"""Image files in, image files of the same name, kind and size out: which ones, how they are read, how written."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.image_folder import list_images
from data.image_io import EXTENSIONS, open_exif_transposed
from models.inference.image_io import ImageArray, from_pil, to_pil
from util.errors import UserError
from util.files import atomic_write

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
