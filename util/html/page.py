"""Common parts of all HTML pages: header, charts, image rows, image viewer, and atomic writing.

A page is self-contained: it includes its style and script, loads nothing from the network, and no other script can run. It
is readable without scripts.
"""

import json
import math
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
# Seconds after which the script loads the page of a running program again, and a browser without scripts does.
RELOAD_SECONDS, RELOAD_SECONDS_WITHOUT_SCRIPT = 15, 60


@dataclass(frozen=True)
class PageImage:
    """An image on a page.

    Attributes:
        visual: name, such as "fake_B".
        file: path relative to the page, with forward slashes.
        width: in pixels.
        height: in pixels.
        exact: path of a file that browsers cannot show, which `file` is a view of; None: there is none.
        caption: what the image shows, with the name in small after it; None: the name is the caption.
    """

    visual: str
    file: str
    width: int
    height: int
    exact: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """Status of the program that writes a page again and again.

    Attributes:
        running: the program will write the page again.
        updated: time of this update in seconds since 1970.
        patience: seconds without an update after which the page says that there was none.
    """

    running: bool
    updated: float
    patience: float


class dialog(tags.html_tag):  # noqa: N801
    """HTML element `<dialog>`, which dominate lacks."""


def captions(target: str = "B", paired: bool = False) -> dict[str, str]:
    """Return captions in plain words by the published names of images. Other names are shown as they are.

    Args:
        target: domain of the translations. The published names call it B also with --direction BtoA.
        paired: the real image is the ground truth of the input.
    """
    source = "A" if target == "B" else "B"
    return {
        "real_A": "input",
        "fake_B": "translation",
        "real_B": "ground truth" if paired else f"a real {target} (unpaired)",
        "idt_A": "identity",
        "idt_B": "identity",
        "rec_A": "input, there and back",
        "fake_A": f"translation to {source}",
        "rec_B": f"{target}, there and back",
    }


CAPTIONS = captions()


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
    sections: Sequence[str] = (),
    status: RunStatus | None = None,
) -> None:
    """Write a page atomically.

    Args:
        path: the file, in an existing folder.
        title: title of the page.
        facts: names and values shown under the title. With `status`, one of them is named "status".
        rows: HTML from `image_row`, in order.
        visuals: number of images per row.
        image_width: approximate displayed width of an image in pixels; images share the width of the window.
        sections: HTML shown above the rows.
        status: of a program that writes the page again and again. The script then reloads it.
    """
    document = dominate.document(title=title)
    document.set_attribute("lang", "en")
    with document.head:
        tags.meta(charset="utf-8")
        tags.meta(http_equiv="Content-Security-Policy", content=POLICY)
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(raw(STYLE))
        tags.script(raw(SCRIPT))
        if status and status.running:
            tags.noscript(tags.meta(http_equiv="refresh", content=str(RELOAD_SECONDS_WITHOUT_SCRIPT)))
    if status:
        for name, value in {**asdict(status), "reload": RELOAD_SECONDS}.items():
            document.body[f"data-{name}"] = json.dumps(value)
    document.body.add(
        tags.header(
            tags.h1(title),
            tags.dl(tags.div(tags.dt(name), tags.dd(value), data_fact=name) for name, value in facts.items()),
        ),
        *map(raw, sections),
        _tools(),
        cards(rows, visuals, image_width, tags.main),
        _viewer(),
    )
    with atomic_write(path) as tmp_path:
        # "replace": the title can contain bytes of a command line that are not valid UTF-8.
        tmp_path.write_text(document.render(pretty=False), encoding="utf-8", errors="replace")


def cards(
    rows: Iterable[str], visuals: int, image_width: int, element: Callable[..., tags.html_tag] = tags.div
) -> tags.html_tag:
    """Return an element with the rows as cards. `visuals` and `image_width` are those of `write_page`."""
    lines = math.ceil(visuals / MAX_COLUMNS)
    layout = f"--columns: {math.ceil(visuals / lines)}; --image-width: {image_width}px"
    return element(raw("\n".join(rows)), cls="cards", style=layout)


def charts_section(charts: Iterable[str]) -> str:
    """Return the HTML of a section with charts, which can be closed."""
    charts_div = tags.div(raw("\n".join(charts)), cls="charts")
    return tags.details(tags.summary("curves"), charts_div, open=True).render(pretty=False)


def _figure(image: PageImage, heading: str) -> tags.figure:
    link = quote(os.fsencode(image.file))  # also for a name that is not valid Unicode
    img = tags.img(
        src=link,
        alt=f"{image.caption or image.visual} of {heading}",
        width=image.width,
        height=image.height,
        loading="lazy",
        decoding="async",
    )
    if image.width < PIXELATE_BELOW:
        img["class"] = "small"
    caption = tags.figcaption(image.caption or image.visual)
    if image.caption is not None:
        caption.add(" ", tags.small(image.visual))
    if image.exact is not None:
        caption.add(
            " ", tags.a(Path(image.exact).suffix.removeprefix("."), href=quote(os.fsencode(image.exact)), download="")
        )
    return tags.figure(tags.a(img, href=link), caption)


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
