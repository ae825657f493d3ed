"""The images of a folder as bytes, for those who judge them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from data.image_folder import list_images
from data.image_io import ImageError, read_image
from util.errors import UserError

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class ImageFiles:
    """The images, uint8 (H, W, 3), of the files `paths` below `root`; read anew whenever they are iterated over.

    `part` takes the image out of what the file holds; `size`, where it is given, is what it is then resized to, as the
    resize of --preprocess does. Iterating raises UserError at an image that cannot be read.
    """

    root: Path
    paths: tuple[str, ...]
    part: Callable[[Image.Image], Image.Image] | None = None
    size: Size | None = None
    grayscale: bool = False

    @classmethod
    def below(cls, root: Path, limit: int | None = None, part: Callable[[Image.Image], Image.Image] | None = None) -> Self:
        """All images below `root`, sorted, at most the first `limit`. Raises UserError where there is none."""
        return cls(root, tuple(list_images(str(root), limit)), part)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            try:
                image = read_image(path) if self.part is None else self.part(read_image(path))
            except ImageError as error:
                raise UserError(f"{path!r} cannot be judged: {error}; take it out") from None
            if self.grayscale:
                image = image.convert("L")
            if self.size is not None:
                image = image.resize(self.size, Resampling.BICUBIC)
            yield np.asarray(image.convert("RGB"))

    def like(self, size: Size | None, grayscale: bool) -> Self:
        """The same images, resized and in gray where that is asked for."""
        return replace(self, size=size, grayscale=grayscale)

    def named(self, names: Sequence[str]) -> Self:
        """The images that go by these names, in their order. Raises UserError where one is missing."""
        paths = {relative_stem(self.root, path): path for path in reversed(self.paths)}
        missing = [name for name in names if name not in paths]
        if missing:
            raise UserError(
                f"{self.root} has no image named {missing[0]}: there is no truth to compare its translation with"
            )
        return replace(self, paths=tuple(paths[name] for name in names))


def relative_stem(root: Path, path: str) -> str:
    """Where the image lies below `root`, without the file's ending: what the images of a pair have in common."""
    return Path(path).relative_to(root).with_suffix("").as_posix()


def common_size(sizes: set[Size]) -> Size | None:
    """The size that all images have; None where they differ."""
    return next(iter(sizes)) if len(sizes) == 1 else None
