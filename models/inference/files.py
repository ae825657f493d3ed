"""Picture files in, picture files of the same name, kind and size out: which ones, how they are read, how written."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.image_folder import list_pictures
from data.image_io import EXTENSIONS, open_upright
from models.inference.image_io import Samples, image_of_samples, samples_of_image
from util.errors import UserError
from util.files import whole_file

# How each kind is written where it matters; the lossy ones at a quality that does not show.
SAVE_SETTINGS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
EXAMPLES = 3  # names that a refusal lists


@dataclass(frozen=True)
class Job:
    """A picture to translate, and where to."""

    source: Path
    target: Path


def plan_jobs(source: str, output: Path) -> list[Job]:
    """What is to be translated: a picture, all pictures below a folder, or those that a pattern such as `in/*.jpg` finds.

    Results lie below `output` as the sources lie below the folder, or below the pattern's fixed part, under equal names.
    For a single picture `output` may be the result's own name.

    Raises:
        UserError: there is no picture, or results would be written over sources or among them.
    """
    path = Path(source)
    if path.is_dir():
        root, files = path, [Path(file) for file in list_pictures(source)]
    elif path.is_file():
        named = output.suffix.lower() in EXTENSIONS and not output.is_dir()
        return _checked([Job(path, output if named else output / path.name)])
    elif glob.has_magic(source):
        found = sorted(Path(file) for file in glob.glob(source, recursive=True))  # noqa: PTH207 - it keeps `..` as written
        root, files = _fixed_part(path), [file for file in found if file.suffix.lower() in EXTENSIONS and file.is_file()]
        if not files:
            raise UserError(f"--input {source} matches no picture, of {len(found)} files and folders that it matches")
    else:
        raise UserError(f"--input {source}: there is no such file or folder")
    if _is_within(output, root):
        raise UserError(
            f"--output {output} lies within --input {root}: its pictures would be taken for input the next time; "
            "name a folder outside"
        )
    return _checked([Job(file, output / file.relative_to(root)) for file in files])


def plan_video(source: Path, output: Path) -> Job:
    """A video, to `output` itself where that ends as videos do, or below it. Raises UserError where that is the source."""
    named = output.suffix and not output.is_dir()
    return _checked([Job(source, output if named else output / source.name)])[0]


def still_to_do(jobs: Sequence[Job], resume: bool, overwrite: bool) -> list[Job]:
    """The jobs whose result is not there yet; with `overwrite` all.

    Raises UserError where results are there and neither is asked for.
    """
    done = [job for job in jobs if job.target.exists()]
    if not done or overwrite:
        return list(jobs)
    if resume:
        return [job for job in jobs if not job.target.exists()]
    names = ", ".join(str(job.target) for job in done[:EXAMPLES])
    raise UserError(
        f"{len(done)} of {len(jobs)} results are there already ({names}{', …' if len(done) > EXAMPLES else ''}): "
        "--resume keeps them and does the others, --overwrite makes them anew"
    )


def read_samples(path: Path) -> Samples:
    """The first picture in a file, upright. Raises PictureError."""
    with open_upright(str(path)) as image:
        return samples_of_image(image)


def write_samples(samples: Samples, path: Path) -> None:
    """Writes the kind of picture that the name says. The file is complete or not there.

    Raises OSError, ValueError or MachineError where the disk, the kind of file, or the folder does not take it.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    image = image_of_samples(samples)
    with whole_file(path) as unfinished:
        image.save(unfinished, kind, icc_profile=samples.icc_profile, **SAVE_SETTINGS.get(kind, {}))


def _checked(jobs: list[Job]) -> list[Job]:
    """The jobs themselves. Raises UserError where a result would be written over a source."""
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target} is one of the pictures to translate; name another --output")
    return jobs


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern starts from."""
    wild = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:wild])


def _is_within(path: Path, folder: Path) -> bool:
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return inner == outer or outer in inner.parents
