"""Judges translations by numbers:

    python scripts/evaluate.py --results results/RUN/test_latest --dataroot datasets/horse2zebra --inception
    python scripts/evaluate.py --results results/RUN/test_latest --dataroot datasets/maps --paired --lpips
    python scripts/evaluate.py --results FOLDER OTHER_FOLDER --real FOLDER --features squeezenet1_1_features.pth

Prints a table, and writes every figure with how it was taken to JSON. docs/evaluation.md says what the figures mean.
"""

import json
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.signals import quiet_sigint_during_import

    quiet_sigint_during_import()

# isort: split

from data.eval_data import common_size
from data.image_folder import ImageFiles, Size, relative_stem, resolve_phase
from data.image_io import ImageError, open_exif_transposed
from options.metric_options import add_metric_arguments, metric_config
from util.cli import CLIParser, configure_stdio, positive_int, seed
from util.errors import UserError, exit_on_user_error
from util.metrics.evaluator import MetricResult, ReferenceSet, create_evaluator, metric_table
from util.runtime.device import AUTO, describe_device, select_device

IDENTITY_BASELINE = "input left as it is"
RECORD = "evaluation.json"


@dataclass(frozen=True)
class ResultSet:
    """Images to judge: what they are called in the table, and the folder whose record they belong to."""

    title: str
    folder: Path
    images: ImageFiles


class ProgressImages:
    """A set of images that shows a bar on standard error while it is read."""

    def __init__(self, images: ImageFiles, title: str) -> None:
        self.images = images
        self.title = title

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(tqdm(self.images, desc=self.title, unit=" images", leave=False, disable=None))


def candidates(folders: Sequence[Path], visual: str, limit: int | None) -> list[ResultSet]:
    """The images of every folder; where the first is a page's, its inputs come before, to compare with. Raises UserError
    for a folder without images."""
    found: list[ResultSet] = []
    for folder in folders:
        is_page = (folder / "images").is_dir()
        images = ImageFiles.from_dir(folder / "images" / visual if is_page else folder, limit)
        inputs = folder / "images" / visual.replace("fake_A", "real_B").replace("fake_B", "real_A")
        if is_page and not found and inputs.name != visual and inputs.is_dir():
            found.append(ResultSet(IDENTITY_BASELINE, folder, ImageFiles.from_dir(inputs, limit)))
        found.append(ResultSet(str(folder), folder, images))
    return found


def real_folder(opt: Namespace) -> Path:
    """The folder of the target domain."""
    if opt.real is not None:
        return opt.real
    domain = "B" if opt.direction == "AtoB" else "A"
    return opt.dataroot / f"{resolve_phase(str(opt.dataroot), opt.phase, domain)}{domain}"


def looks(images: ImageFiles) -> tuple[Size | None, bool]:
    """The size that all these files have, None where they differ, and whether the first one is gray."""
    sizes, modes = set(), []
    for path in images.paths:
        try:
            with open_exif_transposed(path) as image:
                sizes.add(image.size)
                modes.append(image.mode)
        except ImageError as error:
            raise UserError(f"{path!r} cannot be judged: {error}; take it out") from None
    return common_size(sizes), modes[0] == "L"


def parse(arguments: list[str]) -> Namespace:
    parser = CLIParser(description="Judges translations by numbers, against real images of the target domain.")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="what to judge: folders of pages that test.py wrote, such as results/RUN/test_latest, or of images",
    )
    real = parser.add_mutually_exclusive_group(required=True)
    real.add_argument("--dataroot", type=Path, help="the dataset, whose target domain holds the real images")
    real.add_argument("--real", type=Path, metavar="FOLDER", help="the real images themselves")
    parser.add_argument("--phase", default="test", help="which half of --dataroot: <phase>A and <phase>B")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="BtoA: the target domain is A")
    parser.add_argument("--visual", default="fake_B", help="which images of a page: images/<visual>")
    add_metric_arguments(parser.add_argument_group("figures, at least one of"))
    parser.add_argument("--max_images", type=positive_int, help="judge only the first images of each folder")
    parser.add_argument("--seed", type=seed, default=0, help="decides KID's subsets")
    parser.add_argument("--gpu_ids", default=AUTO, help="number of the GPU; -1 for the CPU; auto: a GPU if there is one")
    parser.add_argument("--json", type=Path, help=f"file to write; by default {RECORD} in each folder of --results")
    return parser.parse_args(arguments)


def evaluate(opt: Namespace) -> None:
    """Judges, prints, and writes. Raises UserError."""
    wanted = metric_config(opt)
    if not wanted.anything:
        raise UserError("no figure is asked for: give some of --inception, --features FILE, --paired, --lpips")
    judged = candidates(opt.results, opt.visual, opt.max_images)
    real = ImageFiles.from_dir(real_folder(opt))
    device = select_device(opt.gpu_ids)
    judge = create_evaluator(wanted, opt.seed, device)

    print(f"against {len(real)} images of {real.root}, on {describe_device(device)}")
    rows: dict[str, list[MetricResult]] = {}
    real_sets: dict[tuple[Size | None, bool], ReferenceSet] = {}  # by size and color
    for candidate in judged:
        look = looks(candidate.images)
        alike = real.with_format(*look)
        if wanted.distances and look not in real_sets:
            real_sets[look] = ReferenceSet(ProgressImages(alike, "real images"))
        truth = alike.select(names(candidate.images)) if wanted.pairs else None
        rows[candidate.title] = judge.figures(
            ProgressImages(candidate.images, candidate.title), real_sets.get(look), truth, split=real.root.name
        )
    print(metric_table(rows))
    write(judged, rows, real.root, opt.json)


def names(images: ImageFiles) -> list[str]:
    """What the images go by among those of the other domain."""
    return [relative_stem(images.root, path) for path in images.paths]


def write(judged: Sequence[ResultSet], rows: Mapping[str, Sequence[MetricResult]], real: Path, file: Path | None) -> None:
    """Writes all records into `file`, or each folder's into its own."""
    records: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    for candidate in judged:
        records[file or candidate.folder / RECORD].append(
            {
                "judged": candidate.title,
                "pictures": str(candidate.images.root),
                "real": str(real),
                "figures": [figure.record() for figure in rows[candidate.title]],
            }
        )
    for path, content in records.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written: {path}")


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        evaluate(parse(sys.argv[1:]))


if __name__ == "__main__":
    main()
