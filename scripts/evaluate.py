"""Evaluate translations.

    python scripts/evaluate.py --results results/RUN/test_latest --dataroot datasets/maps --inception --paired
    python scripts/evaluate.py --results FOLDER OTHER_FOLDER --real FOLDER --features squeezenet1_1_features.pth

Prints a table of metrics, and writes every metric with its settings to JSON. docs/evaluation.md explains the metrics.
"""

import json
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from data.eval_data import (
    GroundTruth,
    ReadableImages,
    Skipped,
    describe_channels,
    exact_format_of_page,
    find_targets,
    image_format,
    transform_of_page,
)
from data.image_files import ImageFiles, relative_stem
from data.image_folder import resolve_phase
from data.image_reader import ReadOptions
from options.base_options import shown_channels, value_range
from options.metric_options import add_metric_arguments, metric_config
from options.reading_options import add_reading_arguments
from util.cli import CLIParser, configure_stdio, positive_int, seed
from util.errors import UserError, exit_on_user_error
from util.html.page_record import check_complete, check_one_page, is_results_page, read_record, without_result_suffix
from util.images import describe_skipped
from util.metrics.base import EvalImages, MetricResult
from util.metrics.evaluator import METRICS, create_evaluator, metric_table
from util.metrics.feature_extractors import ReferenceSet
from util.pairs import describe_matches
from util.runtime.device import AUTO, describe_device, select_device
from util.terminal import print_line
from util.version import program_version

IDENTITY_BASELINE = "input left as it is"  # value in evaluation.json, which users' scripts read
METRICS_FILE = "evaluation.json"
# Options of train.py and test.py, and what to do instead.
OWN_FOLDERS = dict.fromkeys(
    ("--dataroot_A", "--dataroot_B"),
    "train.py and test.py. A results page knows its folders; for other images, use --real FOLDER",
)


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


class ProgressImages:
    """Images with a progress bar on standard error during iteration."""

    def __init__(self, images: ImageFiles | ReadableImages, title: str) -> None:
        self.images = images
        self.title = title

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(tqdm(self.images, desc=self.title, unit=" images", leave=False, disable=None))


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


def parse(arguments: list[str]) -> Namespace:
    """Parse the command line."""
    parser = CLIParser(
        description="Evaluate translations against real images of the target domain.", find_elsewhere=OWN_FOLDERS.get
    )
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders to evaluate: results pages of test.py, such as results/RUN/test_latest, or folders of images",
    )
    real = parser.add_mutually_exclusive_group()
    real.add_argument(
        "--dataroot", type=Path, help="dataset whose target domain contains the real images; by default that of the test"
    )
    real.add_argument("--real", type=Path, metavar="FOLDER", help="folder of real images")
    parser.add_argument("--phase", help="split of --dataroot: folders <phase>A and <phase>B; by default that of the test")
    parser.add_argument(
        "--direction", choices=["AtoB", "BtoA"], help="BtoA: the target domain is A; by default that of the test"
    )
    parser.add_argument("--visual", default="fake_B", help="images of a results page: images/<visual>")
    add_metric_arguments(parser.add_argument_group("metrics, at least one"))
    parser.add_argument(
        "--value_range",
        type=value_range,
        metavar="LO,HI",
        help="sample values of black and white in files of other than 8 bits; by default those of the test, or the full "
        "range of 16 bits",
    )
    parser.add_argument(
        "--show_channels",
        type=shown_channels,
        metavar="R,G,B",
        help="numbers of the channels, from 1, that metrics of three channels use; by default those of the test",
    )
    add_reading_arguments(parser.add_argument_group("reading of real images, by default as in the test"), has_saved=True)
    parser.add_argument("--max_images", type=positive_int, help="maximum number of results per folder, and of real images")
    parser.add_argument("--seed", type=seed, default=0, help="random seed of KID's subsets")
    parser.add_argument("--gpu_ids", default=AUTO, help="GPU index; -1: CPU; auto: a GPU if there is one")
    parser.add_argument("--json", type=Path, help=f"output file; by default {METRICS_FILE} in each folder of --results")
    return parser.parse_args(arguments)


def evaluate(opt: Namespace) -> None:
    """Compute, print and write the metrics. Raise UserError for wrong options or images."""
    config = metric_config(opt)
    if not config:
        raise UserError(f"{', '.join(f'--{key}' for key in METRICS)}: no metric requested. Add at least one.")
    result_sets = find_results(opt.results, opt.visual, opt.max_images)
    all_real = ImageFiles.from_dir(real_folder(opt, result_sets), options=read_options(opt, result_sets))
    real = replace(all_real, paths=all_real.paths[: opt.max_images])
    device = select_device(opt.gpu_ids)
    evaluator = create_evaluator(config, opt.seed, device)

    print_line(f"against {len(real)} images of {real.root}, on {describe_device(device)}")
    results: dict[str, list[MetricResult]] = {}
    skipped: Skipped = {}
    real_sets: dict[ImageFiles, ReferenceSet] = {}
    described: set[str] = set()
    for result_set in result_sets:
        size, grayscale, bands = image_format(result_set.images)
        transform = transform_of_page(result_set.record, bands or (1 if grayscale else 3))
        exact_real = (
            None
            if bands is None
            else exact_format_of_page(result_set.record, bands, opt.visual, opt.value_range, opt.show_channels)
        )
        resized, all_targets = (images.with_format(size, grayscale, transform, exact_real) for images in (real, all_real))
        if evaluator.needs("distribution") and resized not in real_sets:
            real_sets[resized] = ReferenceSet(ProgressImages(ReadableImages(resized, skipped), "real images"))
        translations = result_set.images
        sources = source_images(result_set) if evaluator.needs("faithfulness") else None
        if bands is not None:
            exact_source = exact_format_of_page(
                result_set.record, bands, opposite(opt.visual), opt.value_range, opt.show_channels
            )
            is_baseline = result_set.title == IDENTITY_BASELINE
            translations = replace(translations, exact=exact_source if is_baseline else exact_real)
            sources = sources and replace(sources, exact=exact_source)
        images = EvalImages(
            ProgressImages(translations, result_set.title),
            real=real_sets.get(resized),
            target=result_set.targets(all_targets, skipped) if evaluator.needs("paired") else None,
            source=sources,
            channels={} if exact_real is None else describe_channels(exact_real),
        )
        if images.channels:
            described.add(
                "PSNR and SSIM use {all} channels, other metrics {shown}; value range: {value_range}".format(
                    **images.channels
                )
            )
        results[result_set.title] = evaluator.evaluate(images, split=real.root.name)
    if skipped:
        print_line(f"warning: {describe_skipped(skipped)}", file=sys.stderr)
    counts = {result_set.title: len(result_set.images) for result_set in result_sets}
    print(metric_table(results, {"results": counts, "real images": dict.fromkeys(counts, len(real))}))
    for line in sorted(described):
        print_line(line)
    differing = sorted({count for count in counts.values() if count != len(real)})
    if evaluator.needs("distribution") and differing:
        print_line(
            f"warning: {' and '.join(map(str, differing))} results, but {len(real)} real images. "
            f"FID depends on both numbers. --max_images {min(*differing, len(real))} makes them equal."
        )
    write_json(result_sets, results, real.root, opt.json)


def image_names(images: ImageFiles) -> list[str]:
    """Return the paths below the root without file extension, which the images of a pair share."""
    return [relative_stem(images.root, path) for path in images.paths]


def source_images(result_set: ResultSet) -> ImageFiles:
    """Return the input of each translation. Raise UserError if they are unknown."""
    if result_set.sources is None:
        raise UserError(f"--results {result_set.folder}: no input images. Give a results page of test.py.")
    return ImageFiles.from_dir(result_set.sources).select(image_names(result_set.images))


def write_json(
    result_sets: Sequence[ResultSet], results: Mapping[str, Sequence[MetricResult]], real: Path, file: Path | None
) -> None:
    """Write all results to `file`, or the results of each folder into that folder."""
    entries: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    for result_set in result_sets:
        entries[file or result_set.folder / METRICS_FILE].append(
            {
                "program": program_version(),
                "judged": result_set.title,
                "pictures": str(result_set.images.root),
                "real": str(real),
                "weights": result_set.record.get("weights"),
                "figures": [result.to_row() for result in results[result_set.title]],
            }
        )
    for path, content in entries.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written: {path}")


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        evaluate(parse(sys.argv[1:]))


if __name__ == "__main__":
    main()
