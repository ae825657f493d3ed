"""Common parts of all HTML pages: header, charts, image rows, image viewer, and atomic writing.

A page is self-contained: it includes its style and script, loads nothing from the network, and no other script can run. It
is readable without scripts.
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
# If a file name ever gets past the escaping, a browser still runs this script alone.
POLICY = f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'; object-src 'none'; base-uri 'none'"
PIXELATE_BELOW = 128  # pixels; a smaller image is enlarged without blur
MAX_COLUMNS = 4  # images side by side in a row


@dataclass(frozen=True)
class PageImage:
    """An image on a page.

    Attributes:
        visual: caption, such as "fake_B".
        file: path relative to the page, with forward slashes.
        width: in pixels.
        height: in pixels.
        exact: path of a file that browsers cannot show, which `file` is a view of; None: there is none.
    """

    visual: str
    file: str
    width: int
    height: int
    exact: str | None = None


class dialog(tags.html_tag):  # noqa: N801
    """HTML element `<dialog>`, which dominate lacks."""


def image_row(heading: str, images: Sequence[PageImage]) -> str:
    """Return the HTML of one row: a heading and images, each a link to its file. All text is escaped."""
    return tags.article(
        tags.h2(heading),
        tags.div((_figure(image, heading) for image in images), cls="images"),
    ).render(pretty=False)


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    rows: Iterable[str],
    visuals: int,
    image_width: int,
    charts: Sequence[str] = (),
) -> None:
    """Write a page atomically.

    Args:
        path: the file, in an existing folder.
        title: title of the page.
        facts: names and values shown under the title.
        rows: HTML from `image_row`, in order.
        visuals: number of images per row.
        image_width: approximate displayed width of an image in pixels; images share the width of the window.
        charts: HTML from `chart`, in order, shown above the rows.
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
    layout = f"--columns: {math.ceil(visuals / lines)}; --image-width: {image_width}px"
    document.body.add(
        tags.header(
            tags.h1(title),
            tags.dl(tags.div(tags.dt(name), tags.dd(value)) for name, value in facts.items()),
        ),
        *([_charts(charts)] if charts else []),
        _tools(),
        tags.main(raw("\n".join(rows)), style=layout),
        _viewer(),
    )
    with atomic_write(path) as tmp_path:
        # "replace": the title can contain bytes of a command line that are not valid UTF-8.
        tmp_path.write_text(document.render(pretty=False), encoding="utf-8", errors="replace")


def _figure(image: PageImage, heading: str) -> tags.figure:
    link = quote(os.fsencode(image.file))  # also for a name that is not valid Unicode
    img = tags.img(
        src=link,
        alt=f"{image.visual} of {heading}",
        width=image.width,
        height=image.height,
        loading="lazy",
        decoding="async",
    )
    if image.width < PIXELATE_BELOW:
        img["class"] = "small"
    caption = tags.figcaption(image.visual)
    if image.exact is not None:
        caption.add(
            " ", tags.a(Path(image.exact).suffix.removeprefix("."), href=quote(os.fsencode(image.exact)), download="")
        )
    return tags.figure(tags.a(img, href=link), caption)


def _charts(charts: Sequence[str]) -> tags.html_tag:
    return tags.details(tags.summary("curves"), tags.div(raw("\n".join(charts)), cls="charts"), open=True)


def _tools() -> tags.html_tag:
    """Return the controls, which the script shows."""
    return tags.div(
        tags.input_(type="search", id="filter", placeholder="filter by name", aria_label="filter by name"),
        tags.output(id="count"),
        tags.label("size", tags.input_(type="range", id="size", min="-1.5", max="1.5", step="0.25", value="0")),
        tags.button("dark / light", type="button", id="theme"),
        cls="tools",
        hidden=True,
    )


def _viewer() -> tags.html_tag:
    """Return the viewer, which compares two images of a row across a divider. The script opens it."""
    keys = ("← →", "images"), ("↑ ↓", "divider"), ("space", "swap"), ("esc", "back")
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
