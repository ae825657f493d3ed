"""Where the images of a dataset lie, and sentences that say what was found when they do not."""

import os
from pathlib import Path

from data.image_io import EXTENSIONS
from util.errors import UserError

NOT_GIVEN = "placeholder"  # the published default of --dataroot
SHOWN = 8  # names in a folder that an error message lists


def check_dataroot(dataroot: str) -> None:
    """Raises a UserError when --dataroot was not given or does not exist."""
    if dataroot == NOT_GIVEN:
        raise UserError("--dataroot is missing: give the dataset's folder, as in --dataroot ./datasets/horse2zebra")
    if not Path(dataroot).exists():
        raise UserError(f"--dataroot {dataroot} does not exist")


def resolve_phase(dataroot: str, phase: str, domain: str = "") -> str:
    """`phase`, or "val" where the dataset has val images (`domain` "A": a folder valA) but no test images."""
    root = Path(dataroot)
    stands_in = phase == "test" and not (root / f"test{domain}").exists() and (root / f"val{domain}").exists()
    return "val" if stands_in else phase


def list_images(folder: str, limit: int | None = None) -> list[str]:
    """The sorted paths of all images below `folder`, at most the first `limit`.

    Links to folders are followed, each real folder is visited once. Names that begin with a dot are left out: they
    are what an operating system keeps for itself.

    Raises:
        UserError: `folder` is missing, cannot be listed, or holds no image.
    """
    if not Path(folder).is_dir():
        parent = Path(folder).parent
        raise UserError(f"{folder} is not a folder; {parent} {_holds(parent)}: check --dataroot and --phase")
    files = sorted(_walk(folder))
    images = [path for path in files if path.lower().endswith(EXTENSIONS)]
    if not images:
        raise UserError(
            f"{folder} has no images: 0 images, {len(files)} other files in it and below; "
            f"names of images end in {' '.join(EXTENSIONS)}"
        )
    return images[:limit]


def _walk(folder: str) -> list[str]:
    """The paths of all visible files below `folder`."""

    def fail(error: OSError) -> None:  # os.walk would pass over what it cannot list
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error

    visited: set[str] = set()
    files = []
    for here, subfolders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(here)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [str(Path(here, name)) for name in names if not name.startswith(".")]
    return files


def _holds(folder: Path) -> str:
    """What `folder` holds, as the predicate of a sentence."""
    if not folder.is_dir():
        return "is a file" if folder.exists() else "does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return "is empty"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"holds {', '.join(names[:SHOWN])}{more}"
