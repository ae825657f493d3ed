"""The pictures of one domain, read one at a time, with a note of those that cannot be used."""

from collections.abc import Callable
from typing import TypeVar

from PIL import Image

from data.images import PictureError, read_image
from data.transforms import PictureTooSmallError
from util.errors import UserError

T = TypeVar("T")


class PictureSet:
    """A domain: a fixed list of picture files, at least one of them readable."""

    def __init__(self, paths: list[str]) -> None:
        """Raises a UserError when none of the files can be read."""
        self.paths = paths
        self.skipped: dict[str, str] = {}  # path -> why it could not be used
        self._require_one()

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int, prepare: Callable[[Image.Image], T]) -> tuple[T, str] | None:
        """What `prepare` makes of picture `index`, and its path; None, with a note, when the picture cannot be used.

        Raises:
            UserError: the picture is too small to be cropped.
        """
        path = self.paths[index]
        try:
            return prepare(read_image(path)), path
        except PictureError as error:
            self.skipped[path] = str(error)
            return None
        except PictureTooSmallError as error:
            raise UserError(
                f"{path!r} has, before cropping, {error}: lower --crop_size, take the picture out, or let --preprocess "
                f"enlarge it first (resize_and_crop or scale_shortside_and_crop, --load_size at least --crop_size)"
            ) from error

    def load_or_next(self, index: int, prepare: Callable[[Image.Image], T]) -> tuple[T, str]:
        """As `load`; a picture that cannot be used is replaced by the next one that can.

        Raises:
            UserError: no picture of the domain can be used any more.
        """
        for offset in range(len(self)):
            loaded = self.load((index + offset) % len(self), prepare)
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
