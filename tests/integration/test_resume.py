"""--continue_train: a run that was interrupted ends, bit for bit, as one that was not."""

import json
import signal
from pathlib import Path

import pytest
from image_factory import noise, two_domains
from programs import succeed
from tiny_models import CUT, CYCLE_GAN, SINCUT, assert_same, checkpointer, double_model, take_step
from training_processes import STATE, kill, same_end

TINY = ["--ngf", "2", "--ndf", "2", "--load_size", "36", "--crop_size", "32", "--print_freq", "1", "--no_html"]
RESNET = ["--netG", "resnet_4blocks"]
PATCHES = ["--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]
MODELS = {
    "cut": [*RESNET, *PATCHES, "--batch_size", "2", "--no_dropout", "no"],
    "fastcut": ["--CUT_mode", "FastCUT", *RESNET, *PATCHES],
    "steps_per_epoch": [*RESNET, *PATCHES, "--batch_size", "2", "--steps_per_epoch", "3"],  # more than the five images
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


OTHERWISE = {
    "fastcut": ["--direction", "BtoA", "--lr_policy", "cosine", "--max_dataset_size", "3", "--no_flip", "--ema", "0.9"],
    "sincut": ["--lambda_R1", "2", "--singleimage_published_sampling", "--seed", "5"],
}


@pytest.mark.parametrize("model", OTHERWISE)
def test_a_run_is_resumed_by_its_name_alone(folder: Path, train, model: str) -> None:
    whole, parts = f"{model}_named_whole", f"{model}_named_parts"
    assert train(folder, *arguments(model, whole), *OTHERWISE[model]).status == 0
    started = [*arguments(model, parts), *OTHERWISE[model]]
    assert train(folder, *started, meanwhile=kill(signal.SIGTERM, after=1)).status == 143
    resumed = train(folder, "--continue_train", "--name", parts)
    assert (resumed.status, resumed.complained) == (0, "")
    assert "note: --" not in resumed.told
    assert same_end(folder, whole, parts)


def test_own_folders_are_resumed_and_tested_by_name(folder: Path, tmp_path: Path, train) -> None:
    domains = two_domains(tmp_path / "many", n_A=5, n_B=3, size=(40, 32))
    (domains / "trainA").rename(tmp_path / "photos")
    (domains / "trainB").rename(tmp_path / "art")
    two_domains(tmp_path / "many", n_A=5, n_B=3, size=(40, 32))
    whole, parts = arguments("fastcut", "whole"), arguments("fastcut", "parts")
    parts[:2] = ["--dataroot_A", "photos", "--dataroot_B", "art"]
    assert train(tmp_path, *whole).status == 0
    assert train(tmp_path, *parts, meanwhile=kill(signal.SIGTERM, after=1)).status == 143
    assert train(tmp_path, "--continue_train", "--name", "parts").status == 0
    weights = [(tmp_path / "checkpoints" / name / "latest_net_G.pth").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    told = succeed(tmp_path, "test.py", "--name", "parts")
    assert "5 of 5 images" in told
    page = tmp_path / "results" / "parts" / "photos_latest"
    assert json.loads((page / "page.json").read_text())["target"] == str(tmp_path / "art")


def test_what_is_typed_anew_is_printed_and_replaces_the_saved_option(folder: Path, train) -> None:
    assert train(folder, *arguments("fastcut", "longer")).status == 0
    resumed = train(folder, "--continue_train", "--name", "longer", "--n_epochs_decay", "2", "--lambda_NCE", "5")
    assert resumed.status == 0
    assert "note: --lambda_NCE is 5.0, was 10.0\nnote: --n_epochs_decay is 2, was 1\n" in resumed.told
    assert "End of epoch 3 / 3" in resumed.told
    again = train(folder, "--continue_train", "--name", "longer")
    assert (again.status, "note: --" in again.told) == (0, False)
    assert "nothing left to train: the last epoch is 3." in again.told


@pytest.mark.parametrize("shorter", [["--steps_per_epoch", "1"], ["--max_dataset_size", "1"]])
def test_an_epoch_that_became_shorter_than_what_is_done_ends_at_once(folder: Path, train, shorter: list[str]) -> None:
    name = f"shorter_{shorter[0]}"
    long = ["--n_epochs", "2", "--max_dataset_size", "5"]
    stopped = train(folder, *arguments("fastcut", name), *long, meanwhile=kill(signal.SIGTERM, after=2))
    assert stopped.status == 143
    resumed = train(folder, "--continue_train", "--name", name, *shorter)
    assert (resumed.status, resumed.complained) == (0, "")
    assert "End of epoch 1 / 3" in resumed.told and "End of epoch 3 / 3" in resumed.told


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (
            ["--preprocess", "scale_width_and_crop", "--load_size", "64"],
            "resized to a width of 32, cropped to 32x32, as published. To keep their scale, resize them beforehand",
        ),
        (
            ["--preprocess", "resize", "--load_size", "28"],
            "resized to 32x32, as published. To keep their scale, use --crop_size 28.",
        ),
        (["--preprocess", "scale_width_and_crop", "--load_size", "36"], None),  # room for random crops
        (["--preprocess", "scale_shortside_and_crop", "--load_size", "64"], None),  # only small images are resized
        (["--preprocess", "crop", "--load_size", "64"], None),
        (["--preprocess", "resize_and_crop", "--load_size", "64", "--n_epochs_decay", "0"], None),
    ],
)
def test_a_scale_that_changes_during_the_decay_is_noted(folder: Path, train, options: list[str], noted: str | None) -> None:
    ended = train(folder, *arguments("fastcut", "scales"), "--max_dataset_size", "1", "--overwrite", *options)
    told = " ".join(ended.told.split())
    assert ended.status == 0
    assert (f"note: from epoch 2 on, images are {noted}" in told) if noted else "from epoch" not in told


def test_a_missing_name_is_noted(tmp_path: Path, train) -> None:
    two_domains(tmp_path / "many", n_A=1, n_B=1, size=(40, 32))
    unnamed = arguments("fastcut", "")
    del unnamed[2:4]
    ended = train(tmp_path, *unnamed)
    assert (ended.status, "run:      experiment_name (the default of --name): FastCUT" in ended.told) == (0, True)


def test_with_pretrained_weights_no_option_is_restored(folder: Path, train) -> None:
    assert train(folder, *arguments("fastcut", "source")).status == 0
    refused = train(folder, "--continue_train", "--name", "source", "--pretrained_name", "source")
    assert refused.status == 2
    assert refused.complained.startswith("error: --dataroot: missing.")


@pytest.mark.parametrize("method", [CUT, SINCUT, CYCLE_GAN])
@pytest.mark.parametrize("layouts", [("", "--channels_last"), ("--channels_last", "")], ids=str)
def test_a_run_is_resumed_in_another_memory_layout(tmp_path: Path, method: str, layouts: tuple[str, str]) -> None:
    """In float64. The last step's gradients depend on the update before, which needs the moments of the saved run."""
    saved, resumed = (double_model(f"{method} {flag}", checkpoints_dir=tmp_path, name="run") for flag in layouts)
    plain = double_model(method)
    for seed in range(2):
        for model in (plain, saved):
            take_step(model, seed=seed)
    checkpointer(saved).save("latest")
    assert checkpointer(resumed).resume()
    for seed in range(2, 4):
        for model in (plain, resumed):
            take_step(model, seed=seed)
    assert_same(resumed, plain)
    for optimizer in resumed.optimizers.values():
        for parameter, state in optimizer.state.items():
            assert {state[name].stride() for name in ("exp_avg", "exp_avg_sq")} == {parameter.stride()}


def test_a_run_goes_on_with_the_images_that_it_began_with(tmp_path: Path, train) -> None:
    data = two_domains(tmp_path / "many", n_A=5, n_B=3, size=(40, 32))
    going_on = [*arguments("fastcut", "grown"), "--save_latest_freq", "2"]
    assert train(tmp_path, *arguments("fastcut", "still")).status == 0
    assert train(tmp_path, *going_on, meanwhile=kill(signal.SIGTERM, after=1)).status == 143
    noise(40, 32).save(data / "trainA" / "0 a newcomer.png")
    (data / "trainB" / "another \udcff.png").write_bytes(b"no image")
    ended = train(tmp_path, *going_on, "--continue_train")
    assert ended.status == 0
    assert (
        "note: dataset changed since the run started (2 added, 0 removed); continuing with the original file list\n"
        in ended.told
    )
    assert "note: to train on the 2 added images as well, add --epoch_count with the next epoch." in ended.told
    assert same_end(tmp_path, "still", "grown")
    again = train(tmp_path, *going_on, "--continue_train", "--epoch_count", "2", "--n_epochs_decay", "2")
    assert again.status == 0 and "6 training images per epoch" in again.told


@pytest.mark.slow
def test_other_images_are_not_mistaken_for_those_of_the_run(folder: Path, tmp_path: Path, train) -> None:
    going_on = [*arguments("cut", "moved"), "--continue_train"]
    assert train(folder, *arguments("cut", "moved"), "--n_epochs_decay", "0").status == 0
    data = two_domains(tmp_path / "other", n_A=6, n_B=2, size=(40, 32))
    for path in data.rglob("*.png"):
        path.rename(path.with_name(f"other {path.name}"))
    ended = train(folder, *going_on, "--dataroot", str(data))
    assert (ended.status, "since the run began" in ended.told) == (0, False)
    assert "6 training images per epoch" in ended.told


@pytest.mark.parametrize(
    "explicit",
    [
        ["--epoch_count", "2"],
        pytest.param(["--epoch", "1"], marks=pytest.mark.slow),
        pytest.param(["--pretrained_name", "first", "--name", "second"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_another_beginning_that_is_asked_for_is_made(folder: Path, train, explicit: list[str]) -> None:
    run = [*arguments("fastcut", "first"), "--save_epoch_freq", "1"]
    assert train(folder, *run, "--overwrite").status == 0
    ended = train(folder, *run, "--continue_train", *explicit)
    assert ended.status == 0
    assert "; the optimizers start from zero\n" in ended.told
    epochs = {line.partition(",")[0] for line in ended.told.splitlines() if line.startswith("(epoch: ")}
    assert epochs == ({"(epoch: 2"} if "--epoch_count" in explicit else {"(epoch: 1", "(epoch: 2"})


def test_weights_without_a_state_are_started_from(folder: Path, train) -> None:
    run = arguments("fastcut", "published")
    assert train(folder, *run).status == 0
    (folder / "checkpoints" / "published" / STATE).unlink()
    ended = train(folder, *run, "--continue_train")
    assert ended.status == 0
    assert "loaded the weights of published, latest; the optimizers start from zero\n" in ended.told


def test_weights_that_somebody_put_there_are_not_passed_over(folder: Path, train) -> None:
    assert train(folder, *arguments("fastcut", "given")).status == 0
    assert train(folder, *arguments("fastcut", "taken"), "--seed", "1").status == 0
    weights = folder / "checkpoints" / "given" / "latest_net_G.pth"
    weights.write_bytes((folder / "checkpoints" / "taken" / "latest_net_G.pth").read_bytes())
    ended = train(folder, *arguments("fastcut", "given"), "--continue_train")
    assert ended.status == 2
    assert ended.complained.startswith("error: checkpoints/given/latest_net_G.pth: not the file that the run saved together")


def test_no_line_of_the_log_is_written_twice(folder: Path, train) -> None:
    run = [*arguments("fastcut", "logged"), "--save_latest_freq", "4"]
    assert train(folder, *run, meanwhile=kill(signal.SIGKILL, after=6)).status in (-9, 0)
    assert train(folder, *run, "--continue_train").status == 0
    lines = (folder / "checkpoints" / "logged" / "loss_log.txt").read_text().splitlines()
    places = [line.partition(", time")[0] for line in lines if line.startswith("(")]
    assert places == [f"(epoch: {epoch}, iters: {images}" for epoch in (1, 2) for images in range(1, 6)]
