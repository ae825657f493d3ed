"""The images of one domain, read one at a time, with a note of those that cannot be used."""

from typing import Protocol

import numpy as np
import torch
from PIL import Image

from data.image_io import ImageError, read_image
from data.transforms import ImageTooSmallError
from util.errors import UserError


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
