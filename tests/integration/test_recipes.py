"""The recipes of the paper's experiments: scripts/train_*.sh and scripts/test_*.sh."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from options import TestOptions, TrainOptions

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PARSERS = {"train": TrainOptions, "test": TestOptions}
METHODS = {"cut": ("cut", 200, 200), "fastcut": ("cut", 150, 50), "cyclegan": ("cycle_gan", 200, 200)}
PAIRS_OF_FOLDERS = ["grumpifycat", "horse2zebra", "cat2dog", "cityscapes"]
RECIPES = [*((experiment, method) for experiment in PAIRS_OF_FOLDERS for method in METHODS), ("monet_etretat", "sincut")]
# Options that must be equal in training and testing.
SHARED = ("name", "dataroot", "checkpoints_dir", "direction", "model", "CUT_mode")


def call(
    script: Path | str, *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *arguments],
        cwd=cwd or SCRIPTS.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def dry_run(script: str, *arguments: str, cwd: Path | None = None) -> list[str]:
    """Return the command that a recipe prints."""
    finished = call(script, "--dry-run", *arguments, cwd=cwd)
    assert (finished.returncode, finished.stderr) == (0, "")
    return shlex.split(finished.stdout)


def parsed(phase: str, command: list[str]) -> Namespace:
    """Parse the options of a recipe's command. Fail if the program does not accept them."""
    _, program, *arguments = command
    assert Path(program).name == f"{phase}.py"
    try:
        return PARSERS[phase]().parse(arguments)
    except SystemExit as ending:
        pytest.fail(f"{shlex.join(command)} ends with status {ending.code}")


def test_every_recipe_is_tested() -> None:
    experiments = {experiment for experiment, _ in RECIPES}
    scripts = {path.name for phase in PARSERS for path in SCRIPTS.glob(f"{phase}_*.sh")}
    assert scripts == {f"{phase}_{experiment}.sh" for phase in PARSERS for experiment in experiments}


@pytest.mark.parametrize(("experiment", "method"), RECIPES)
def test_training_and_testing_agree(experiment: str, method: str) -> None:
    train, test = (parsed(phase, dry_run(f"{phase}_{experiment}.sh", method)) for phase in PARSERS)
    of_train, of_test = ({option: getattr(opt, option, None) for option in SHARED} for opt in (train, test))
    assert of_train == of_test
    assert train.direction == ("BtoA" if experiment == "cityscapes" else "AtoB")
    assert test.phase == ("train" if experiment == "grumpifycat" else "test")
    model, *epochs = METHODS.get(method, ("sincut", 8, 8))
    assert (train.model, train.n_epochs, train.n_epochs_decay) == (model, *epochs)


@pytest.mark.parametrize("phase", PARSERS)
def test_every_recipe_has_its_own_run_name(phase: str) -> None:
    names = [parsed(phase, dry_run(f"{phase}_{experiment}.sh", method)).name for experiment, method in RECIPES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("phase", PARSERS)
def test_cut_is_the_default_method(phase: str) -> None:
    script = f"{phase}_horse2zebra.sh"
    assert dry_run(script) == dry_run(script, "cut")
    assert dry_run(script, "--gpu_ids", "-1") == dry_run(script, "cut", "--gpu_ids", "-1")


@pytest.mark.parametrize("phase", PARSERS)
def test_the_command_line_overrides_the_recipe(phase: str) -> None:
    command = dry_run(f"{phase}_cityscapes.sh", "fastcut", "--name", "my 'own' run", "--direction", "AtoB", "--crop_size=64")
    opt = parsed(phase, command)
    assert (opt.name, opt.direction, opt.crop_size) == ("my 'own' run", "AtoB", 64)


def test_the_command_can_be_given_from_any_folder(tmp_path: Path) -> None:
    root = SCRIPTS.parent
    here, there = (parsed("test", dry_run("test_cat2dog.sh", cwd=folder)) for folder in (root, tmp_path))
    for option in ("dataroot", "checkpoints_dir", "results_dir"):
        assert Path(root, getattr(here, option)) == Path(getattr(there, option))
    assert dry_run("test_cat2dog.sh", cwd=tmp_path)[1] == str(root / "test.py")


@pytest.mark.parametrize("with_venv", [False, True])
def test_a_recipe_runs_its_command_with_the_projects_python(tmp_path: Path, with_venv: bool) -> None:
    project, places = tmp_path / "my project", tmp_path / "bin"
    shutil.copytree(SCRIPTS, project / "scripts")
    (project / "datasets" / "horse2zebra").mkdir(parents=True)
    (project / "train.py").write_text("import sys; print(*sys.argv[1:], sep='\\n'); sys.exit(7)")
    for python in [places / "python3", *([project / ".venv/bin/python"] if with_venv else [])]:
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {python.name}\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    script = project / "scripts" / "train_horse2zebra.sh"
    finished = call(script, "--suffix", "two words", cwd=tmp_path, PATH=f"{places}:{os.environ['PATH']}")
    assert (finished.returncode, finished.stderr) == (7, "")
    python, *arguments = finished.stdout.splitlines()
    assert python == ("python" if with_venv else "python3")
    assert arguments == [
        *("--dataroot", str(project / "datasets" / "horse2zebra"), "--name", "horse2zebra_CUT"),
        *("--checkpoints_dir", str(project / "checkpoints"), "--CUT_mode", "CUT", "--suffix", "two words"),
    ]


@pytest.mark.parametrize("experiment", dict.fromkeys(experiment for experiment, _ in RECIPES))
@pytest.mark.parametrize("phase", PARSERS)
def test_a_missing_dataset_is_reported_in_one_line(tmp_path: Path, phase: str, experiment: str) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    finished = call(tmp_path / "scripts" / f"{phase}_{experiment}.sh", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ./datasets/")
    assert ": no such folder. " in line
    named = [word for word in line.replace(",", " ").replace(")", " ").split() if word.endswith((".sh", ".py", ".md"))]
    assert named
    assert all((SCRIPTS.parent / name).is_file() for name in named)


def test_the_folder_of_another_dataroot_is_not_checked(tmp_path: Path) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "train.py").write_text("")
    for own in (["--dataroot", "elsewhere"], ["--dataroot=elsewhere"]):
        assert call(tmp_path / "scripts" / "train_cityscapes.sh", *own).returncode == 0


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_unknown_method_is_reported_in_one_line(dry: list[str]) -> None:
    finished = call("train_horse2zebra.sh", "sincut", *dry)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: sincut: not a method for horse2zebra. Use one of: cut fastcut cyclegan\n"


@pytest.mark.parametrize("arguments", [[], ["train"], ["nonsense", "horse2zebra"]])
def test_recipe_sh_is_not_for_direct_use(arguments: list[str]) -> None:
    finished = call("recipe.sh", *arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith(
        "error: recipe.sh: not for direct use. Run a script of an experiment: bash scripts/train_"
    )


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("phase", PARSERS)
def test_help_names_the_methods(phase: str, flag: str) -> None:
    finished = call(f"{phase}_grumpifycat.sh", "fastcut", flag)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"usage: bash scripts/{phase}_grumpifycat.sh [cut|fastcut|cyclegan] ")


@pytest.mark.parametrize("script", ["quickstart.sh", "setup.sh", "test.sh"])
def test_help_of_the_long_scripts_starts_nothing(script: str) -> None:
    finished = call(script, "--help", PYTHON="/nowhere")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "scripts/" in finished.stdout and "set -euo" not in finished.stdout and "#" not in finished.stdout


def test_the_published_launcher_names_the_scripts() -> None:
    line = [sys.executable, "-m", "experiments", "grumpifycat", "train", "0"]
    finished = subprocess.run(line, cwd=SCRIPTS.parent, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (2, "")
    named = re.findall(r"scripts/\w+\.sh", finished.stderr)
    assert named == ["scripts/train_grumpifycat.sh"] and (SCRIPTS.parent / named[0]).is_file()
