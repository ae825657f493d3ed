"""Create the Cityscapes dataset of the paper from the two official archives, which cannot be downloaded automatically.

    python datasets/prepare_cityscapes_dataset.py --gtFine_dir gtFine_trainvaltest.zip \\
        --leftImg8bit_dir leftImg8bit_trainvaltest.zip --output_dir datasets/cityscapes

Accept the license at https://www.cityscapes-dataset.com and download gtFine_trainvaltest.zip (241 MB) and
leftImg8bit_trainvaltest.zip (11 GB). Archives and unpacked folders are both accepted.

Domain A contains the photos, domain B the color label maps, at 256x256 pixels: trainA, trainB from the official training
split, testA, testB from the validation split, as N_A.jpg and N_B.jpg. `train` and `test` contain the same pairs side by
side as N.jpg, for `--dataset_mode aligned`. The paper translates labels to photos: `--direction BtoA`.
"""

import sys
import zipfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python adds only the folder of the script
from atomic_dir import atomic_dir

from util.cli import CLIParser
from util.errors import UserError, exit_on_user_error

Folder = Path | zipfile.Path
Pair = tuple[Folder, Folder]  # photo, label map

SIZE = (256, 256)  # pixels
PHOTO, LABELS = "_leftImg8bit.png", "_gtFine_color.png"
PHASES = {"train": "train", "val": "test"}
OFFICIAL_PAIRS = {"train": 2975, "val": 500}


def main() -> None:
    """Run the program."""
    parser = CLIParser(description="Create the Cityscapes dataset from the two official archives.")
    parser.add_argument(
        "--gtFine_dir", type=Path, required=True, help="gtFine_trainvaltest.zip, or the unpacked folder gtFine"
    )
    parser.add_argument(
        "--leftImg8bit_dir",
        type=Path,
        required=True,
        help="leftImg8bit_trainvaltest.zip, or the unpacked folder leftImg8bit",
    )
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "cityscapes", help="folder to create")
    with exit_on_user_error():
        arguments = parser.parse_args()
        photos = official_folder(arguments.leftImg8bit_dir, "leftImg8bit")
        labels = official_folder(arguments.gtFine_dir, "gtFine")
        pairs = {phase: find_pairs(photos / phase, labels / phase) for phase in PHASES}
        with atomic_dir(arguments.output_dir) as result:
            for phase, phase_pairs in pairs.items():
                write_pairs(phase_pairs, result, PHASES[phase])
        counts = ", ".join(f"{len(phase_pairs)} {PHASES[phase]}" for phase, phase_pairs in pairs.items())
        print(f"{arguments.output_dir} is ready: {counts} pairs")
        for phase, phase_pairs in pairs.items():
            if len(phase_pairs) != OFFICIAL_PAIRS[phase]:
                print(f"note: the official {phase} split has {OFFICIAL_PAIRS[phase]} pairs", file=sys.stderr)


def official_folder(path: Path, name: str) -> Folder:
    """Return the folder `name` with train and val. `path` is this folder, or a folder or zip that contains it."""
    if not path.exists():
        raise UserError(f"{path}: does not exist. Check the path.")
    try:
        root: Folder = path if path.is_dir() else zipfile.Path(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: neither a folder nor a complete zip archive. Download it again.") from error
    for folder in (root, root / name):
        if all((folder / phase).is_dir() for phase in PHASES):
            return folder
    raise UserError(f"{path}: contains no folder {name} with {' and '.join(PHASES)}. Check the path.")


def find_pairs(photos: Folder, labels: Folder) -> list[Pair]:
    """Return photo and label map of every frame, sorted by frame. Raise UserError if one of them is missing."""
    photo_of, labels_of = frames(photos, PHOTO), frames(labels, LABELS)
    unpaired = sorted(photo_of.keys() ^ labels_of.keys())
    if unpaired or not photo_of:
        example = f", first of them {unpaired[0]}" if unpaired else ""
        raise UserError(
            f"{photos} and {labels} are incomplete or do not belong together: {len(photo_of)} photos *{PHOTO}, "
            f"{len(labels_of)} label maps *{LABELS}, {len(unpaired)} without a partner{example}. "
            "Download both archives again."
        )
    return [(photo_of[frame], labels_of[frame]) for frame in sorted(photo_of)]


def frames(phase: Folder, ending: str) -> dict[str, Folder]:
    """Return the files <phase>/<city>/<frame><ending> by frame."""
    return {
        file.name.removesuffix(ending): file
        for city in phase.iterdir()
        if city.is_dir()
        for file in city.iterdir()
        if file.name.endswith(ending)
    }


def write_pairs(pairs: list[Pair], folder: Path, phase: str) -> None:
    """Write each pair as two files and as one file side by side."""
    for name in (phase, f"{phase}A", f"{phase}B"):
        (folder / name).mkdir()
    for number, (photo_file, labels_file) in enumerate(tqdm(pairs, desc=phase, unit="pair", disable=None), start=1):
        photo, labels = read(photo_file), read(labels_file)
        both = Image.new("RGB", (photo.width + labels.width, photo.height))
        both.paste(photo, (0, 0))
        both.paste(labels, (photo.width, 0))
        save(photo, folder / f"{phase}A" / f"{number}_A.jpg")
        save(labels, folder / f"{phase}B" / f"{number}_B.jpg")
        save(both, folder / phase / f"{number}.jpg")


def read(path: Folder) -> Image.Image:
    """Read an image at SIZE. Raise UserError if it is unreadable."""
    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG",)) as image:
            return image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Download the archive again.") from error


def save(image: Image.Image, path: Path) -> None:
    """Save a JPEG at the highest quality, which keeps thin poles and their label colors."""
    image.save(path, quality=100, subsampling=0)


if __name__ == "__main__":
    main()
