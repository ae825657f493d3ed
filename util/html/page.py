"""What all pages share: a skeleton, charts, cards of images, a viewer, writing in one stroke.

Pages stand alone: style and script are inside, nothing is fetched from elsewhere, and no other script can run. Without
scripts they can be read all the same.
"""

import math
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import dominate
from dominate import tags
from dominate.util import raw

from util.files import atomic_write

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
# Should a name ever get past the escaping, a browser still runs this one script alone.
POLICY = f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'; object-src 'none'; base-uri 'none'"
SMALL = 128  # pixels; what is smaller is enlarged without blurring it
MAX_COLUMNS = 4  # more visuals than this share further lines of their card


@dataclass(frozen=True)
class PageImage:
    """An image of a card: what it shows, its file relative to the page with forward slashes, its size in pixels."""

    visual: str
    file: str
    width: int
    height: int


class dialog(tags.html_tag):  # noqa: N801
    """The element that dominate lacks."""


def image_row(heading: str, images: Sequence[PageImage]) -> str:
    """The markup of one row of a page: a heading over images, each a link to its file. Any text is escaped."""
    return tags.article(
        tags.h2(heading),
        tags.div((_figure(image, heading) for image in images), cls="pictures"),
    ).render(pretty=False)


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    cards: Iterable[str],
    visuals: int,
    image_width: int,
    charts: Sequence[str] = (),
) -> None:
    """Writes a page; a reader finds the old one or the new one, never a part.

    Args:
        path: the file, in an existing folder.
        title: of the page.
        facts: names and values shown under the title.
        cards: markup from `image_row`, in order.
        visuals: images in a card.
        image_width: the width in pixels that images are shown at, roughly: they share the width of the window.
        charts: markup from `chart`, in order, shown above the cards.
    """
    document = dominate.document(title=title)
    document.set_attribute("lang", "en")
    with document.head:
        tags.meta(charset="utf-8")
        tags.meta(http_equiv="Content-Security-Policy", content=POLICY)
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(raw(STYLE))
        tags.script(raw(SCRIPT))
    lines = math.ceil(visuals / MAX_COLUMNS)
    layout = f"--columns: {math.ceil(visuals / lines)}; --picture-width: {image_width}px"
    document.body.add(
        tags.header(
            tags.h1(title),
            tags.dl(tags.div(tags.dt(name), tags.dd(value)) for name, value in facts.items()),
        ),
        *([_charts(charts)] if charts else []),
        _tools(),
        tags.main(raw("\n".join(cards)), style=layout),
        _viewer(),
    )
    with atomic_write(path) as unfinished:
        # "replace": the title may hold bytes of a command line that are no UTF-8.
        unfinished.write_text(document.render(pretty=False), encoding="utf-8", errors="replace")


def _figure(image: PageImage, heading: str) -> tags.figure:
    link = quote(os.fsencode(image.file))  # a name that is no valid text as well
    img = tags.img(
        src=link,
        alt=f"{image.visual} of {heading}",
        width=image.width,
        height=image.height,
        loading="lazy",
        decoding="async",
    )
    if image.width < SMALL:
        img["class"] = "small"
    return tags.figure(tags.a(img, href=link), tags.figcaption(image.visual))


def _charts(charts: Sequence[str]) -> tags.html_tag:
    return tags.details(tags.summary("curves"), tags.div(raw("\n".join(charts)), cls="charts"), open=True)


def _tools() -> tags.html_tag:
    """What the script brings to life; hidden until it does."""
    return tags.div(
        tags.input_(type="search", id="filter", placeholder="filter by name", aria_label="filter by name"),
        tags.output(id="count"),
        tags.label("size", tags.input_(type="range", id="size", min="-1.5", max="1.5", step="0.25", value="0")),
        tags.button("dark / light", type="button", id="theme"),
        cls="tools",
        hidden=True,
    )


def _viewer() -> tags.html_tag:
    """A card in large, two of its images on either side of a divider; closed until the script opens it."""
    keys = ("← →", "pictures"), ("↑ ↓", "divider"), ("space", "swap"), ("esc", "back")
    return dialog(
        tags.div(
            tags.b(id="name"),
            tags.span(id="place"),
            tags.button("‹", type="button", id="previous", aria_label="previous", cls="end"),
            tags.button("›", type="button", id="next", aria_label="next"),
            tags.button("×", type="button", id="close", aria_label="close"),
            cls="bar",
        ),
        tags.div(tags.div(tags.hr(), tags.span(), tags.span(), id="stage", cls="stage"), cls="room"),
        tags.div(
            tags.select(id="before", aria_label="left of the divider"),
            tags.input_(type="range", id="cut", min="0", max="100", step="0.1", aria_label="divider"),
            tags.select(id="after", aria_label="right of the divider"),
            cls="bar",
        ),
        tags.p((part for key, meaning in keys for part in (tags.kbd(key), f" {meaning} ")), cls="keys"),
        id="viewer",
        aria_label="two images compared",
    )
