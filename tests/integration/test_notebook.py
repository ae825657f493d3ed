"""notebooks/quickstart.ipynb and the Dockerfile: what they run exists and works."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from programs import ENVIRONMENT, ROOT

from scripts.app import build_parser

SHORT = {"EPOCHS": 1, "IMAGES": 2, "PHOTOS": "datasets/demo/testA"}


@pytest.mark.slow
def test_the_notebook_trains_tests_and_translates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    project = tmp_path / "project"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "tests", "docs", "checkpoints", "results", "demo"))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for `python` in cells

    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in SHORT.items():
        settings.source, count = re.subn(rf"^{name} = [^#]*", f"{name} = {value!r}  ", settings.source, flags=re.MULTILINE)
        assert count == 1
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(project / "notebooks")}}).execute()

    *_, evaluation, grid, own = (cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert "PSNR" in "".join(output.get("text", "") for output in evaluation)
    assert [output.output_type for output in grid] == ["execute_result"] and "image/png" in grid[0].data
    assert own[0].text.startswith("Translator(checkpoints/quickstart/latest_net_G.pth (resnet_4blocks, ngf 24")
    assert len([output for output in own if "image/png" in output.get("data", {})]) == 8


def test_the_notebook_is_saved_without_outputs() -> None:
    cells = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)


def test_the_command_of_the_docker_image_parses() -> None:
    text = (ROOT / "Dockerfile").read_text()
    program, *arguments = json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])
    assert (ROOT / program).is_file()
    assert build_parser().parse_args(arguments).embed == "https://huggingface.co"
    copied = re.findall(r"^COPY (.*) \./$", text, re.MULTILINE)[0].split()
    assert all((ROOT / name).is_file() for name in copied)


def test_the_workflow_runs_the_checks() -> None:
    commands = re.findall(r"^ *- run: (.*)$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)
    assert commands == ["bash .ci/run"] and (ROOT / ".ci/run").is_file()
