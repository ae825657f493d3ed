"""The page of a test: each input image beside what became of it."""

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

# Refused by other file systems than the one at hand; results get copied.
RESERVED = frozenset('<>:"|?*\\/')
LONGEST_NAME = 200  # bytes of one component; file systems end at 255


class OutputNamer:
    """Gives each source image a PNG name of its own, mirroring the folders below a common root.

    `sub/cat.jpg` becomes `sub/cat.png`; a `sub/cat.tif` after it becomes `sub/cat.tif.png`. Two names count as equal
    when a file system that ignores case or normalizes Unicode would take them for one.

    Args:
        root: folder that the sources lie in; of a source elsewhere only the file name is used.
    """

    def __init__(self, root: Path) -> None:
        self.root = _absolute(root)
        self.taken: set[str] = set()

    def shown(self, source: str) -> str:
        """The source as a heading: its path below the root, what cannot be printed replaced by U+FFFD."""
        return "".join(char if char.isprintable() else "\ufffd" for char in self._relative(source).as_posix())

    def claim(self, source: str) -> str:
        """A relative path with forward slashes, ending in `.png`, that no earlier call has returned."""
        relative = self._relative(source)
        folders = [_safe_folder(part) for part in relative.parent.parts]
        names = chain([_safe(relative.stem), _safe(relative.name)], (f"{_safe(relative.name)}.{n}" for n in count(2)))
        paths = ("/".join([*folders, f"{name}.png"]) for name in names)
        path = next(path for path in paths if _on_any_file_system(path) not in self.taken)
        self.taken.add(_on_any_file_system(path))
        return path

    def _relative(self, source: str) -> Path:
        path = _absolute(Path(source))
        return path.relative_to(self.root) if self.root in path.parents else Path(path.name)


def _absolute(path: Path) -> Path:
    # Not Path.resolve: a linked image goes by the name of the link. Not Path.absolute: `..` must be gone.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _safe(name: str) -> str:
    """One path component, not hidden, without control characters, undecodable bytes or reserved ones, cut to length."""
    kept = "".join(char if char.isprintable() and char not in RESERVED else "_" for char in name)
    visible = "_" + kept[1:] if kept.startswith(".") else kept
    return visible.encode()[:LONGEST_NAME].decode(errors="ignore")


def _safe_folder(name: str) -> str:
    """A folder never ends in `.png` and an image always does, so that the two cannot meet."""
    safe = _safe(name)
    return safe + "_" if safe.lower().endswith(".png") else safe


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
    """The title of a page; empty where there is none."""
    return _read(page).title


def linked_images(page: Path) -> set[str]:
    """The images below `images` that a page links to, relative to it; none where there is no page."""
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

    Where an earlier test has left a page, the images that it links to and this one does not are removed when this one is
    saved: whoever takes a figure over a folder takes it over one test. No other file is touched.

    Args:
        directory: folder of the page, made when the first image comes.
        title: of the page.
        source_root: folder that the tested images come from; the names of the results mirror the folders below it.
        facts: what was tested, shown under the title, such as phase and epoch; the number of images is added.
        image_width: shown width of an image in pixels, roughly.
        save_image: writes an image to a file, at once or before long.
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
        self.names = OutputNamer(source_root)
        self.cards: list[str] = []
        self.files: set[str] = set()
        self.most_visuals = 1

    def add(self, source_path: str, visuals: Mapping[str, torch.Tensor]) -> None:
        """Saves the images of one input and remembers its row.

        Args:
            source_path: file of the input; names the row and the files.
            visuals: published names (`real_A`, `fake_B`) and tensors (1, C, H, W) in [-1, 1].
        """
        name = self.names.claim(source_path)
        images = []
        for visual, tensor in visuals.items():
            file = f"images/{visual}/{name}"
            self.save_image(tensor, self.directory / file)
            self.files.add(file)
            images.append(PageImage(visual, file, width=tensor.shape[3], height=tensor.shape[2]))
        self.cards.append(image_row(self.names.shown(source_path), images))
        self.most_visuals = max(self.most_visuals, len(images))

    def save(self) -> None:
        """Writes the page with all rows so far."""
        self.directory.mkdir(parents=True, exist_ok=True)
        page = self.directory / "index.html"
        left_over = linked_images(page) - self.files
        write_page(
            page,
            title=self.title,
            facts={**self.facts, "pictures": str(len(self.cards))},
            cards=self.cards,
            visuals=self.most_visuals,
            image_width=self.image_width,
        )
        for file in left_over:
            (self.directory / file).unlink(missing_ok=True)
