"""Atomic writes."""

from pathlib import Path

import pytest

from util.errors import UserError
from util.files import atomic_write, prepare_output_file


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    for content in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with atomic_write(path) as tmp_file:
            tmp_file.write_text(content)
            assert tmp_file.suffix == ".html"
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as tmp_file:
        tmp_file.write_text("half of")
        1 / 0  # noqa: B018 - to fail
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--json .*: a folder\. Give the name of a file\.$"):
        prepare_output_file(tmp_path, "--json")
    with pytest.raises(UserError, match=r"no file can be created .* Check --json\.$"):
        prepare_output_file(tmp_path / "file" / "metrics.json", "--json")
    prepare_output_file(tmp_path / "new" / "metrics.json", "--json")
    assert list((tmp_path / "new").iterdir()) == []
