"""Compare several runs: `python scripts/compare.py results/cut/test_latest results/fastcut/test_latest`.

Each RESULTS_DIR is the folder of a results page that test.py wrote. The new page has one row per input, with its translation
by every run. Any two images of a row can be compared across a divider.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from data.image_array import ImageArray, ImageError
from data.image_folder import list_images
from data.image_reader import ReadOptions
from data.image_writer import to_pil
from util.browser import open_page
from util.channel_view import ChannelView, parse_channels
from util.cli import CLIParser, configure_stdio
from util.errors import UserError, exit_on_user_error
from util.files import prepare_output_dir
from util.html.comparison_page import write_comparison
from util.html.page_record import page_title, read_record

SHOWN_BY_BROWSERS = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".avif")


def label_runs(folders: list[Path], labels: list[str] | None) -> dict[str, Path]:
    """Return the folders by label: the given labels, or the titles of the pages, with phase and epoch if those are equal."""
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{missing[0]}: no such folder. Check the path.")
    resolved = [folder.resolve() for folder in folders]
    if repeated := [folder for folder, path in zip(folders, resolved, strict=True) if resolved.count(path) > 1]:
        raise UserError(f"{' and '.join(map(str, repeated))}: the same folder. Give each folder once.")
    names = [page_title(folder / "index.html") or folder.resolve().parent.name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} {folder.resolve().name}" for name, folder in zip(names, folders, strict=True)]
    names = labels or names
    if len(names) != len(folders):
        raise UserError(f"--labels: expected {len(folders)} labels, got {len(names)}. Give one label per folder.")
    if len(set(names)) < len(names):
        raise UserError(f"--labels: two folders have the same label ({', '.join(names)}). Give different labels.")
    return dict(zip(names, folders, strict=True))


def find_targets(folder: Path, record: Mapping[str, Any]) -> dict[str, Path]:
    """Return the images below `folder` by relative path, pages as in `page.json`. Raise UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"--truth {folder}: not a folder. Give the folder of the ground truth images.")
    paths = ReadOptions.of(Namespace(), record).with_pages(list_images(str(folder)))
    return {Path(path).relative_to(folder).as_posix(): Path(path) for path in paths}


def write_view(file: Path, target: Path, record: Mapping[str, Any]) -> Path:
    """Return an image that browsers show: `file`, or a PNG of its shown channels, written to `target`.

    Args:
        record: `page.json` of results, by which the file is read and shown.

    Raises:
        UserError: the file cannot be read.
    """
    if file.suffix.lower() in SHOWN_BY_BROWSERS:
        return file
    try:
        array = ReadOptions.of(Namespace(), record).read_array(str(file))
    except ImageError as error:
        raise UserError(f"--truth: {file} cannot be read: {error}. Remove the file.") from None
    view = ChannelView(parse_channels(record.get("show_channels")), stretch=array.pixels.dtype != np.uint8)
    target.parent.mkdir(parents=True, exist_ok=True)
    to_pil(ImageArray(view.pixels(array.pixels))).save(target)
    return target


def main() -> None:
    configure_stdio()
    parser = CLIParser(description="Write a page that compares the results of several runs.")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS_DIR", help="such as results/cut/test_latest")
    parser.add_argument("--labels", nargs="+", help="names of the runs on the page; by default the titles of their pages")
    parser.add_argument("--truth", type=Path, help="folder of ground truth images, such as datasets/demo/testB")
    parser.add_argument("--output", type=Path, default=Path("results/comparison"), help="folder of the new page")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    with exit_on_user_error():
        arguments = parser.parse_args()
        runs = label_runs(arguments.results, arguments.labels)
        prepare_output_dir(arguments.output, "--output")
        page = arguments.output / "index.html"
        record = read_record(arguments.results[0])
        targets = find_targets(arguments.truth, record) if arguments.truth else {}

        def show(file: Path) -> Path:
            return write_view(file, arguments.output / "truth" / f"{file.relative_to(arguments.truth)}.png", record)

        count = write_comparison(page, runs, targets, show)
        print(f"{count} inputs in {len(runs)} runs: {page}")
        if arguments.open:
            open_page(page)


if __name__ == "__main__":
    main()
