"""The pictures of one domain, read one at a time, with a note of those that cannot be used."""

from typing import Protocol

import numpy as np
import torch
from PIL import Image

from data.image_io import PictureError, read_image
from data.transforms import PictureTooSmallError
from util.errors import UserError


class PictureTransform(Protocol):
    """What makes a tensor of a picture in two parts, as `data.transforms.Transform` does. Equal ones do the same."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        """What is the same every time: uint8 pixels (C, H, W)."""

    def finish(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The rest, with all random draws from `rng`: a float32 tensor (C, H, W) in [-1, 1]."""


class PictureSet:
    """A domain: a fixed list of picture files, at least one of them readable."""

    def __init__(self, paths: list[str]) -> None:
        """Raises a UserError when none of the files can be read."""
        self.paths = paths
        self.skipped: dict[str, str] = {}  # path -> why it could not be used
        self._kept: dict[int, np.ndarray] = {}  # prepared pictures that are held in memory
        self._kept_for: PictureTransform | None = None  # what prepared them
        self._require_one()

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self, pictures: dict[int, np.ndarray], transform: PictureTransform | None) -> None:
        """Holds in memory what `transform` prepared, by index, in place of what was held before."""
        self._kept, self._kept_for = pictures, transform

    def load(self, index: int, transform: PictureTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str] | None:
        """What `transform` makes of picture `index`, and its path; None, with a note, when the picture cannot be used.

        Raises:
            UserError: the picture is too small to be cropped.
        """
        path = self.paths[index]
        try:
            is_kept = index in self._kept and transform == self._kept_for
            pixels = self._kept[index] if is_kept else transform.prepare(read_image(path))
            return transform.finish(pixels, rng), path
        except PictureError as error:
            self.skipped[path] = str(error)
            return None
        except PictureTooSmallError as error:
            raise UserError(
                f"{path!r} has, before cropping, {error}: lower --crop_size, take the picture out, or let --preprocess "
                f"enlarge it first (resize_and_crop or scale_shortside_and_crop, --load_size at least --crop_size)"
            ) from error

    def load_or_next(self, index: int, transform: PictureTransform, rng: np.random.Generator) -> tuple[torch.Tensor, str]:
        """As `load`; a picture that cannot be used is replaced by the next one that can.

        Raises:
            UserError: no picture of the domain can be used any more.
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
            except PictureError as error:
                self.skipped[path] = str(error)
        raise self._nothing_readable()

    def _nothing_readable(self) -> UserError:
        path, reason = next(iter(self.skipped.items()))
        return UserError(f"none of {len(self)} pictures can be read; of {path!r}: {reason}")
