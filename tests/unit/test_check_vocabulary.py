"""scripts/check_vocabulary.py, which scripts/test.sh runs on all files."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts" / "check_vocabulary.py"


def check(path: Path, line: str) -> subprocess.CompletedProcess[str]:
    path.write_text(f"# first line\n{line}\n")
    return subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True)


REPLACED = ["first_picture = 1", "# a data set", '"""Whether it is."""', "# the optimiser"]  # style: ok


@pytest.mark.parametrize("line", REPLACED)
def test_words_to_replace_are_reported_with_their_line(tmp_path: Path, line: str) -> None:
    done = check(tmp_path / "file.py", line)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path / 'file.py'}:2: ")


@pytest.mark.parametrize("line", ["first_image = 1", "--pictures 5", "# a data set  # style: ok"])  # style: ok
def test_other_words_and_exempt_lines_are_not_reported(tmp_path: Path, line: str) -> None:
    done = check(tmp_path / "file.py", line)
    assert (done.returncode, done.stdout) == (0, "")
