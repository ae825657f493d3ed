"""Parser of the project's HTML pages: elements, texts, linked files."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID_ELEMENTS = {"meta", "img", "input", "hr"}


@dataclass
class Page:
    """The content of a page.

    Attributes:
        elements: (tag, attributes) in order.
        texts: (innermost tag, text) in order, without blank texts.
    """

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def attributes(self, tag: str, name: str) -> list[str]:
        """Return the values of an attribute of all elements with that tag."""
        return [attributes[name] or "" for found, attributes in self.elements if found == tag]

    def text_of(self, tag: str) -> list[str]:
        """Return the texts inside elements with that tag."""
        return [text for inside, text in self.texts if inside == tag]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.page.texts.append((self.open[-1], data))


def read_page(path: Path) -> Page:
    """Parse a page; fail if its elements are not properly nested."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader.page


def facts_of(path: Path) -> dict[str, str]:
    """Return the names and values under the title of a page."""
    page = read_page(path)
    return dict(zip(page.text_of("dt"), page.text_of("dd"), strict=True))


def linked_file(page_path: Path, link: str) -> Path:
    """Return the file that a browser opens for a relative link of a page."""
    parts = urlsplit(link)
    assert not (parts.scheme or parts.netloc or parts.query or parts.fragment), link
    return page_path.parent / unquote(parts.path)
