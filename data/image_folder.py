"""Image files of a dataset: find them, check that they are usable, load them one by one."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from data.image_array import BandCountError, ImageArray, ImageError, UndefinedRangeError
from data.image_io import EXTENSIONS
from data.image_reader import ImageReader, pixels_of
from data.transforms import ImageTooSmallError
from data.value_range import found_range
from util.errors import UserError
from util.html.page_record import check_no_page, is_output_folder
from util.terminal import print_line

DATAROOT_UNSET = "placeholder"  # the published default of --dataroot
# Systems and archivers put thumbnails and deleted files into these.
SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found")
CROP_REMEDY = (
    "Lower --crop_size, remove the image, or have --preprocess enlarge images before the crop (resize_and_crop or "
    "scale_shortside_and_crop, with --load_size at least --crop_size)."
)
MAX_LISTED = 8  # names that an error message lists
PROPOSAL_IMAGES = 4  # from which a value range is proposed


def check_dataroot(dataroot: str) -> None:
    """Raise UserError if --dataroot is not set or does not exist."""
    if dataroot == DATAROOT_UNSET:
        raise UserError(
            "--dataroot: missing. Give the folder of the dataset, as in --dataroot ./datasets/horse2zebra, or two "
            "folders: --dataroot_A DIR --dataroot_B DIR."
        )
    if not Path(dataroot).exists():
        raise UserError(f"--dataroot {dataroot}: no such folder. Check the path.")


def resolve_phase(dataroot: str, phase: str, domain: str = "") -> str:
    """Return `phase`, or "val" if the dataset has val images but no test images (`domain` "A": valA, but no testA)."""
    root = Path(dataroot)
    use_val = phase == "test" and not (root / f"test{domain}").exists() and (root / f"val{domain}").exists()
    return "val" if use_val else phase


def list_images(folder: str) -> list[str]:
    """Return the sorted paths of all images below `folder`.

    Links to folders are followed, and each real folder is visited once. Hidden files (names that begin with a dot) are
    ignored, because operating systems store their own data there. Results pages and run folders below `folder` are left
    out, with a note: a program does not read its own output.

    Raises:
        UserError: `folder` is missing, cannot be listed, is a results page, or contains no image.
    """
    if not Path(folder).is_dir():
        parent = Path(folder).parent
        raise UserError(
            f"{folder}: not a folder; {parent} {_describe_dir(parent)}. "
            "Check --dataroot and --phase (--evaluation_phase for the metrics of train.py). "
            "Use --dataroot_A DIR --dataroot_B DIR for folders of other names, or test.py --model test --dataroot DIR for a "
            "single folder."
        )
    check_no_page(Path(folder))
    outputs: list[str] = []
    files = sorted(_walk(folder, outputs))
    images = _images_among(files)
    if outputs:
        count = sum(len(_images_among(_walk(output))) for output in outputs)
        _print_once(
            f"{folder}: {count} images are not read, because train.py or test.py wrote their folders: "
            f"{', '.join(outputs[:MAX_LISTED])}{', …' if len(outputs) > MAX_LISTED else ''}"
        )
    if not images:
        others = f", only files of other types ({count_by_ending(files)})" if files else ""
        raise UserError(f"{folder}: no images{others}. Use names that end in {' '.join(EXTENSIONS)}.")
    if len(images) < len(files):
        _print_once(f"{folder}: ignored files of other types: {count_by_ending(set(files) - set(images))}")
    return images


def count_by_ending(files: Iterable[str]) -> str:
    """Return the number of files by ending, such as "6 .txt, 1 without an ending"."""
    counts = Counter(Path(file).suffix.lower() or "without an ending" for file in sorted(files))
    listed = ", ".join(f"{count} {ending}" for ending, count in counts.most_common(MAX_LISTED))
    return f"{listed}{', …' if len(counts) > MAX_LISTED else ''}"


def _images_among(files: Sequence[str]) -> list[str]:
    return [path for path in files if path.lower().endswith(EXTENSIONS)]


@cache
def _print_once(line: str) -> None:
    print_line(line)


def _walk(folder: str, outputs: list[str] | None = None) -> list[str]:
    """Return the paths of all visible files below `folder`.

    Folders of results and runs are appended to `outputs` instead of being entered. None: they are entered.
    """

    def fail(error: OSError) -> None:  # by default os.walk skips folders that it cannot list
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror}). Check its permissions.") from error

    visited: set[str] = set()
    files = []
    for here, subfolders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(here)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        if outputs is not None and here != folder and is_output_folder(Path(here), names):
            outputs.append(here)
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in SYSTEM_FOLDERS)
        files += [str(Path(here, name)) for name in names if not name.startswith(".")]
    return files


def _describe_dir(folder: Path) -> str:
    """Return a predicate that says what `folder` contains."""
    if not folder.is_dir():
        return "is a file" if folder.exists() else "does not exist"
    entries = list(folder.iterdir())
    if not entries:
        return "is empty"
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        return f"has no folders, but {len(entries)} file{'s' * (len(entries) > 1)}"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"has the folders {', '.join(names[:MAX_LISTED])}{more}"


class TwoStageTransform(Protocol):
    """A transform from image to tensor in two stages, such as `data.transforms.Transform`. Equal transforms compare equal.

    --cache stores the result of the first stage.
    """

    def apply_deterministic(self, image: Image.Image | ImageArray) -> np.ndarray:
        """Apply the deterministic stage; return pixels (C, H, W) of the image's dtype."""

    def apply_random(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Apply the random stage, using `rng` only; return a float32 tensor (C, H, W) in [-1, 1]."""


class ImageFolder:
    """The image files of one domain, at least one of them readable.

    Attributes:
        paths: the files; samples refer to them by index.
        read: reads a file of this domain.
        has_wide_range: the first readable file has other than 8-bit samples.
        skipped: unusable images found since it was last cleared, path -> reason.
    """

    def __init__(self, paths: list[str], read: ImageReader | None = None) -> None:
        """Raise UserError if none of the files can be read."""
        self.paths = paths
        self.read = read or ImageReader()
        self.has_wide_range = False
        self.skipped: dict[str, str] = {}
        self._cache: dict[int, np.ndarray] = {}  # results of the deterministic stage, by index
        self._cache_key: TwoStageTransform | None = None  # the transform that computed them
        self._check_any_readable()

    def __len__(self) -> int:
        return len(self.paths)

    def set_cache(self, images: dict[int, np.ndarray], transform: TwoStageTransform | None) -> None:
        """Replace the cache by `images`, the results of `transform`'s deterministic stage by index."""
        self._cache, self._cache_key = images, transform

    def load(self, index: int, transform: TwoStageTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str] | None:
        """Return the transformed image and its path, or None if the image is unusable, which is noted in `skipped`.

        Raises:
            UserError: the image is smaller than the crop.
        """
        path = self.paths[index]
        try:
            is_cached = index in self._cache and transform == self._cache_key
            pixels = self._cache[index] if is_cached else transform.apply_deterministic(self.read(path))
            return transform.apply_random(pixels, rng), path
        except ImageError as error:
            self.skipped[path] = str(error)
            return None
        except ImageTooSmallError as error:
            raise UserError(f"{path!r}: {error}. {CROP_REMEDY}") from error

    def load_or_skip(self, index: int, transform: TwoStageTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str]:
        """Return the same as `load`, but replace an unusable image by the next usable one.

        Raises:
            UserError: no image of the domain is usable.
        """
        for offset in range(len(self)):
            loaded = self.load((index + offset) % len(self), transform, rng)
            if loaded is not None:
                return loaded
        raise self._none_readable()

    def _check_any_readable(self) -> None:
        first_error: ImageError | None = None
        for path in self.paths:
            try:
                self.has_wide_range = pixels_of(self.read(path)).dtype != np.uint8
                return
            except ImageError as error:
                first_error = first_error or error
                self.skipped[path] = str(error)
        raise self._unsuitable(first_error) or self._none_readable()

    def _unsuitable(self, error: ImageError | None) -> UserError | None:
        """Return the error that names the option if images need another one, else None."""
        path = self.paths[0]
        if isinstance(error, BandCountError):
            remedy = f", or {self.read.flag} {error.bands}" if error.remedy else f". Use {self.read.flag} {error.bands}"
            return UserError(f"{self.read.flag} {error.expected}: {path!r} {error}{remedy}.")
        if isinstance(error, UndefinedRangeError):
            some = self.paths[:PROPOSAL_IMAGES]
            images = [replace(self.read, has_range=True)(path) for path in some if path in self.skipped]
            arrays = [image.valid_samples for image in images if isinstance(image, ImageArray)]
            return UserError(
                f"{path!r}: {error}. The first {len(arrays)} images have values in {found_range(arrays)}: use "
                f"--value_range={found_range(arrays)}, or --value_range=percentile:1,99 in training."
            )
        return None

    def _none_readable(self) -> UserError:
        path, reason = next(iter(self.skipped.items()))
        return UserError(f"{path!r}: {reason}. None of the {len(self)} images of this folder can be read; replace them.")
