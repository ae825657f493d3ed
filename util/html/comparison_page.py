"""Comparison page: results of several runs side by side, one row per input."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePath

from PIL import Image

from util.errors import UserError
from util.html.page import PageImage, image_row, write_page
from util.pairs import describe_matches, match_pairs

SOURCE, RESULT = "real_A", "fake_B"


def write_comparison(page: Path, runs: Mapping[str, Path], targets: Mapping[str, Path]) -> int:
    """Write a page with one row for each input that any of the runs has translated. The page links to the images.

    Args:
        page: the file, in an existing folder.
        runs: folders of results, with images/real_A and images/fake_B, by their labels.
        targets: ground truth images by their paths below their folder. Those of no input are not shown.
    Returns:
        The number of rows.
    Raises:
        UserError: a folder contains no results, or a ground truth could belong to several results.
    """
    results = {label: _images(folder / "images" / RESULT) for label, folder in runs.items()}
    sources = {name: file for folder in runs.values() for name, file in _images(folder / "images" / SOURCE).items()}
    for label, images in results.items():
        if not images:
            raise UserError(f"{runs[label]}: no images in images/{RESULT}. Give the folder of a results page of test.py.")
    names = sorted(set().union(*results.values()))
    truths: dict[str, Path] = {}
    for images in results.values() if targets else ():
        matches = match_pairs((name.removesuffix(".png") for name in images), targets, has_extension=False)
        truths |= {f"{name}.png": targets[match] for name, match in matches.items()}
    if targets:
        print(describe_matches(len(truths), len(names)))
    if targets and not truths:
        raise UserError(
            f"--truth: no image belongs to a result such as {names[0]}. Give the folder of the ground truth images."
        )
    rows = []
    for name in names:
        shown = {"input": sources.get(name), **{label: images.get(name) for label, images in results.items()}}
        shown["ground truth"] = truths.get(name)
        rows.append(image_row(name, [_image(visual, file, page.parent) for visual, file in shown.items() if file]))
    write_page(
        page,
        title=" · ".join(runs),
        facts={"inputs": str(len(names)), **{label: f"{len(images)} results" for label, images in results.items()}},
        rows=rows,
        visuals=1 + len(runs) + bool(targets),
        image_width=256,
    )
    return len(names)


def _images(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by their relative paths, with forward slashes."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.png"))}


def _image(visual: str, file: Path, page_folder: Path) -> PageImage:
    try:
        with Image.open(file) as image:
            width, height = image.size
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error}). Run test.py again.") from None
    return PageImage(visual, PurePath(os.path.relpath(file, page_folder)).as_posix(), width, height)
