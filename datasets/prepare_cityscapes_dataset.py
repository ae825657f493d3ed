"""Makes the Cityscapes dataset of the paper from the two official archives, which everyone has to fetch in person.

    python datasets/prepare_cityscapes_dataset.py --gtFine_dir gtFine_trainvaltest.zip \\
        --leftImg8bit_dir leftImg8bit_trainvaltest.zip --output_dir datasets/cityscapes

Accept the license at https://www.cityscapes-dataset.com and fetch gtFine_trainvaltest.zip (241 MB) and
leftImg8bit_trainvaltest.zip (11 GB). They need not be unpacked; the folders are taken as well.

A are the photos, B the label maps in color, 256x256: trainA, trainB from the official training half, testA, testB from
its validation half, as N_A.jpg and N_B.jpg. `train` and `test` hold the same pairs side by side as N.jpg, for
`--dataset_mode aligned`. The paper translates labels to photos: `--direction BtoA`.
"""

import sys
import zipfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python puts this folder on the path, not the project's
from atomic_dir import atomic_dir

from util.cli import CLIParser
from util.errors import UserError, exit_on_user_error

Folder = Path | zipfile.Path
Pair = tuple[Folder, Folder]  # photo, label map

SIZE = (256, 256)  # pixels
PHOTO, LABELS = "_leftImg8bit.png", "_gtFine_color.png"
OUR_PHASE = {"train": "train", "val": "test"}
OFFICIAL_PAIRS = {"train": 2975, "val": 500}


def main() -> None:
    parser = CLIParser(description="Makes the Cityscapes dataset from the two official archives.")
    parser.add_argument("--gtFine_dir", type=Path, required=True, help="gtFine_trainvaltest.zip, or its folder gtFine")
    parser.add_argument(
        "--leftImg8bit_dir", type=Path, required=True, help="leftImg8bit_trainvaltest.zip, or its folder leftImg8bit"
    )
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "cityscapes", help="folder to make")
    with exit_on_user_error():
        arguments = parser.parse_args()
        photos = official_folder(arguments.leftImg8bit_dir, "leftImg8bit")
        labels = official_folder(arguments.gtFine_dir, "gtFine")
        pairs = {phase: find_pairs(photos / phase, labels / phase) for phase in OUR_PHASE}
        with atomic_dir(arguments.output_dir) as result:
            for phase, of_phase in pairs.items():
                write_pairs(of_phase, result, OUR_PHASE[phase])
        counts = ", ".join(f"{len(of_phase)} {OUR_PHASE[phase]}" for phase, of_phase in pairs.items())
        print(f"{arguments.output_dir} is ready: {counts} pairs")
        for phase, of_phase in pairs.items():
            if len(of_phase) != OFFICIAL_PAIRS[phase]:
                print(f"note: the official {phase} half has {OFFICIAL_PAIRS[phase]} pairs", file=sys.stderr)


def official_folder(given: Path, name: str) -> Folder:
    """The folder `name` with train and val, in the archive or folder `given`, which may be that folder itself."""
    if not given.exists():
        raise UserError(f"{given} does not exist")
    try:
        root: Folder = given if given.is_dir() else zipfile.Path(given)
    except zipfile.BadZipFile as error:
        raise UserError(f"{given} is neither a folder nor a complete zip archive") from error
    for folder in (root, root / name):
        if all((folder / phase).is_dir() for phase in OUR_PHASE):
            return folder
    raise UserError(f"{given} holds no folder {name} with {' and '.join(OUR_PHASE)}")


def find_pairs(photos: Folder, labels: Folder) -> list[Pair]:
    """Photo and label map of every frame, in the order of the frames' names. UserError where one is alone."""
    photo_of, labels_of = frames(photos, PHOTO), frames(labels, LABELS)
    alone = sorted(photo_of.keys() ^ labels_of.keys())
    if alone or not photo_of:
        example = f", first of them {alone[0]}" if alone else ""
        raise UserError(
            f"{photos} and {labels} do not belong together or are incomplete: {len(photo_of)} photos *{PHOTO}, "
            f"{len(labels_of)} label maps *{LABELS}, {len(alone)} without a partner{example}"
        )
    return [(photo_of[frame], labels_of[frame]) for frame in sorted(photo_of)]


def frames(phase: Folder, ending: str) -> dict[str, Folder]:
    """The files <phase>/<city>/<frame><ending> by frame."""
    return {
        file.name.removesuffix(ending): file
        for city in phase.iterdir()
        if city.is_dir()
        for file in city.iterdir()
        if file.name.endswith(ending)
    }


def write_pairs(pairs: list[Pair], folder: Path, phase: str) -> None:
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
    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG",)) as image:
            return image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def save(image: Image.Image, path: Path) -> None:
    image.save(path, quality=100, subsampling=0)  # thin poles and their label colors survive


if __name__ == "__main__":
    main()
