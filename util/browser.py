"""Open a page in the user's browser, for --open."""

import os
import webbrowser
from pathlib import Path

# Browsers that would take over the terminal. Python chooses them if there is no other.
TEXT_BROWSERS = {"www-browser", "links", "elinks", "lynx", "w3m"}


def open_page(page: Path) -> None:
    """Open a page. Do nothing if there is no browser, or only one for text that the variable BROWSER does not name."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if getattr(browser, "name", "") not in TEXT_BROWSERS or "BROWSER" in os.environ:
        browser.open(page.resolve().as_uri())
