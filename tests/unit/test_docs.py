"""README.md and docs/*.md: links, paths, options, commands and tests that they mention exist."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from models.networks import GENERATORS
from options import TestOptions, TrainOptions

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOREIGN_OPTIONS = {  # of torchrun, TensorBoard, Slurm, Docker and the Hugging Face command line
    *("--standalone", "--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_id", "--rdzv_endpoint"),
    *("--logdir", "--signal", "--shm-size", "--ipc", "--gpus", "--build-arg", "--local-dir"),
}
# The examples of docs/extending.md exist only in the copy of the project to which test_extending.py applies them.
APPLICABLE = [page for page in PAGES if page.stem != "extending" or "bilinear" in GENERATORS]
PARSERS = {"train": TrainOptions, "test": TestOptions}

for_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
for_every_applicable_page = pytest.mark.parametrize("page", APPLICABLE, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def here(page: Path) -> str:
    """Return the text of a page, without the columns that are about the published code."""
    return (
        re.sub(r"^\| [^|]*\|", "|", page.read_text(), flags=re.MULTILINE) if page.stem == "differences" else page.read_text()
    )


@for_every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?!http)([^)]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@for_every_applicable_page
def test_paths_exist(page: Path) -> None:
    roots = "models|util|options|data|datasets|scripts|tests"
    for path in set(re.findall(rf"(?<![\w./])(?:{roots})/[\w/.*]+\.(?:py|sh)\b", here(page))):
        assert list(ROOT.glob(path)), path


@for_every_applicable_page
def test_options_exist(page: Path) -> None:
    folders = ("options", "models", "data", "util", "scripts", "datasets")
    source = "\n".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.[ps][yh]"))
    known = set(re.findall(r"--[a-zA-Z][\w-]*", source)) | FOREIGN_OPTIONS | {"--all", "--help"}
    text = re.sub(r"^#SBATCH.*$", "", here(page), flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text)) <= known


@for_every_page
def test_tests_exist(page: Path) -> None:
    defined = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    files = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", page.read_text()))
    assert {name for name in named if not re.fullmatch(r"test_(latest|latest_ema)", name)} <= defined | files


@for_every_applicable_page
def test_commands_of_training_and_testing_parse(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    values = dict(re.findall(r'^(\w+)="([^"]*)"', text, re.MULTILINE)) | {"name": "RUN", "resume": ""}
    for program, line in re.findall(r"(?:python|torchrun[^\n`]*?)\s+(train|test)\.py\s+([^`|\n]+)", text):
        if "…" in line or "--help" in line:
            continue
        arguments = re.sub(r"\$(\w+)", lambda name: values[name[1]], line)
        PARSERS[program]().parse(shlex.split(arguments, comments=True))
