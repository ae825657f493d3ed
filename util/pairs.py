"""File names that are valid everywhere, and the rule that finds the pairs of two sets of images by name."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from util.errors import UserError

# Not allowed on some file systems, where users may copy the results.
RESERVED = frozenset('<>:"|?*\\/')
LONGEST_NAME = 200  # bytes of one path component; most file systems allow 255
DOMAIN_SUFFIX = re.compile("_[AB]$")  # prepare_cityscapes_dataset.py and combine_A_and_B.py --use_AB: 1_A.jpg and 1_B.jpg
MAX_LISTED = 3  # names that an error message lists


def portable_name(name: str) -> str:
    """Return a path component that is valid on every file system and not hidden."""
    valid = "".join(char if char.isprintable() and char not in RESERVED else "_" for char in name)
    visible = "_" + valid[1:] if valid.startswith(".") else valid
    return visible.encode()[:LONGEST_NAME].decode(errors="ignore")


def portable_folder(name: str) -> str:
    """Return a folder name that does not end in `.png`, so that it cannot equal an image's name."""
    safe = portable_name(name)
    return safe + "_" if safe.lower().endswith(".png") else safe


def match_pairs(names: Iterable[str], candidates: Iterable[str], *, has_extension: bool = True) -> dict[str, str]:
    """Return the partner of each name that has one among `candidates`, in the order of `names`.

    Both are paths relative to their folders. Two paths are a pair if one of these rules makes them equal. Earlier rules
    take precedence:

    1. The paths, then the paths without file extension.
    2. The same after Unicode normalization (NFC), and with the characters replaced that results cannot have in names.
    3. Also without the suffix _A or _B.
    4. Also without distinguishing upper and lower case.

    Args:
        names: unique paths.
        candidates: unique paths with file extensions.
        has_extension: False if `names` have no file extensions, because they are those of results.
    Raises:
        UserError: a match is ambiguous.
    """
    names, unpaired = list(names), list(candidates)
    found: dict[str, str] = {}
    for rule in (_path, _path_stem, _portable_path, _stem, _without_domain, _without_case):
        ours = _group((name for name in names if name not in found), rule, has_extension)
        theirs = _group(unpaired, rule, True)
        for key in ours.keys() & theirs.keys():
            if len(ours[key]) > 1 or len(theirs[key]) > 1:
                raise UserError(
                    f"ambiguous pair: {_listed(ours[key])} could belong to {_listed(theirs[key])}. Rename or remove one."
                )
            found[ours[key][0]] = theirs[key][0]
        taken = set(found.values())
        unpaired = [path for path in unpaired if path not in taken]
    return {name: found[name] for name in names if name in found}


def describe_matches(matched: int, total: int) -> str:
    """Return the line that every program prints: "pairs: 97 of 100 matched"."""
    return f"pairs: {matched} of {total} matched"


def _path(path: str, has_extension: bool) -> str:
    return path


def _path_stem(path: str, has_extension: bool) -> str:
    return PurePosixPath(path).with_suffix("").as_posix() if has_extension else path


def _portable_path(path: str, has_extension: bool) -> str:
    parts = PurePosixPath(path).parts
    folders = (portable_folder(part) for part in parts[:-1])
    return unicodedata.normalize("NFC", "/".join([*folders, portable_name(parts[-1])]))


def _stem(path: str, has_extension: bool) -> str:
    return _portable_path(_path_stem(path, has_extension), has_extension)


def _without_domain(path: str, has_extension: bool) -> str:
    return DOMAIN_SUFFIX.sub("", _stem(path, has_extension))


def _without_case(path: str, has_extension: bool) -> str:
    return _without_domain(path, has_extension).casefold()


def _group(paths: Iterable[str], rule: Callable[[str, bool], str], has_extension: bool) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[rule(path, has_extension)].append(path)
    return groups


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return " or ".join(map(repr, paths[:MAX_LISTED])) + more
