"""Results to evaluate, and the real images that they are compared with."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.eval_data import GroundTruth, Skipped, find_targets
from data.image_files import ImageFiles, relative_stem
from data.image_folder import resolve_phase
from data.image_reader import ReadOptions
from util.errors import UserError
from util.html.page_record import check_complete, check_one_page, is_results_page, read_record, without_result_suffix
from util.pairs import describe_matches
from util.terminal import print_line

IDENTITY_BASELINE = "input left as it is"  # value in evaluation.json, which users' scripts read


@dataclass(frozen=True)
class ResultSet:
    """A set of translations.

    Attributes:
        title: its name in the table and in JSON.
        folder: the element of --results that it belongs to.
        images: the translations.
        sources: the folder of their inputs, with the same file names; None if `folder` is not a results page.
        record: `page.json` of the results page; {} if there is none.
    """

    title: str
    folder: Path
    images: ImageFiles
    sources: Path | None
    record: Mapping[str, Any]

    def targets(self, real: ImageFiles, skipped: Skipped) -> GroundTruth:
        """Return the ground truth of each translation. Raise UserError if there is none."""
        names = self.images.names()
        if self.sources is not None:
            names = [without_result_suffix(name) for name in names]
        paths = find_targets(names, real, has_extension=self.sources is None)
        matched = sum(path is not None for path in paths)
        print_line(f"{self.title}: {describe_matches(matched, len(names))}")
        return GroundTruth(real, paths, skipped)

    def inputs(self) -> ImageFiles:
        """Return the input of each translation. Raise UserError if they are unknown."""
        if self.sources is None:
            raise UserError(f"--results {self.folder}: no input images. Give a results page of test.py.")
        # The images of a pair share their paths below the root, without file extension.
        return ImageFiles.from_dir(self.sources).select(
            [relative_stem(self.images.root, path) for path in self.images.paths]
        )


def find_results(folders: Sequence[Path], visual: str, limit: int | None) -> list[ResultSet]:
    """Return the translations of every folder, and before those of the first results page its inputs, as a baseline.

    Raise UserError if a folder contains no images, if a results page is incomplete, or if a folder contains several pages.
    """
    found: list[ResultSet] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--results {folder}: no such folder. Check the path.")
        check_one_page(folder)
        is_page = is_results_page(folder) or (folder / "images" / visual).is_dir()
        images = ImageFiles.from_dir(folder / "images" / visual if is_page else folder, limit)
        record = read_record(folder) if is_page else {}
        if is_page:
            check_complete(folder, visual)
        inputs = folder / "images" / opposite(visual)
        sources = inputs if is_page and inputs.name != visual and inputs.is_dir() else None
        if sources and all(other.title != IDENTITY_BASELINE for other in found):
            found.append(ResultSet(IDENTITY_BASELINE, folder, ImageFiles.from_dir(sources, limit), sources, record))
        found.append(ResultSet(str(folder), folder, images, sources, record))
    datasets = {result_set.record["source"]: None for result_set in found if result_set.record}
    if len(datasets) > 1:
        print_line(
            f"warning: the results have different inputs ({', '.join(datasets)}), so their metrics cannot be compared."
        )
    return found


def opposite(visual: str) -> str:
    """Return the visual that a translation was made from."""
    return visual.replace("fake_A", "real_B").replace("fake_B", "real_A")


def real_folder(opt: Namespace, result_sets: Sequence[ResultSet]) -> Path:
    """Return the folder of the target domain: that of the options, completed by the records of the results pages.

    Raises:
        UserError: the options contradict a record, the target domain is unknown, or the results have different ones.
    """
    folders = {str(real_folder_of(opt, result_set)): result_set.folder for result_set in result_sets}
    if len(folders) > 1:
        raise UserError(
            f"--results: {' and '.join(map(str, folders.values()))} have different target domains "
            f"({' and '.join(folders)}). Evaluate them one by one."
        )
    return Path(next(iter(folders)))


def real_folder_of(opt: Namespace, result_set: ResultSet) -> Path:
    """Return the folder of the real images for one set of results."""
    record, folder = result_set.record, result_set.folder
    is_backward = opt.visual.endswith("_A")  # fake_A of CycleGAN, or rec_A: of the source domain
    direction = opt.direction or "AtoB"
    if record:
        direction = {"AtoB": "BtoA", "BtoA": "AtoB"}[record["direction"]] if is_backward else record["direction"]
        if opt.direction not in (None, direction):
            raise UserError(
                f"--direction {opt.direction}: {folder} was tested with --direction {record['direction']}, so "
                f"images/{opt.visual} belong to domain {direction[-1]}. Remove --direction."
            )
    if opt.real is not None:
        if not opt.real.is_dir():
            raise UserError(f"--real {opt.real}: no such folder. Check the path.")
        return opt.real
    if opt.dataroot is None:
        real = record.get("source" if is_backward else "target")
        if record.get("dataset_mode") == "aligned":  # the page has the other half of each pair
            real = folder / "images" / opt.visual.replace("fake", "real")
        if real is None:
            raise UserError(f"--results {folder}: its target domain is unknown. Give it with --dataroot or --real.")
        if not Path(real).is_dir():
            raise UserError(f"--results {folder}: its target domain was in {real}, which is gone. Give it with --real.")
        return Path(real)
    if record and record["target"] and Path(record["source"]).is_dir():
        source = Path(record["source"])
        if opt.dataroot.absolute() not in source.parents and str(opt.dataroot.resolve()) != record["dataroot"]:
            raise UserError(
                f"--dataroot {opt.dataroot}: {folder} was translated from {source}. "
                "Use its dataset, or --real to compare with other images."
            )
    domain = direction[-1]
    phase = opt.phase or record.get("phase", "test")
    return opt.dataroot / f"{resolve_phase(str(opt.dataroot), phase, domain)}{domain}"


def read_options(opt: Namespace, result_sets: Sequence[ResultSet]) -> ReadOptions:
    """Return how real images are read: as the test read its own. Raise UserError if the tests differ."""
    found = {ReadOptions.of(opt, result_set.record) for result_set in result_sets if result_set.record}
    if len(found) > 1:
        raise UserError(
            "--results: their tests read images with different --tiff_pages, --max_megapixels or --to_srgb. "
            "Evaluate them one by one, or give these options."
        )
    return next(iter(found), ReadOptions.of(opt))
