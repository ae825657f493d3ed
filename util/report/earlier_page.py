"""The pictures of a page that an earlier run has written: they are what its links lead to."""

from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def pictures_of(page: Path) -> set[str]:
    """The pictures below `images` that a page links to, relative to it; none where there is no page."""
    try:
        text = page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return set()
    links = _Links()
    links.feed(text)
    files = {PurePosixPath(unquote(link)) for link in links.found}
    return {
        str(file)
        for file in files
        if file.parts[:1] == ("images",) and ".." not in file.parts and file.suffix == ".png" and "\0" not in str(file)
    }
