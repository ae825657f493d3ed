"""A page that puts the results of several runs side by side, input by input."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePath

from PIL import Image

from util.errors import UserError
from util.html.page import PageImage, image_row, write_page

SOURCE, RESULT = "real_A", "fake_B"


def write_comparison(page: Path, runs: Mapping[str, Path], truth: Path | None) -> int:
    """Writes a page whose rows are the inputs that any of the runs has translated. The images stay where they are: the
    page links to them.

    Args:
        page: the file, in an existing folder.
        runs: folders of results, with images/real_A and images/fake_B, by the names that they are shown under.
        truth: a folder with the right answers under the names of the inputs, any suffix; shown last. None: there are none.
    Returns:
        the number of rows. Raises UserError where a folder holds no results.
    """
    results = {label: _images(folder / "images" / RESULT) for label, folder in runs.items()}
    sources = {name: file for folder in runs.values() for name, file in _images(folder / "images" / SOURCE).items()}
    for label, images in results.items():
        if not images:
            raise UserError(f"{runs[label]} has no images in images/{RESULT}; name the folder of a page that test.py wrote")
    answers = _answers(truth) if truth else {}

    names = sorted(set().union(*results.values()))
    cards = []
    for name in names:
        shown = {"input": sources.get(name), **{label: images.get(name) for label, images in results.items()}}
        shown["truth"] = answers.get(str(PurePath(name).with_suffix("")))
        cards.append(image_row(name, [_image(what, file, page.parent) for what, file in shown.items() if file]))
    write_page(
        page,
        title=" · ".join(runs),
        facts={"inputs": str(len(names)), **{label: f"{len(images)} results" for label, images in results.items()}},
        cards=cards,
        visuals=1 + len(runs) + bool(truth),
        image_width=256,
    )
    return len(names)


def _images(folder: Path) -> dict[str, Path]:
    """The images below a folder by their paths in it, with forward slashes."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.png"))}


def _answers(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"--truth {folder} is no folder")
    return {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob("*")) if file.is_file()}


def _image(what: str, file: Path, page_folder: Path) -> PageImage:
    try:
        with Image.open(file) as image:
            width, height = image.size
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}); was the test interrupted?") from None
    return PageImage(what, PurePath(os.path.relpath(file, page_folder)).as_posix(), width, height)
