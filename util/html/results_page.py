"""Results page of test.py: each input image with its translation."""

import os
import unicodedata
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from itertools import chain, count
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import torch

from util.html.page import PageImage, image_row, write_page
from util.images import save_image
from util.pairs import portable_folder, portable_name


class OutputNamer:
    """Assigns a unique PNG file name to each source image. Subfolders of the root are preserved.

    `sub/cat.jpg` becomes `sub/cat.png`; a later `sub/cat.tif` becomes `sub/cat.tif.png`. Names are unique even on a file
    system that ignores case or normalizes Unicode.

    Args:
        root: folder of the sources. For a source outside, only the file name is used.
    """

    def __init__(self, root: Path) -> None:
        self.root = _absolute(root)
        self.taken: set[str] = set()

    def label(self, source: str) -> str:
        """Return the path of the source below the root, with unprintable characters replaced by U+FFFD."""
        return "".join(char if char.isprintable() else "\ufffd" for char in self._relative(source).as_posix())

    def assign(self, source: str) -> str:
        """Return a relative path with forward slashes, ending in `.png`, that no earlier call has returned."""
        relative = self._relative(source)
        folders = [portable_folder(part) for part in relative.parent.parts]
        full = portable_name(relative.name)
        names = chain([portable_name(relative.stem), full], (f"{full}.{number}" for number in count(2)))
        paths = ("/".join([*folders, f"{name}.png"]) for name in names)
        path = next(path for path in paths if _on_any_file_system(path) not in self.taken)
        self.taken.add(_on_any_file_system(path))
        return path

    def _relative(self, source: str) -> Path:
        path = _absolute(Path(source))
        return path.relative_to(self.root) if self.root in path.parents else Path(path.name)


def _absolute(path: Path) -> Path:
    # Not Path.resolve: a symbolic link keeps its own name. Not Path.absolute: it keeps `..`.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _on_any_file_system(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.title = ""
        self.in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if (tag, name) == ("a", "href") and value]
        self.in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self.in_title = False

    def handle_data(self, data: str) -> None:
        self.title += data if self.in_title else ""


def page_title(page: Path) -> str:
    """Return the title of a page; "" if there is no page."""
    return _read(page).title


def linked_images(page: Path) -> set[str]:
    """Return the images below `images` that a page links to, relative to the page; none if there is no page."""
    files = {PurePosixPath(unquote(link)) for link in _read(page).links}
    return {
        str(file)
        for file in files
        if file.parts[:1] == ("images",) and ".." not in file.parts and file.suffix == ".png" and "\0" not in str(file)
    }


def _read(page: Path) -> _Reader:
    reader = _Reader()
    if page.is_file():
        reader.feed(page.read_text(encoding="utf-8", errors="replace"))
    return reader


class ResultsPage:
    """`<directory>/index.html` over `<directory>/images/<visual>/<name>.png`.

    Saving removes the images of an earlier page in this folder that the new page does not link to. A metric of the folder
    therefore covers one test. No other file is removed.

    Args:
        directory: folder of the page, created with the first image.
        title: title of the page.
        source_root: folder of the input images; results keep its subfolders.
        facts: names and values shown under the title, such as phase and epoch. The number of images is added.
        image_width: approximate displayed width of an image in pixels.
        save_image: saves an image to a file, now or later.
    """

    def __init__(
        self,
        directory: Path,
        title: str,
        source_root: Path,
        facts: Mapping[str, str],
        image_width: int = 256,
        save_image: Callable[[torch.Tensor, Path], None] = save_image,
    ) -> None:
        self.directory = directory
        self.title = title
        self.facts = facts
        self.image_width = image_width
        self.save_image = save_image
        self.namer = OutputNamer(source_root)
        self.rows: list[str] = []
        self.files: set[str] = set()
        self.most_visuals = 1

    def add(self, source_path: str, visuals: Mapping[str, torch.Tensor]) -> None:
        """Save the images of one input, and add its row.

        Args:
            source_path: file of the input, which gives the row and the files their names.
            visuals: tensors (1, C, H, W) in [-1, 1] by their published names (`real_A`, `fake_B`).
        """
        name = self.namer.assign(source_path)
        images = []
        for visual, tensor in visuals.items():
            file = f"images/{visual}/{name}"
            self.save_image(tensor, self.directory / file)
            self.files.add(file)
            images.append(PageImage(visual, file, width=tensor.shape[3], height=tensor.shape[2]))
        self.rows.append(image_row(self.namer.label(source_path), images))
        self.most_visuals = max(self.most_visuals, len(images))

    def save(self) -> None:
        """Write the page with all rows so far, and remove images of an earlier page."""
        self.directory.mkdir(parents=True, exist_ok=True)
        page = self.directory / "index.html"
        outdated = linked_images(page) - self.files
        write_page(
            page,
            title=self.title,
            facts={**self.facts, "images": str(len(self.rows))},
            rows=self.rows,
            visuals=self.most_visuals,
            image_width=self.image_width,
        )
        for file in outdated:
            (self.directory / file).unlink(missing_ok=True)
