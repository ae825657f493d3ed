"""Joins images of equal names side by side, A left and B right: what `--dataset_mode aligned` reads.

    python datasets/combine_A_and_B.py --fold_A photos --fold_B labels --fold_AB datasets/photo2label

The folders usually hold `train`, `val` and `test`; whatever subfolders they have, the result has too. With --use_AB a
pair is called NAME_A.png and NAME_B.png, and the result NAME.png.
"""

import sys
from collections import Counter
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python puts this folder on the path, not the project's
from atomic_dir import atomic_dir

from data.image_folder import list_images
from data.image_io import ImageError, read_image
from util.cli import CLIParser, positive_int
from util.errors import UserError, exit_on_user_error

SHOWN = 3  # names in an error message
JPEG_QUALITY = 95


def main() -> None:
    parser = CLIParser(description="Joins images of equal names side by side, A left and B right.")
    parser.add_argument("--fold_A", type=Path, required=True, help="folder of the left images")
    parser.add_argument("--fold_B", type=Path, required=True, help="folder of the right images, of the same names")
    parser.add_argument("--fold_AB", type=Path, required=True, help="folder of the result; it must not exist")
    parser.add_argument("--num_imgs", type=positive_int, help="at most so many images of each subfolder; all by default")
    parser.add_argument("--use_AB", action="store_true", help="the pairs are called NAME_A.png and NAME_B.png")
    with exit_on_user_error():
        arguments = parser.parse_args()
        pairs = find_pairs(arguments.fold_A, arguments.fold_B, arguments.use_AB, arguments.num_imgs)
        with atomic_dir(arguments.fold_AB) as result:
            for name, (path_A, path_B) in tqdm(pairs.items(), desc="combining", unit="pair", disable=None):
                image = side_by_side(path_A, path_B)
                (result / name).parent.mkdir(parents=True, exist_ok=True)
                image.save(result / name, quality=JPEG_QUALITY)
        print(f"{arguments.fold_AB} is ready: {len(pairs)} pairs")


def find_pairs(
    folder_A: Path, folder_B: Path, suffixed: bool = False, most: int | None = None
) -> dict[Path, tuple[Path, Path]]:
    """Maps the path of each result, relative to the folder of results, to its two images; sorted.

    Args:
        suffixed: names end in _A and _B, which the result's do not.
        most: at most so many pairs of each subfolder.

    Raises UserError where a folder is missing or an image has no partner.
    """
    of_A = images_by_name(folder_A, "_A" if suffixed else "")
    of_B = images_by_name(folder_B, "_B" if suffixed else "")
    for here, there, folder in ((of_A, of_B, folder_B), (of_B, of_A, folder_A)):
        alone = sorted(str(here[name]) for name in here.keys() - there.keys())
        if alone:
            more = f" and {len(alone) - SHOWN} more" if len(alone) > SHOWN else ""
            raise UserError(f"{folder} has no partner of {', '.join(alone[:SHOWN])}{more}: names must be equal")
    pairs: dict[Path, tuple[Path, Path]] = {}
    in_subfolder: Counter[Path] = Counter()
    for name in sorted(of_A):
        in_subfolder[name.parent] += 1
        if most is None or in_subfolder[name.parent] <= most:
            pairs[name] = of_A[name], of_B[name]
    return pairs


def images_by_name(folder: Path, suffix: str) -> dict[Path, Path]:
    """All images below `folder` whose stem ends in `suffix`, by their relative paths without it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    images = [Path(path) for path in list_images(str(folder))]
    return {
        path.relative_to(folder).with_stem(path.stem.removesuffix(suffix)): path
        for path in images
        if path.stem.endswith(suffix)
    }


def side_by_side(path_A: Path, path_B: Path) -> Image.Image:
    """The two images in one of twice their width, as 8-bit RGB. Raises UserError where they cannot be joined."""
    A, B = read(path_A), read(path_B)
    if A.size != B.size:
        raise UserError(
            f"{path_A} has {A.width}x{A.height} pixels and {path_B} has {B.width}x{B.height}: a pair has one size"
        )
    joined = Image.new("RGB", (2 * A.width, A.height))
    joined.paste(A, (0, 0))
    joined.paste(B, (A.width, 0))
    return joined


def read(path: Path) -> Image.Image:
    try:
        return read_image(str(path))
    except ImageError as error:
        raise UserError(f"{path} cannot be used: {error}") from error


if __name__ == "__main__":
    main()
