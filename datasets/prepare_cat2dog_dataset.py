"""Lays out the cats and dogs of AFHQ as the paper's cat2dog dataset: trainA, testA are cats, trainB, testB dogs.

    python datasets/prepare_cat2dog_dataset.py --afhq_dir stargan-v2/data/afhq --output_dir datasets/cat2dog

AFHQ comes with StarGAN v2; docs/datasets.md says where and under which license. The images are hard links to those of
AFHQ where both lie on one file system (they take no room, and stay if AFHQ is removed), copies elsewhere.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python puts this folder on the path, not the project's
from atomic_dir import atomic_dir

from data.image_folder import list_images
from util.cli import CLIParser
from util.errors import UserError, exit_on_user_error

DOMAINS = {"A": "cat", "B": "dog"}
AFHQ_TEST_NAMES = ("val", "test")  # in its first version, in its second


def main() -> None:
    parser = CLIParser(description="Lays out the cats and dogs of AFHQ as the cat2dog dataset.")
    parser.add_argument("--afhq_dir", type=Path, required=True, help="folder with train/cat, train/dog, val/cat, val/dog")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "cat2dog", help="folder to make")
    with exit_on_user_error():
        arguments = parser.parse_args()
        sources = {
            f"{phase}{domain}": animal_folder(arguments.afhq_dir, phase, animal)
            for phase in ("train", "test")
            for domain, animal in DOMAINS.items()
        }
        with atomic_dir(arguments.output_dir) as result:
            for name, source in sources.items():
                for image in map(Path, list_images(str(source))):
                    link_or_copy(image, result / name / image.relative_to(source))
        print(f"{arguments.output_dir} is ready")


def animal_folder(afhq: Path, phase: str, animal: str) -> Path:
    names = AFHQ_TEST_NAMES if phase == "test" else (phase,)
    for name in names:
        if (afhq / name / animal).is_dir():
            return afhq / name / animal
    raise UserError(f"{afhq} has no folder {' or '.join(f'{name}/{animal}' for name in names)}: is it that of AFHQ?")


def link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
