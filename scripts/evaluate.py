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
from dataclasses import replace
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
    ReadableImages,
    Skipped,
    describe_channels,
    exact_format_of_page,
    image_format,
    transform_of_page,
)
from data.image_files import ImageFiles
from data.result_sets import IDENTITY_BASELINE, ResultSet, find_results, opposite, read_options, real_folder
from options.base_options import shown_channels, value_range
from options.metric_options import add_metric_arguments, metric_config
from options.reading_options import add_reading_arguments
from util.cli import CLIParser, configure_stdio, positive_int, seed
from util.errors import UserError, exit_on_user_error
from util.files import atomic_write, prepare_output_file
from util.images import describe_skipped
from util.metrics.base import EvalImages, MetricResult
from util.metrics.evaluator import METRICS, create_evaluator, metric_table
from util.metrics.feature_extractors import ReferenceSet
from util.runtime.device import AUTO, describe_device, select_device
from util.terminal import print_line
from util.version import program_version

METRICS_FILE = "evaluation.json"
# Options of train.py and test.py, and what to do instead.
OWN_FOLDERS = dict.fromkeys(
    ("--dataroot_A", "--dataroot_B"),
    "train.py and test.py. A results page knows its folders; for other images, use --real FOLDER",
)


class ProgressImages:
    """Images with a progress bar on standard error during iteration."""

    def __init__(self, images: ImageFiles | ReadableImages, title: str) -> None:
        self.images = images
        self.title = title

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(tqdm(self.images, desc=self.title, unit=" images", leave=False, disable=None))


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
    if opt.json is not None:
        prepare_output_file(opt.json, "--json")
    result_sets = find_results(opt.results, opt.visual, opt.max_images)
    real = ImageFiles.from_dir(real_folder(opt, result_sets), options=read_options(opt, result_sets))
    device = select_device(opt.gpu_ids)
    evaluator = create_evaluator(config, opt.seed, device)

    print_line(f"against {len(real.paths[: opt.max_images])} images of {real.root}, on {describe_device(device)}")
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
        resized = real.with_format(size, grayscale, transform, exact_real)
        if evaluator.needs("distribution") and resized not in real_sets:
            readable = ReadableImages(resized, skipped, opt.max_images)
            real_sets[resized] = ReferenceSet(ProgressImages(readable, "real images"))
        translations = result_set.images
        sources = result_set.inputs() if evaluator.needs("faithfulness") else None
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
            target=result_set.targets(resized, skipped) if evaluator.needs("paired") else None,
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
    real_count = len([path for path in real.paths if path not in skipped][: opt.max_images])
    print(metric_table(results, {"results": counts, "real images": dict.fromkeys(counts, real_count)}))
    for line in sorted(described):
        print_line(line)
    unused = [flag for flag, value in (("--value_range", opt.value_range), ("--show_channels", opt.show_channels)) if value]
    if unused and not described:
        print_line(f"warning: {', '.join(unused)}: not used, because all results are 8-bit images", file=sys.stderr)
    differing = sorted({count for count in counts.values() if count != real_count})
    if evaluator.needs("distribution") and differing:
        print_line(
            f"warning: {' and '.join(map(str, differing))} results, but {real_count} real images. "
            f"FID depends on both numbers. --max_images {min(*differing, real_count)} makes them equal."
        )
    write_json(result_sets, results, real.root, opt.json)


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
                "weights": None if result_set.title == IDENTITY_BASELINE else result_set.record.get("weights"),
                "figures": [result.to_row() for result in results[result_set.title]],
            }
        )
    for path, content in entries.items():
        with atomic_write(path) as tmp_path:
            tmp_path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written: {path}")


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        evaluate(parse(sys.argv[1:]))


if __name__ == "__main__":
    main()
