"""The examples of docs/extending.md, applied to a copy of the project: they train, test, evaluate, and pass its tests."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from image_factory import two_domains
from programs import ENVIRONMENT, ROOT

SECTIONS = ("Generator", "Discriminator", "Loss term", "Method", "Dataset mode", "Metric", "Logger")
SHARED = shlex.split("--crop_size 32 --gpu_ids -1 --num_threads 0")
TRAINING = shlex.split(
    "--load_size 36 --netG bilinear --ngf 2 --ndf 2 --netF_nc 4 --num_patches 8 --n_epochs 1 --n_epochs_decay 0 "
    "--max_dataset_size 2 --print_freq 1 --display_id -1 --no_html"
)
REGISTRY_TESTS = (
    *("tests/integration/test_registries.py", "tests/unit/test_networks.py", "tests/unit/test_losses.py"),
    *("tests/unit/test_data_loader.py", "tests/unit/test_evaluator.py", "tests/unit/test_loggers.py"),
    *("tests/unit/test_options.py", "tests/unit/test_docs.py"),
)
NEW_ENTRIES = ("bilinear", "global", "two_sided_cut", "named_pairs", "edges", "csv", "extending")


class Block(NamedTuple):
    """A fenced code block of a section."""

    section: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """Return the code blocks of the page in this language."""
    found = []
    for section in re.split(r"^## ", (ROOT / "docs" / "extending.md").read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for name, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            found.append(Block(title, name, text))
    return [block for block in found if block.language == language]


def commands(program: str, *sections: str) -> Iterator[list[str]]:
    """Yield the arguments of every documented command of `program` in these sections."""
    for block in blocks("bash"):
        for line in block.text.splitlines():
            if block.section in sections and line.startswith(f"python {program} "):
                yield shlex.split(line)[2:]


def write_file(block: Block, tree: Path) -> None:
    """Write a new file, whose first line is a comment with its path."""
    path = tree / block.text.partition("\n")[0].removeprefix("# ")
    assert not path.exists() and path.parent.is_dir(), path
    path.write_text(block.text)


def apply_change(block: Block, tree: Path) -> None:
    """Apply a change by adding lines to those of each hunk, which must occur once in the file."""
    header, *hunks = re.split(r"^@@ .* @@\n", block.text, flags=re.MULTILINE)
    path = tree / re.search(r"^\+\+\+ b/(.*)$", header, re.MULTILINE)[1]
    source = path.read_text()
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        assert {line[0] for line in lines} == {" ", "+"}
        old, new = "".join(line[1:] for line in lines if line[0] == " "), "".join(line[1:] for line in lines)
        assert source.count(old) == 1, f"{path} does not contain these lines once:\n{old}"
        source = source.replace(old, new)
    path.write_text(source)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project with all examples, and two datasets for their commands."""
    tree = tmp_path_factory.mktemp("extended") / "CUT"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if not name.startswith("tests/golden/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for block in blocks("python"):
        write_file(block, tree)
    for block in blocks("diff"):
        apply_change(block, tree)
    for name in ("demo", "mine"):
        two_domains(tree / "datasets" / name, "train", n_A=3, n_B=2, size=(36, 36))
        two_domains(tree / "datasets" / name, "test", n_A=2, n_B=2, size=(36, 36))
    return tree


def python(tree: Path, *arguments: str) -> str:
    """Run Python in the copy. Fail unless it succeeds. Return what it printed."""
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=ENVIRONMENT, capture_output=True, text=True, timeout=250
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def logged(tree: Path, run: str) -> list[dict]:
    """Return the rows of the run's metrics.jsonl."""
    return [json.loads(line) for line in (tree / "checkpoints" / run / "metrics.jsonl").read_text().splitlines()]


def test_every_section_has_a_file_a_change_and_a_command() -> None:
    for language in ("python", "diff"):
        assert tuple(block.section for block in blocks(language)) == SECTIONS
    assert all(any(commands("train.py", section)) for section in SECTIONS)


def test_every_change_to_a_registry_is_one_import_and_one_entry() -> None:
    for block in blocks("diff"):
        added = [line for line in block.text.splitlines() if re.match(r"\+(?!\+\+)", line)]
        if block.section != "Loss term":
            assert [line.lstrip("+ ").partition(" ")[0] in ("from", "import") for line in added] == [True, False]


def test_examples_are_formatted(tree: Path) -> None:
    python(tree, "-m", "ruff", "format", "--check", ".")
    python(tree, "-m", "ruff", "check", ".")


def test_examples_train_test_and_evaluate_together(tree: Path) -> None:
    """All extensions of CUT in one run: generator, discriminator, loss term, dataset mode, metric, logger."""
    others = [section for section in SECTIONS if section != "Method"]
    combined = [argument for command in commands("train.py", *others) for argument in command]
    printed = python(tree, "train.py", *SHARED, *TRAINING, *combined, "--name", "RUN")
    assert re.search(r"TV: 0\.0\d", printed)
    run = tree / "checkpoints" / "RUN"
    assert "stages.0.1.weight" in torch.load(run / "latest_net_G.pth")
    assert "logit.weight" in torch.load(run / "latest_net_D.pth")
    assert [row["evaluation"] for row in logged(tree, "RUN") if "evaluation" in row][-1].keys() == {"edge correlation"}
    assert (run / "best_net_G.pth").is_file()
    with (run / "scalars.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["images"] == "2"]
    assert {"TV", "G", "edge correlation"} <= {row["name"] for row in rows}

    (test,) = commands("test.py", "Dataset mode")
    python(tree, "test.py", *SHARED, *test, "--name", "RUN")
    assert len(list((tree / "results" / "RUN" / "test_latest" / "images" / "fake_B").iterdir())) == 2
    (evaluation,) = commands("scripts/evaluate.py", *SECTIONS)
    assert "edge correlation" in python(
        tree, "scripts/evaluate.py", *evaluation, "--results", "results/RUN/test_latest", "--gpu_ids", "-1"
    )
    baseline, result = json.loads((tree / "results" / "RUN" / "test_latest" / "evaluation.json").read_text())
    assert baseline["figures"][0]["value"] == pytest.approx(1)
    assert -1 <= result["figures"][0]["value"] < 1


def test_method_trains_and_tests(tree: Path) -> None:
    (training,), (test,) = commands("train.py", "Method"), commands("test.py", "Method")
    python(tree, "train.py", *SHARED, *TRAINING, *training)
    run = tree / "checkpoints" / "two_sided"
    assert {path.name for path in run.glob("latest_net_*")} == {f"latest_net_{n}_{s}.pth" for n in "GFD" for s in "AB"}
    losses = [row["losses"] for row in logged(tree, "two_sided") if "losses" in row][-1]
    assert list(losses) == ["D_A", "G_A", "NCE_A", "D_B", "G_B", "NCE_B", "cycle"]
    python(tree, "test.py", *SHARED, *test)
    images = tree / "results" / "two_sided" / "test_latest" / "images"
    assert {visual.name: len(list(visual.iterdir())) for visual in images.iterdir()} == dict.fromkeys(
        ["real_A", "fake_B", "real_B", "fake_A"], 2
    )


def test_tests_of_the_registries_pass_for_the_examples(tree: Path) -> None:
    options = ["-v", "-x", "-n", "0", "-p", "no:cacheprovider", "-k", " or ".join(NEW_ENTRIES)]
    printed = python(tree, "-m", "pytest", *options, *REGISTRY_TESTS)
    passed = re.findall(r"^(tests/\S+::.*) PASSED", printed, re.MULTILINE)
    for entry in NEW_ENTRIES:
        assert any(entry in test for test in passed), f"no test of {entry} has run"
