"""--continue_train: a run that was interrupted ends, bit for bit, as one that was not."""

import signal
from pathlib import Path

import pytest
from pictures import two_domains
from training_processes import kill, same_end

TINY = ["--ngf", "2", "--ndf", "2", "--load_size", "36", "--crop_size", "32", "--print_freq", "1", "--no_html"]
RESNET = ["--netG", "resnet_4blocks"]
PATCHES = ["--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]
MODELS = {
    "cut": [*RESNET, *PATCHES, "--batch_size", "2", "--no_dropout", "no"],
    "fastcut": ["--CUT_mode", "FastCUT", *RESNET, *PATCHES],
    "cycle_gan": ["--model", "cycle_gan", *RESNET, "--pool_size", "2"],
    "sincut": ["--model", "sincut", "--netF_nc", "4", "--load_size", "56", "--batch_size", "2", "--max_dataset_size", "6"],
}
TWO_EPOCHS = ["--n_epochs", "1", "--n_epochs_decay", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    two_domains(folder / "many", n_A=5, n_B=3, size=(40, 32))
    two_domains(folder / "one", n_A=1, n_B=1, size=(56, 40))
    return folder


def arguments(model: str, name: str) -> list[str]:
    dataroot = "one" if model == "sincut" else "many"
    return ["--dataroot", dataroot, "--name", name, *TINY, *TWO_EPOCHS, *MODELS[model]]


CASES = [(model, "0") for model in MODELS] + [("cut", "4")]
SLOW_CASES = [(model, "4") for model in MODELS if model != "cut"]


@pytest.mark.parametrize(
    ("model", "num_threads"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)]
)
def test_an_interrupted_run_ends_as_one_that_was_not(folder: Path, train, model: str, num_threads: str) -> None:
    whole, parts = (f"{model}_{num_threads}_{end}" for end in ("whole", "parts"))
    assert train(folder, *arguments(model, whole), "--num_threads", num_threads).status == 0

    going_on = [*arguments(model, parts), "--num_threads", num_threads, "--save_latest_freq", "2"]
    assert train(folder, *going_on, meanwhile=kill(signal.SIGTERM, after=1)).status in (143, 0)
    going_on.append("--continue_train")
    assert train(folder, *going_on, meanwhile=kill(signal.SIGKILL, after=3)).status in (-9, 0)
    assert train(folder, *going_on).status == 0
    assert same_end(folder, whole, parts)
