"""Where the images of a dataset lie, and sentences that say what was found when they do not."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from data.image_io import EXTENSIONS, ImageError, read_image
from data.transforms import ImageTooSmallError
from util.errors import UserError

NOT_GIVEN = "placeholder"  # the published default of --dataroot
SHOWN = 8  # names in a folder that an error message lists


def check_dataroot(dataroot: str) -> None:
    """Raises a UserError when --dataroot was not given or does not exist."""
    if dataroot == NOT_GIVEN:
        raise UserError("--dataroot is missing: give the dataset's folder, as in --dataroot ./datasets/horse2zebra")
    if not Path(dataroot).exists():
        raise UserError(f"--dataroot {dataroot} does not exist")


def resolve_phase(dataroot: str, phase: str, domain: str = "") -> str:
    """`phase`, or "val" where the dataset has val images (`domain` "A": a folder valA) but no test images."""
    root = Path(dataroot)
    stands_in = phase == "test" and not (root / f"test{domain}").exists() and (root / f"val{domain}").exists()
    return "val" if stands_in else phase


def list_images(folder: str, limit: int | None = None) -> list[str]:
    """The sorted paths of all images below `folder`, at most the first `limit`.

    Links to folders are followed, each real folder is visited once. Names that begin with a dot are left out: they
    are what an operating system keeps for itself.

    Raises:
        UserError: `folder` is missing, cannot be listed, or holds no image.
    """
    if not Path(folder).is_dir():
        parent = Path(folder).parent
        raise UserError(f"{folder} is not a folder; {parent} {_holds(parent)}: check --dataroot and --phase")
    files = sorted(_walk(folder))
    images = [path for path in files if path.lower().endswith(EXTENSIONS)]
    if not images:
        raise UserError(
            f"{folder} has no images: 0 images, {len(files)} other files in it and below; "
            f"names of images end in {' '.join(EXTENSIONS)}"
        )
    return images[:limit]


def _walk(folder: str) -> list[str]:
    """The paths of all visible files below `folder`."""

    def fail(error: OSError) -> None:  # os.walk would pass over what it cannot list
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error

    visited: set[str] = set()
    files = []
    for here, subfolders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(here)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [str(Path(here, name)) for name in names if not name.startswith(".")]
    return files


def _holds(folder: Path) -> str:
    """What `folder` holds, as the predicate of a sentence."""
    if not folder.is_dir():
        return "is a file" if folder.exists() else "does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return "is empty"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"holds {', '.join(names[:SHOWN])}{more}"


class TwoStageTransform(Protocol):
    """What makes a tensor of an image in two parts, as `data.transforms.Transform` does. Equal ones do the same."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        """What is the same every time: uint8 pixels (C, H, W)."""

    def finish(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The rest, with all random draws from `rng`: a float32 tensor (C, H, W) in [-1, 1]."""


class ImageFolder:
    """A domain: a fixed list of image files, at least one of them readable."""

    def __init__(self, paths: list[str]) -> None:
        """Raises a UserError when none of the files can be read."""
        self.paths = paths
        self.skipped: dict[str, str] = {}  # path -> why it could not be used
        self._kept: dict[int, np.ndarray] = {}  # prepared images that are held in memory
        self._cache_key: TwoStageTransform | None = None  # what prepared them
        self._require_one()

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self, images: dict[int, np.ndarray], transform: TwoStageTransform | None) -> None:
        """Holds in memory what `transform` prepared, by index, in place of what was held before."""
        self._kept, self._cache_key = images, transform

    def load(self, index: int, transform: TwoStageTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str] | None:
        """What `transform` makes of image `index`, and its path; None, with a note, when the image cannot be used.

        Raises:
            UserError: the image is too small to be cropped.
        """
        path = self.paths[index]
        try:
            is_kept = index in self._kept and transform == self._cache_key
            pixels = self._kept[index] if is_kept else transform.prepare(read_image(path))
            return transform.finish(pixels, rng), path
        except ImageError as error:
            self.skipped[path] = str(error)
            return None
        except ImageTooSmallError as error:
            raise UserError(
                f"{path!r} has, before cropping, {error}: lower --crop_size, take the image out, or let --preprocess "
                f"enlarge it first (resize_and_crop or scale_shortside_and_crop, --load_size at least --crop_size)"
            ) from error

    def load_or_skip(self, index: int, transform: TwoStageTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str]:
        """As `load`; an image that cannot be used is replaced by the next one that can.

        Raises:
            UserError: no image of the domain can be used any more.
        """
        for offset in range(len(self)):
            loaded = self.load((index + offset) % len(self), transform, rng)
            if loaded is not None:
                return loaded
        raise self._nothing_readable()

    def _require_one(self) -> None:
        for path in self.paths:
            try:
                read_image(path)
                return
            except ImageError as error:
                self.skipped[path] = str(error)
        raise self._nothing_readable()

    def _nothing_readable(self) -> UserError:
        path, reason = next(iter(self.skipped.items()))
        return UserError(f"none of {len(self)} images can be read; of {path!r}: {reason}")
