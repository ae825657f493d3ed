"""Names from outside as file names: inside the folder, unlike each other, and readable."""

import os
import unicodedata
from itertools import chain, count
from pathlib import Path

# Refused by other file systems than the one at hand; results get copied.
RESERVED = frozenset('<>:"|?*\\/')
LONGEST_NAME = 200  # bytes of one component; file systems end at 255


class OutputNamer:
    """Gives each source image a PNG name of its own, mirroring the folders below a common root.

    `sub/cat.jpg` becomes `sub/cat.png`; a `sub/cat.tif` after it becomes `sub/cat.tif.png`. Two names count as equal
    when a file system that ignores case or normalizes Unicode would take them for one.

    Args:
        root: folder that the sources lie in; of a source elsewhere only the file name is used.
    """

    def __init__(self, root: Path) -> None:
        self.root = _absolute(root)
        self.taken: set[str] = set()

    def shown(self, source: str) -> str:
        """The source as a heading: its path below the root, what cannot be printed replaced by U+FFFD."""
        return "".join(char if char.isprintable() else "\ufffd" for char in self._relative(source).as_posix())

    def claim(self, source: str) -> str:
        """A relative path with forward slashes, ending in `.png`, that no earlier call has returned."""
        relative = self._relative(source)
        folders = [_safe_folder(part) for part in relative.parent.parts]
        names = chain([_safe(relative.stem), _safe(relative.name)], (f"{_safe(relative.name)}.{n}" for n in count(2)))
        paths = ("/".join([*folders, f"{name}.png"]) for name in names)
        path = next(path for path in paths if _on_any_file_system(path) not in self.taken)
        self.taken.add(_on_any_file_system(path))
        return path

    def _relative(self, source: str) -> Path:
        path = _absolute(Path(source))
        return path.relative_to(self.root) if self.root in path.parents else Path(path.name)


def _absolute(path: Path) -> Path:
    # Not Path.resolve: a linked image goes by the name of the link. Not Path.absolute: `..` must be gone.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _safe(name: str) -> str:
    """One path component, not hidden, without control characters, undecodable bytes or reserved ones, cut to length."""
    kept = "".join(char if char.isprintable() and char not in RESERVED else "_" for char in name)
    visible = "_" + kept[1:] if kept.startswith(".") else kept
    return visible.encode()[:LONGEST_NAME].decode(errors="ignore")


def _safe_folder(name: str) -> str:
    """A folder never ends in `.png` and an image always does, so that the two cannot meet."""
    safe = _safe(name)
    return safe + "_" if safe.lower().endswith(".png") else safe


def _on_any_file_system(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
