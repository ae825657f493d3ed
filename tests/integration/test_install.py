"""Use outside the project's folder: the installed package with its commands, and torch.hub."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from generators import checkpoint
from image_factory import fill, two_domains
from programs import ENVIRONMENT, ROOT
from training_processes import RUN

PROGRAMS = ("train", "test", "translate", "evaluate", "compare", "plot-runs", "export", "app")
COMMANDS = [f"cut-{program}" for program in PROGRAMS]
OTHERS = ("data", "datasets", "models", "options", "util")  # packages of other people with the names of our folders
LOAD_INSTALLED = """
import data, datasets, models, options, util
before = dict(sys.modules)
from cut_translation import Translator
translator = Translator(sys.argv[1], device="cpu")
"""
LOAD_FROM_HUB = """
import datasets
translator = torch.hub.load(sys.argv[2], "translator", checkpoint=sys.argv[1], source="local", gpu_ids="-1")
"""
TRANSLATE = """
assert translator(torch.zeros(1, 3, 12, 16)).shape == (1, 3, 12, 16)
assert datasets.owner == "somebody else"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the project installed, beside packages of other people with the same names."""
    folder = tmp_path_factory.mktemp("environment")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "docs", "checkpoints", "results", "build"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch, and setuptools to build with
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--no-index", source], check=True)
    shutil.rmtree(source)
    for name in OTHERS:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("owner = 'somebody else'\n")
    return folder / "venv"


def run_python(python: Path | str, code: str, folder: Path, *arguments: str) -> None:
    line = [python, "-c", f"import sys\nimport torch\n{code}", *arguments]
    finished = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_installed_package_leaves_other_packages_alone(environment: Path, tmp_path: Path) -> None:
    weights = str(checkpoint(tmp_path / "run"))
    unchanged = "assert all(sys.modules[name] is module for name, module in before.items())"
    ours = f"assert all(sys.modules[name].owner == 'somebody else' for name in {OTHERS})"
    run_python(environment / "bin" / "python", "\n".join([LOAD_INSTALLED, TRANSLATE, unchanged, ours]), tmp_path, weights)


def test_the_commands_train_and_translate_in_any_folder(environment: Path, tmp_path: Path) -> None:
    two_domains(tmp_path / "data", n_A=2, n_B=2, size=(40, 32))
    fill(tmp_path / "photos", 2)

    def call(command: str, *arguments: str) -> str:
        line = [environment / "bin" / command, *arguments]
        finished = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout

    call("cut-train", *RUN, "--n_epochs", "1", "--n_epochs_decay", "0", "--name", "run", "--gpu_ids", "-1")
    assert "results/run" in call("cut-test", "--name", "run", "--phase", "train", "--gpu_ids", "-1")
    call("cut-translate", "--checkpoint", "checkpoints/run", "--input", "photos", "--output", "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00.png", "01.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_starts(environment: Path, tmp_path: Path, command: str) -> None:
    line = [environment / "bin" / command, "--bogus"]
    finished = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("error: ") and finished.stderr.endswith(f"(see {command} --help)\n")


def test_a_translator_is_loaded_by_torch_hub(environment: Path, tmp_path: Path) -> None:
    weights = str(checkpoint(tmp_path / "run"))
    run_python(environment / "bin" / "python", LOAD_FROM_HUB + TRANSLATE, tmp_path, weights, str(ROOT))


def test_torch_hub_refuses_a_process_with_another_models_package(environment: Path, tmp_path: Path) -> None:
    code = "import models\ntry:\n" + "".join(f"    {line}\n" for line in LOAD_FROM_HUB.strip().splitlines())
    code += "except ImportError as error:\n    assert 'another package named models' in str(error)\nelse:\n    sys.exit(1)\n"
    run_python(environment / "bin" / "python", code, tmp_path, "run", str(ROOT))


def test_the_build_finds_every_import_of_the_project() -> None:
    """The build adapts lines that begin with `from models`, not `import models`."""
    for folder in ("data", "models", "options", "util", "cut_translation"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = [line.split() for line in path.read_text().splitlines()]
            assert not [words for words in lines if words[:1] == ["import"] and words[1].split(".")[0] in OTHERS], path
