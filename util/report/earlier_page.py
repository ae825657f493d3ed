"""What a page that was written earlier says of itself: its title, and the images that its links lead to."""

from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.title = ""
        self.in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if (tag, name) == ("a", "href") and value]
        self.in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self.in_title = False

    def handle_data(self, data: str) -> None:
        self.title += data if self.in_title else ""


def page_title(page: Path) -> str:
    """The title of a page; empty where there is none."""
    return _read(page).title


def linked_images(page: Path) -> set[str]:
    """The images below `images` that a page links to, relative to it; none where there is no page."""
    files = {PurePosixPath(unquote(link)) for link in _read(page).links}
    return {
        str(file)
        for file in files
        if file.parts[:1] == ("images",) and ".." not in file.parts and file.suffix == ".png" and "\0" not in str(file)
    }


def _read(page: Path) -> _Reader:
    reader = _Reader()
    if page.is_file():
        reader.feed(page.read_text(encoding="utf-8", errors="replace"))
    return reader
