"""The version that runs, evaluations and exports are labeled with."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT

from options import TrainOptions
from options.saved_options import diff_options, parse_training, save_options
from util.loggers.base import TrainingPosition
from util.train_log import MetricsLog
from util.version import VERSION, format_version, program_version

PROGRAMS = ["train.py", "test.py", "scripts/evaluate.py", "scripts/export.py"]


def git(tree: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(tree), *author, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def version_in(tree: Path, **environment: str) -> dict:
    """Return `program_version()` of a copy of the program in `tree`."""
    code = "import json, util.version; print(json.dumps(util.version.program_version()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=os.environ | environment, capture_output=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "program" / "util").mkdir(parents=True)
    shutil.copy(ROOT / "util" / "version.py", tmp_path / "program" / "util")
    return tmp_path / "program"


def test_a_commit_and_its_modification(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", "util/version.py")
    git(tree, "commit", "-qm", "Add it")
    commit = git(tree, "rev-parse", "HEAD")
    (tree / "results").mkdir()  # untracked: not a modification
    (tree / "results" / "image.txt").write_text("")
    assert version_in(tree) == {"version": VERSION, "commit": commit, "modified": False}
    assert version_in(tree, GIT_DIR="/nowhere")["commit"] == commit  # as in a hook of another repository
    with (tree / "util" / "version.py").open("a") as file:
        file.write("# changed\n")
    assert version_in(tree) == {"version": VERSION, "commit": commit, "modified": True}
    assert version_in(tree, PATH="/nowhere") == {"version": VERSION, "commit": None, "modified": None}


def test_the_repository_around_an_installed_program_is_not_its_own(tree: Path) -> None:
    git(tree.parent, "init", "-q")
    assert version_in(tree) == {"version": VERSION, "commit": None, "modified": None}


def test_format() -> None:
    for commit, modified, text in (
        ("0123456789abcdef", True, "1.0.0 (commit 0123456789ab, modified)"),
        ("0123456789abcdef", False, "1.0.0 (commit 0123456789ab)"),
        (None, None, "1.0.0"),
    ):
        assert format_version({"version": "1.0.0", "commit": commit, "modified": modified}) == text


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_its_version(program: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / program), "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(VERSION)}( \(commit [0-9a-f]{{12}}(, modified)?\))?\n", done.stdout)


def test_the_version_is_no_option_of_a_run() -> None:
    assert "version" not in vars(TrainOptions().parse(["--dataroot", "data"]))


def test_every_program_has_the_parser_that_declares_it() -> None:
    for file in [ROOT / "train.py", ROOT / "test.py", *(ROOT / "scripts").rglob("*.py")]:
        assert not re.search(r"(?<!CLI)(?<!\w)ArgumentParser\(", file.read_text()), file


def test_saved_options_have_the_version_and_load_with_and_without_it(tmp_path: Path) -> None:
    arguments = ["--dataroot", "data", "--checkpoints_dir", str(tmp_path), "--name", "run", "--ngf", "8"]
    opt = TrainOptions().parse(arguments)
    save_options(opt, tmp_path / "run")
    file = tmp_path / "run" / "train_opt.json"
    saved = json.loads(file.read_text())
    assert saved["program"] == program_version()
    resume = [*arguments[2:6], "--continue_train"]
    earlier = {name: value for name, value in saved.items() if name != "program"}
    for content in (earlier, earlier | {"program": {"version": "0.1", "commit": None, "modified": None}}):
        file.write_text(json.dumps(content))
        resumed = parse_training(resume)
        assert resumed.ngf == 8
        assert diff_options(resumed) == []


def test_metrics_name_the_program_once_and_again_after_a_change(tmp_path: Path) -> None:
    old = {"version": "0.1", "commit": None, "modified": None}
    for program in (None, old, old, program_version()):  # the run is resumed three times
        log = MetricsLog(tmp_path / "metrics.jsonl", program)
        for image in range(2):
            log.add(TrainingPosition(1, image / 2, image), {"losses": {"G": 1.0}})
    labels = [row.get("program") for row in log.rows]
    assert labels == [None, None, old, None, None, None, program_version(), None]


def test_the_citation_has_the_same_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text()
