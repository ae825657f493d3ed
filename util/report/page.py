"""What the training page and the results page share: a skeleton, cards of pictures, writing in one stroke.

Pages stand alone: the style is inside, there is no script, and nothing is fetched from elsewhere.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import dominate
from dominate import tags
from dominate.util import raw

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
MOST_COLUMNS = 4  # more visuals than this continue on a second line of their card


@dataclass(frozen=True)
class Picture:
    """A picture of a card: what it shows, its file relative to the page with forward slashes, its size in pixels."""

    visual: str
    file: str
    width: int
    height: int


def card(heading: str, pictures: Sequence[Picture]) -> str:
    """The markup of one row of a page: a heading over pictures, each a link to its file. Any text is escaped."""
    return tags.article(
        tags.h2(heading),
        tags.div((_figure(picture, heading) for picture in pictures), cls="pictures"),
    ).render(pretty=False)


def write_page(
    path: Path, title: str, facts: Mapping[str, str], cards: Iterable[str], visuals: int, picture_width: int
) -> None:
    """Writes a page; a reader finds the old one or the new one, never a part.

    Args:
        path: the file, in an existing folder.
        title: of the page.
        facts: names and values shown under the title.
        cards: markup from `card`, in order.
        visuals: pictures in a card.
        picture_width: the width in pixels that pictures are shown at, roughly: they share the width of the window.
    """
    document = dominate.document(title=title)
    document.set_attribute("lang", "en")
    with document.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(raw(STYLE))
    layout = f"--columns: {min(visuals, MOST_COLUMNS)}; --picture-width: {picture_width}px"
    document.body.add(
        tags.header(
            tags.h1(title),
            tags.dl(tags.div(tags.dt(name), tags.dd(value)) for name, value in facts.items()),
        ),
        tags.main(raw("\n".join(cards)), style=layout),
    )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    # "replace": the title may hold bytes of a command line that are no UTF-8.
    unfinished.write_text(document.render(pretty=False), encoding="utf-8", errors="replace")
    unfinished.replace(path)


def _figure(picture: Picture, heading: str) -> tags.figure:
    link = quote(picture.file)
    image = tags.img(
        src=link,
        alt=f"{picture.visual} of {heading}",
        width=picture.width,
        height=picture.height,
        loading="lazy",
        decoding="async",
    )
    return tags.figure(tags.a(image, href=link), tags.figcaption(picture.visual))
