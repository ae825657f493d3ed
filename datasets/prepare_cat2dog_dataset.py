"""Arrange the cats and dogs of AFHQ as the cat2dog dataset of the paper: cats in trainA, testA, dogs in trainB, testB.

    python datasets/prepare_cat2dog_dataset.py --afhq_dir stargan-v2/data/afhq --output_dir datasets/cat2dog

AFHQ is part of StarGAN v2; see docs/datasets.md for its address and license. On the file system of AFHQ the images are hard
links (they use no space, and remain if AFHQ is removed), on another file system they are copies.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python adds only the folder of the script
from atomic_dir import atomic_dir

from data.image_folder import list_images
from util.cli import CLIParser
from util.errors import UserError, exit_on_user_error

DOMAINS = {"A": "cat", "B": "dog"}
AFHQ_TEST_NAMES = ("val", "test")  # in its first and in its second version


def main() -> None:
    """Run the program."""
    parser = CLIParser(description="Arrange the cats and dogs of AFHQ as the cat2dog dataset.")
    parser.add_argument("--afhq_dir", type=Path, required=True, help="folder with train/cat, train/dog, val/cat, val/dog")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "cat2dog", help="folder to create")
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
    """Return the folder of `animal` in a phase, "train" or "test". Raise UserError if AFHQ does not have it."""
    names = AFHQ_TEST_NAMES if phase == "test" else (phase,)
    for name in names:
        if (afhq / name / animal).is_dir():
            return afhq / name / animal
    wanted = " or ".join(f"{name}/{animal}" for name in names)
    raise UserError(f"--afhq_dir {afhq}: no folder {wanted}. Give the folder of AFHQ.")


def link_or_copy(source: Path, target: Path) -> None:
    """Create `target` as a hard link to `source`, or as a copy if links are impossible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
