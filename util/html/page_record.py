"""Reading of results pages: `page.json`, by which other programs know what test.py did, and the links of `index.html`."""

import json
import os
from collections.abc import Collection
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from util.errors import UserError

PAGE, RECORD, IMAGES = "index.html", "page.json", "images"
REQUIRED = {"direction", "phase", "dataroot", "source", "target", "results", "inputs"}  # entries that other programs read
DEFAULT_VISUAL = "fake_B"
RUN_FILES = ("train_opt.txt", "loss_log.txt")
RESULT_SUFFIXES = (".png", ".tif", ".npy", ".npz")
WEIGHTS_MARK = "_net_"  # in the names of weights files


def without_result_suffix(name: str) -> str:
    """Return the file name of a result without the suffix that test.py adds to the name of the source."""
    return next((name.removesuffix(suffix) for suffix in RESULT_SUFFIXES if name.endswith(suffix)), name)


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
        if file.parts[:1] == (IMAGES,) and ".." not in file.parts and "\0" not in str(file)
        if file.suffix in RESULT_SUFFIXES
    }


def _read(page: Path) -> _Reader:
    reader = _Reader()
    if page.is_file():
        reader.feed(page.read_text(encoding="utf-8", errors="replace"))
    return reader


def read_record(folder: Path) -> dict[str, Any]:
    """Return `page.json` of a results page; {} if there is none, as in the folders of earlier releases.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}). Run test.py again.") from None
    if not isinstance(record, dict) or not record.keys() >= REQUIRED:
        raise UserError(f"{path}: damaged (an entry is missing). Run test.py again.")
    return record


def describe_results(folder: Path) -> str | None:
    """Return what a results page shows, such as "50 results of testA, translated by latest_net_G.pth"; None: no page."""
    try:
        record = read_record(folder)
        weights = " and ".join(Path(network["file"]).name for network in record["weights"])
        return f"{record['results']} results of {record['source']}, translated by {weights}"
    except (UserError, KeyError, TypeError):  # of an earlier release, or damaged
        visual = f"{IMAGES}/{DEFAULT_VISUAL}/"
        results = sum(link.startswith(visual) for link in linked_images(folder / PAGE))
        return f"{results} results of an earlier release" if (folder / PAGE).is_file() else None


def check_complete(folder: Path, visual: str = DEFAULT_VISUAL) -> None:
    """Raise UserError unless the images of `visual` are exactly those that the results page in `folder` shows."""
    images = folder / IMAGES / visual
    if not (folder / PAGE).is_file():
        raise UserError(
            f"{folder}: no {PAGE}, so the results may be incomplete. Run test.py again, "
            f"or give {images} to use the images as they are."
        )
    prefix = f"{IMAGES}/{visual}/"
    shown = {link.removeprefix(prefix) for link in linked_images(folder / PAGE) if link.startswith(prefix)}
    found = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.suffix in RESULT_SUFFIXES}
    if missing := shown - found:
        raise UserError(
            f"{folder}: incomplete, {len(missing)} of {len(shown)} images of {images} are missing ({min(missing)}). "
            "Run test.py again."
        )
    if extra := found - shown:
        raise UserError(
            f"{folder}: {images} has {len(extra)} images that {PAGE} does not show ({min(extra)}). "
            "Remove them, or run test.py again."
        )


def is_results_page(folder: Path) -> bool:
    """Return True if test.py or train.py wrote a page with images into this folder."""
    images = folder / IMAGES
    if not images.is_dir() or not ((folder / PAGE).is_file() or (folder / RECORD).is_file()):
        return False
    visuals = (images / f"{kind}_{domain}" for kind in ("real", "fake") for domain in "AB")
    return any(visual.is_dir() for visual in visuals) or any(images.glob("epoch*_fake_?.png"))


def is_output_folder(folder: Path, files: Collection[str]) -> bool:
    """Return True if a program of this project wrote this folder: a results page, or a run with its weights.

    Args:
        folder: the folder.
        files: names of the files in it.
    """
    is_run = any(name in files for name in RUN_FILES) or any(
        WEIGHTS_MARK in name and name.endswith(".pth") for name in files
    )
    return is_run or is_results_page(folder)


def pages_below(folder: Path) -> list[Path]:
    """Return the results pages below `folder`, sorted. Pages inside pages are not searched."""
    pages = []
    for here, subfolders, _ in os.walk(folder):
        if here != str(folder) and is_results_page(Path(here)):
            pages.append(Path(here))
            subfolders.clear()
    return sorted(pages)


def check_no_page(folder: Path) -> None:
    """Raise UserError if the images of `folder` are those of a page, which mixes inputs, translations and real images."""
    if is_results_page(folder) or (folder.name == IMAGES and is_results_page(folder.parent)):
        raise UserError(
            f"{folder}: a page of this program. Give one folder of its images, such as {IMAGES}/{DEFAULT_VISUAL}."
        )


def check_one_page(folder: Path) -> None:
    """Raise UserError if `folder` is not a results page but contains some, or is inside one above its visuals.

    Its images would mix inputs, translations and real images.
    """
    if is_results_page(folder):
        return
    if folder.name == IMAGES and is_results_page(folder.parent):
        raise UserError(f"{folder}: the images of all visuals. Give the results page, {folder.parent}.")
    if pages := pages_below(folder):
        more = f", … ({len(pages)} pages)" if len(pages) > 3 else ""
        raise UserError(
            f"{folder}: contains results pages, and is none itself. "
            f"Give one of them: {', '.join(map(str, pages[:3]))}{more}."
        )
