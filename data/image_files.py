"""Images of a folder as arrays, for evaluation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from data.image_array import ImageArray, ImageError
from data.image_folder import TwoStageTransform, list_images
from data.image_reader import DEFAULT_READING, ReadOptions
from data.plane_resize import PlaneStack
from data.transforms import ImageTooSmallError, to_tensor
from data.value_range import ValueRange
from util.errors import UserError

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class ExactFormat:
    """Format in which images of any band count and dtype are compared: all bands, the shown channels first.

    The value range maps to 0 to 255.
    """

    channels: int
    order: tuple[int, ...]
    value_range: ValueRange | None = None  # None: the full range of uint8 or uint16

    def convert(self, array: ImageArray, transform: TwoStageTransform | None, size: Size | None) -> np.ndarray:
        """Return the float32 pixels (H, W, C) in [0, 255] of an image. Raise ImageError if it does not fit."""
        if transform is None:
            planes = PlaneStack(array.with_channels(self.channels).transpose(2, 0, 1))
        else:
            planes = PlaneStack(transform.apply_deterministic(array))
        if size is not None:
            planes = planes.resize(size, Resampling.BICUBIC)
        values = (to_tensor(planes.pixels, self.value_range)[list(self.order)] + 1) * 127.5
        return values.permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class ImageFiles:
    """Image files as an iterable of uint8 arrays (H, W, 3). Each iteration reads the files again.

    Iterating raises UserError at an image that cannot be used.

    Attributes:
        root: the folder that names are relative to.
        paths: the files, below `root`.
        crop_fn: cuts the image out of the file's content, for example one half of a pair.
        options: how files are read.
        transform: gives an image the geometry that a test gives to the images of its domain. None: whole images.
        size: resize to this width and height, as the resize of --preprocess does; None: keep the size.
        grayscale: convert to gray before resizing.
        exact: iterate over float32 arrays (H, W, C) in [0, 255] without loss of bands or bits; None: uint8 (H, W, 3).
    """

    root: Path
    paths: tuple[str, ...]
    crop_fn: Callable[[Any], Any] | None = None
    options: ReadOptions = DEFAULT_READING
    transform: TwoStageTransform | None = None
    size: Size | None = None
    grayscale: bool = False
    exact: ExactFormat | None = None

    @classmethod
    def from_dir(
        cls,
        root: Path,
        limit: int | None = None,
        crop_fn: Callable[[Any], Any] | None = None,
        options: ReadOptions = DEFAULT_READING,
    ) -> Self:
        """Return all images below `root`, sorted, at most the first `limit`. Raise UserError if there are none."""
        paths = options.with_pages(list_images(str(root)))
        return cls(root, tuple(paths[:limit]), crop_fn, options)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            try:
                yield self.read(path)
            except (ImageError, ImageTooSmallError) as error:
                raise UserError(f"{path!r}: cannot be evaluated: {error}. Remove the file.") from None

    def read(self, path: str) -> np.ndarray:
        """Return the image of one file. Raise ImageError or ImageTooSmallError if it cannot be used."""
        if self.exact is not None:
            return self.exact.convert(self._cropped(self.options.read_array(path)), self.transform, self.size)
        image = self._cropped(self.options.read_image(path))
        if self.transform is not None:
            pixels = self.transform.apply_deterministic(image).transpose(1, 2, 0)
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        if self.grayscale:
            image = image.convert("L")
        if self.size is not None:
            image = image.resize(self.size, Resampling.BICUBIC)
        return np.asarray(image.convert("RGB"))

    def _cropped(self, image: Any) -> Any:
        return image if self.crop_fn is None else self.crop_fn(image)

    def with_format(
        self,
        size: Size | None,
        grayscale: bool,
        transform: TwoStageTransform | None = None,
        exact: ExactFormat | None = None,
    ) -> Self:
        """Return the same images after `transform`, resized to `size` unless it is None, and in gray if `grayscale`."""
        return replace(self, transform=transform, size=size, grayscale=grayscale, exact=exact)

    def names(self) -> list[str]:
        """Return the paths below the root, with forward slashes."""
        return [Path(path).relative_to(self.root).as_posix() for path in self.paths]

    def select(self, names: Sequence[str]) -> Self:
        """Return the images with these names (`relative_stem`), in this order. Raise UserError if one is missing."""
        paths = {relative_stem(self.root, path): path for path in reversed(self.paths)}
        missing = [name for name in names if name not in paths]
        if missing:
            raise UserError(
                f"{self.root}: no image named {missing[0]}. Paired metrics need a ground-truth image per translation."
            )
        return replace(self, paths=tuple(paths[name] for name in names))


def relative_stem(root: Path, path: str) -> str:
    """Return the path relative to `root` without file extension, which the two images of a pair share."""
    return Path(path).relative_to(root).with_suffix("").as_posix()
