"""--open: which browsers open a page."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import ENVIRONMENT, ROOT

OPEN = "from pathlib import Path; from util.browser import open_page; open_page(Path('page.html'))"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the browser")
@pytest.mark.parametrize(
    ("text_browsers", "variable", "opened"), [([], None, False), (["w3m"], None, False), (["w3m"], "w3m", True)]
)
def test_a_browser_that_takes_over_the_terminal_opens_a_page_only_if_named(
    tmp_path: Path, text_browsers: list[str], variable: str | None, opened: bool
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in text_browsers:
        (programs / name).write_text(f"#!/bin/sh\necho \"$1\" >> '{tmp_path}/opened'\n")
        (programs / name).chmod(0o755)
    environment = {
        name: value for name, value in ENVIRONMENT.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    }
    environment |= {"PATH": str(programs), "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    if variable:
        environment["BROWSER"] = variable
    done = subprocess.run([sys.executable, "-c", OPEN], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    addresses = (tmp_path / "opened").read_text().splitlines() if (tmp_path / "opened").exists() else []
    assert addresses == ([(tmp_path / "page.html").as_uri()] if opened else [])
