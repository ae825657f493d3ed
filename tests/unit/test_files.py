"""Files that are complete or as they were."""

from pathlib import Path

import pytest

from util.files import atomic_write


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    for content in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with atomic_write(path) as unfinished:
            unfinished.write_text(content)
            assert unfinished.suffix == ".html"
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as unfinished:
        unfinished.write_text("half of")
        1 / 0  # noqa: B018 - to fail
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
