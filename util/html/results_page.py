"""Results page of test.py: each input image with its translation."""

import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain, count
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from util.channel_view import ChannelView
from util.files import hidden_temp_path, replace, sha256, stale_temp_files
from util.html.page import CAPTIONS, PageImage, image_row, write_page
from util.html.page_record import IMAGES, PAGE, RECORD, linked_images
from util.images import save_image
from util.pairs import portable_folder, portable_name

VIEWS = "views"  # folder of the views of files that browsers cannot show


class ExactFile(Protocol):
    """A file to write; implemented in models/inference/exact_results.py."""

    @property
    def suffix(self) -> str:
        """Ending of the file name."""

    @property
    def write(self) -> Callable[[Path], None]:
        """Function that writes the file."""


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


class ResultsPage:
    """`<directory>/index.html` over `<directory>/images/<visual>/<name>.png`, with a record of the test in `page.json`.

    Everything is written to a hidden folder in `directory` first. `save` moves it into place and removes the images of an
    older page, but no other file. The page and its images are therefore complete or absent. A test that is interrupted
    before `save` leaves the older page untouched. Use it in a `with` statement, which removes the hidden folder.

    Args:
        directory: folder of the page, created with the first image.
        title: title of the page.
        source_root: folder of the input images; results keep its subfolders.
        facts: names and values shown under the title, such as phase and epoch. The number of images is added.
        image_width: approximate displayed width of an image in pixels.
        save_image: saves an image to a file, now or later, but before `save` is called.
        record: what `page.json` says about the test; sizes, counts and inputs are added. None: no `page.json`.
        captions: captions of images by their published names; by default `page.CAPTIONS`.
    """

    def __init__(
        self,
        directory: Path,
        title: str,
        source_root: Path,
        facts: Mapping[str, str],
        image_width: int = 256,
        save_image: Callable[[torch.Tensor, Path], None] = save_image,
        record: Mapping[str, Any] | None = None,
        captions: Mapping[str, str] = CAPTIONS,
    ) -> None:
        self.directory = directory
        self.title = title
        self.facts = facts
        self.image_width = image_width
        self.save_image = save_image
        self.record = record
        self.captions = captions
        self.namer = OutputNamer(source_root)
        self.rows: list[str] = []
        self.files: set[str] = set()
        self.visuals: list[str] = []
        self.inputs: dict[str, dict[str, str | None]] = {}
        self.sizes: Counter[str] = Counter()
        self.most_visuals = 1
        self._stage = hidden_temp_path(directory / "page")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._stage, ignore_errors=True)

    def add(
        self,
        source_path: str,
        visuals: Mapping[str, torch.Tensor],
        exact: Mapping[str, ExactFile] | None = None,
        view: ChannelView | None = None,
    ) -> None:
        """Save the images of one input, and add its row.

        Args:
            source_path: file of the input, which gives the row and the files their names.
            visuals: tensors (1, C, H, W) in [-1, 1] by their published names (`real_A`, `fake_B`).
            exact: files of visuals that an 8-bit PNG cannot hold. The page then shows a view of them.
            view: how images of other than 8 bits or 1 or 3 channels are shown.
        """
        name = self.namer.assign(source_path)
        images = []
        for visual, tensor in visuals.items():
            file, exact_file = f"{IMAGES}/{visual}/{name}", None
            if exact and visual in exact:
                exact_file = str(PurePosixPath(file).with_suffix(exact[visual].suffix))
                (self._stage / exact_file).parent.mkdir(parents=True, exist_ok=True)
                exact[visual].write(self._stage / exact_file)
                self.files.add(exact_file)
                file = f"{IMAGES}/{VIEWS}/{visual}/{name}"
                tensor = (view or ChannelView()).tensor(tensor)
            self.save_image(tensor, self._stage / file)
            self.files.add(file)
            caption = self.captions.get(visual)
            images.append(PageImage(visual, file, tensor.shape[3], tensor.shape[2], exact_file, caption))
        self.rows.append(image_row(self.namer.label(source_path), images))
        self.most_visuals = max(self.most_visuals, len(images))
        if self.record is not None:
            self.visuals = list(dict.fromkeys([*self.visuals, *visuals]))
            self.inputs[name] = {"file": self.namer.label(source_path), "sha256": _sha256_or_none(source_path)}
            self.sizes[f"{images[0].width}x{images[0].height}"] += 1

    def save(self) -> None:
        """Write the page with all rows so far, and move it into place with its images and its record."""
        (self._stage / IMAGES).mkdir(parents=True, exist_ok=True)
        for file in self._files_to_keep():
            staged = self._stage / IMAGES / file
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.directory / IMAGES / file, staged)
        if self.record is not None:
            counts = {"results": len(self.rows), "visuals": self.visuals, "sizes": self.sizes, "inputs": self.inputs}
            text = json.dumps({**self.record, **counts}, indent=1) + "\n"
            (self._stage / RECORD).write_text(text, encoding="utf-8")
        write_page(
            self._stage / PAGE,  # the last file: with it the hidden folder is complete
            title=self.title,
            facts={**self.facts, "images": str(len(self.rows))},
            rows=self.rows,
            visuals=self.most_visuals,
            image_width=self.image_width,
        )
        _move_into_place(self._stage, self.directory)

    def _files_to_keep(self) -> list[Path]:
        """Return the files below `images` that no older page shows: the user's, and those of an earlier `save`."""
        images = self.directory / IMAGES
        shown_before = {Path(file).relative_to(IMAGES) for file in linked_images(self.directory / PAGE) - self.files}
        files = {file.relative_to(images) for file in images.rglob("*") if not file.is_dir()}
        return [file for file in files - shown_before if not (self._stage / IMAGES / file).exists()]


def remove_leftovers(directory: Path, alone: bool) -> None:
    """Remove the hidden folders of tests that were killed. If one was killed while its page moved, the move is completed.

    `alone` is that of `stale_temp_files`.
    """
    for stage in stale_temp_files(directory.glob(".part.*"), alone):
        if (stage / PAGE).exists():
            _move_into_place(stage, directory)
        elif stage.is_dir():
            shutil.rmtree(stage, ignore_errors=True)
        else:
            stage.unlink(missing_ok=True)


def _move_into_place(stage: Path, directory: Path) -> None:
    """Replace the page in `directory` by the one in `stage`. Repeat this after an interruption to complete it.

    Without index.html, which goes first and comes last, a page counts as incomplete.
    """
    images = directory / IMAGES
    if (stage / IMAGES).exists():
        for name in (PAGE, RECORD):
            (directory / name).unlink(missing_ok=True)
        if images.exists():
            replace(images, stage / "replaced")
        replace(stage / IMAGES, images)
    for name in (RECORD, PAGE):
        if (stage / name).exists():
            replace(stage / name, directory / name)
    shutil.rmtree(stage, ignore_errors=True)


def _sha256_or_none(path: str) -> str | None:
    """Return the hash of an input, None if it has been removed since it was read."""
    try:
        return sha256(Path(path))
    except OSError:
        return None
