"""Join images of the same name side by side, A left and B right, for `--dataset_mode aligned`.

    python datasets/combine_A_and_B.py --fold_A photos --fold_B labels --fold_AB datasets/photo2label

The result has the same subfolders as the inputs, usually `train`, `val` and `test`. Bands and bits are kept; 8-bit gray
images become RGB. With --use_AB the names of a pair are
NAME_A.png and NAME_B.png, and the name of the result is NAME.png.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python adds only the folder of the script
from atomic_dir import atomic_dir

from data.image_array import ImageArray, ImageError
from data.image_folder import list_images
from data.image_io import read_rgb_or_array, writable_name
from data.image_writer import write_array
from util.cli import CLIParser, positive_int
from util.errors import UserError, exit_on_user_error
from util.pairs import match_pairs

MAX_LISTED = 3  # names in an error message


def main() -> None:
    """Run the program."""
    parser = CLIParser(description="Join images of equal names side by side, A left and B right.")
    parser.add_argument("--fold_A", type=Path, required=True, help="folder of the left images")
    parser.add_argument("--fold_B", type=Path, required=True, help="folder of the right images, with the same names")
    parser.add_argument("--fold_AB", type=Path, required=True, help="folder of the result, must not exist")
    parser.add_argument("--num_imgs", type=positive_int, help="maximum number of images per subfolder; all by default")
    parser.add_argument("--use_AB", action="store_true", help="names of a pair are NAME_A.png and NAME_B.png")
    with exit_on_user_error():
        arguments = parser.parse_args()
        pairs = find_pairs(arguments.fold_A, arguments.fold_B, arguments.use_AB, arguments.num_imgs)
        with atomic_dir(arguments.fold_AB) as result:
            for name, (path_A, path_B) in tqdm(pairs.items(), desc="combining", unit="pair", disable=None):
                target = writable_name(result / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                write(side_by_side(path_A, path_B), target, path_A)
        print(f"{arguments.fold_AB} is ready: {len(pairs)} pairs")


def find_pairs(
    folder_A: Path, folder_B: Path, suffixed: bool = False, limit: int | None = None
) -> dict[Path, tuple[Path, Path]]:
    """Return the two images of each result by its path relative to the folder of results, sorted.

    Names of a pair may differ as `match_pairs` says. The result has the name of the left image.

    Args:
        folder_A: folder of the left images.
        folder_B: folder of the right images.
        suffixed: names end in _A and _B, which the names of the results do not.
        limit: maximum number of pairs per subfolder.

    Raises:
        UserError: a folder is missing, or an image has no partner, or several.
    """
    images_A = images_by_name(folder_A, "_A" if suffixed else "")
    images_B = images_by_name(folder_B, "_B" if suffixed else "")
    matches = match_pairs(sorted(images_A), images_B)
    matched = set(matches.values())
    unpaired_A = [path for name, path in images_A.items() if name not in matches]
    unpaired_B = [path for name, path in images_B.items() if name not in matched]
    for paths, other in ((unpaired_A, folder_B), (unpaired_B, folder_A)):
        if paths:
            listed = ", ".join(sorted(map(str, paths))[:MAX_LISTED])
            more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
            raise UserError(f"{other}: no partner of {listed}{more}. Both images need one name.")
    pairs: dict[Path, tuple[Path, Path]] = {}
    in_subfolder: Counter[Path] = Counter()
    for name_A, name_B in matches.items():
        name = Path(name_A)
        in_subfolder[name.parent] += 1
        if limit is None or in_subfolder[name.parent] <= limit:
            pairs[name] = images_A[name_A], images_B[name_B]
    return pairs


def images_by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Return all images below `folder` whose stem ends in `suffix`, by their relative paths without the suffix."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder. Check the path.")
    images = [Path(path) for path in list_images(str(folder))]
    return {
        path.relative_to(folder).with_stem(path.stem.removesuffix(suffix)).as_posix(): path
        for path in images
        if path.stem.endswith(suffix)
    }


def side_by_side(path_A: Path, path_B: Path) -> ImageArray:
    """Return one image with both images side by side. Raise UserError if they differ in size, bands or sample type."""
    A, B = read(path_A), read(path_B)
    if A.size != B.size:
        sizes = [f"{width}x{height}" for width, height in (A.size, B.size)]
        raise UserError(f"{path_A}: {sizes[0]} pixels, but {path_B} has {sizes[1]}. Resize one of them.")
    if (A.bands, A.pixels.dtype) != (B.bands, B.pixels.dtype):
        kinds = [f"{image.bands} {image.pixels.dtype} bands" for image in (A, B)]
        raise UserError(f"{path_A}: {kinds[0]}, but {path_B} has {kinds[1]}. A file has one kind: convert one of them.")
    return ImageArray(np.hstack((A.flattened(), B.flattened())))


def read(path: Path) -> ImageArray:
    """Read an image. Raise UserError if it is unusable."""
    try:
        image = read_rgb_or_array(str(path))
    except ImageError as error:
        raise UserError(f"{path}: {error}. Replace the image.") from error
    return image if isinstance(image, ImageArray) else ImageArray(np.asarray(image))


def write(image: ImageArray, path: Path, source: Path) -> None:
    """Write the image in the format of its ending. Raise UserError, which names `source`, if the format cannot hold it."""
    try:
        write_array(image, path)
    except ImageError as error:
        raise UserError(f"{source}: {error}. Convert the images first.") from error


if __name__ == "__main__":
    main()
