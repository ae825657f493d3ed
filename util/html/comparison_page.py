"""Comparison page: results of several runs side by side, one row per input."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from PIL import Image, ImageChops

from util.errors import UserError
from util.html.page import PageImage, image_row, write_page
from util.html.page_record import IMAGES, check_complete, check_one_page, read_record
from util.html.results_page import VIEWS
from util.pairs import describe_matches, match_pairs
from util.terminal import print_line

SOURCE, RESULT = "real_A", "fake_B"


@dataclass
class _Input:
    """An image, the results of it by the labels of their runs, and the hash of its file if `page.json` has it."""

    name: str
    image: Path | None
    sha256: str | None
    results: dict[str, Path] = field(default_factory=dict)

    def is_same(self, image: Path | None, sha256: str | None) -> bool:
        """Return True unless another image has the same name. Inputs of two sizes without hashes count as the same."""
        if self.sha256 and sha256:
            return self.sha256 == sha256
        return self.image is None or image is None or not _differ(self.image, image)


def write_comparison(
    page: Path,
    runs: Mapping[str, Path],
    targets: Mapping[str, Path],
    show: Callable[[Path], Path] = lambda file: file,
) -> int:
    """Write a page with one row for each input that any of the runs has translated. The page links to the images.

    Results of different images with one name are in different rows, and a line is printed.

    Args:
        page: the file, in an existing folder.
        runs: folders of results, with images/real_A and images/fake_B, by their labels.
        targets: ground truth images by their paths below their folder. Those of no input are not shown.
        show: returns a file that browsers show for a ground truth image.
    Returns:
        The number of rows.
    Raises:
        UserError: a folder contains no results or incomplete ones, or a ground truth could belong to several results.
    """
    inputs = _inputs(runs)
    names = list(inputs)
    truths: dict[str, Path] = {}
    for folder in runs.values() if targets else ():
        stems = (name.removesuffix(".png") for name in _images(folder, RESULT))
        matches = match_pairs(stems, targets, has_extension=False)
        truths |= {f"{name}.png": targets[match] for name, match in matches.items()}
    if targets:
        print_line(describe_matches(len(truths), len(names)))
    if targets and not truths:
        raise UserError(
            f"--truth: no image belongs to a result such as {names[0]}. Give the folder of the ground truth images."
        )
    ambiguous = [name for name in names if len(inputs[name]) > 1]
    if ambiguous:
        hidden = ", without ground truth" if truths else ""
        print_line(
            f"warning: {len(ambiguous)} names, such as {ambiguous[0]}, are those of different inputs. "
            f"Their results are in rows of their own{hidden}."
        )
    if len(runs) > 1 and all(len(version.results) == 1 for versions in inputs.values() for version in versions):
        print_line("warning: no two runs have an input in common. Compare tests of the same images.")
    rows = []
    for name, versions in inputs.items():
        for version in versions:
            truth = show(truths[name]) if len(versions) == 1 and name in truths else None
            shown = {"input": version.image, **version.results, "ground truth": truth}
            heading = name if len(versions) == 1 else f"{name} ({', '.join(version.results)})"
            images = [_image(visual, file, page.parent) for visual, file in shown.items() if file]
            rows.append(image_row(heading, images))
    counts = {label: sum(label in each.results for versions in inputs.values() for each in versions) for label in runs}
    write_page(
        page,
        title=" · ".join(runs),
        facts={"inputs": str(len(rows)), **{label: f"{count} results" for label, count in counts.items()}},
        rows=rows,
        visuals=1 + len(runs) + bool(targets),
        image_width=256,
    )
    return len(rows)


def _inputs(runs: Mapping[str, Path]) -> dict[str, list[_Input]]:
    """Return the inputs of all runs by their names, sorted; several if runs have different images of one name."""
    inputs: dict[str, list[_Input]] = {}
    for label, folder in runs.items():
        check_one_page(folder)
        results, images = _images(folder, RESULT), _images(folder, SOURCE)
        if not results:
            raise UserError(f"{folder}: no images in {IMAGES}/{RESULT}. Give the folder of a results page of test.py.")
        check_complete(folder, RESULT)
        hashes = {name: entry.get("sha256") for name, entry in read_record(folder).get("inputs", {}).items()}
        for name, result in results.items():
            image, sha256 = images.get(name), hashes.get(name)
            versions = inputs.setdefault(name, [])
            version = next((each for each in versions if each.is_same(image, sha256)), None)
            if version is None:
                version = _Input(name, image, sha256)
                versions.append(version)
            version.image = version.image or image
            version.results[label] = result
    return dict(sorted(inputs.items()))


def _differ(first: Path, second: Path) -> bool:
    """Return True if two images have the same size and different pixels."""
    if first.read_bytes() == second.read_bytes():
        return False
    try:
        with Image.open(first) as one, Image.open(second) as other:
            return (
                one.size == other.size
                and ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is not None
            )
    except OSError as error:
        raise UserError(f"{first} or {second}: cannot be read ({error}). Run test.py again.") from None


def _images(folder: Path, visual: str) -> dict[str, Path]:
    """Return the PNG images of a visual by their relative paths, with forward slashes.

    Results that a PNG cannot hold (TIFF, arrays) are represented by their views.
    """
    roots = folder / IMAGES / VIEWS / visual, folder / IMAGES / visual
    return {file.relative_to(root).as_posix(): file for root in roots for file in sorted(root.rglob("*.png"))}


def _image(visual: str, file: Path, page_folder: Path) -> PageImage:
    try:
        with Image.open(file) as image:
            width, height = image.size
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error}). Run test.py again.") from None
    return PageImage(visual, PurePath(os.path.relpath(file, page_folder)).as_posix(), width, height)
