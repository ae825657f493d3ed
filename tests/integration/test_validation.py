"""A run that is judged while it trains: its figures, its best weights, the average of its generator, and that training does
not notice any of it."""

import filecmp
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from image_factory import fill, two_domains
from PIL import Image
from torch import nn
from training_processes import Ended, TrainingProcesses

from data.eval_data import EvalDataset
from models import create_model
from options import TestOptions, TrainOptions
from scripts.evaluate import evaluate, parse
from test import test as translate
from util.errors import UserError
from util.metrics.evaluator import MetricEvaluator
from util.metrics.validation import Validator
from util.runtime.checkpoint import FILE_NAME
from util.visualizer import Visualizer

# Batch norm and dropout: what a pass of the training's own networks would leave traces in.
NETWORKS = ["--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2", "--normG", "batch", "--no_dropout", "no"]
CUT = [*NETWORKS, "--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]
SIZES = ["--load_size", "36", "--crop_size", "32"]
TRAINING = ["--dataroot", "data", "--print_freq", "1", "--no_html", "--n_epochs", "1", "--n_epochs_decay", "2"]
FIGURES = ["--paired", "--features", "thumbnail.pt2", "--evaluation_freq", "4"]


class Thumbnail(nn.Module):
    """A feature network small enough for tests."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def train() -> Iterator[Callable[..., Ended]]:
    """Runs train.py in a process of its own."""
    processes = TrainingProcesses()
    yield processes.run
    processes.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with pairs to test on, and a feature network."""
    folder = tmp_path_factory.mktemp("judged")
    two_domains(folder / "data", n_A=5, n_B=3, size=(40, 32))
    two_domains(folder / "data", "test", n_A=6, n_B=8, size=(40, 32))
    auto = torch.export.Dim.AUTO
    example = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    program = torch.export.export(Thumbnail(), (example,), dynamic_shapes={"pictures": {0: auto, 2: auto, 3: auto}})
    torch.export.save(program, folder / "thumbnail.pt2")
    return folder


@pytest.fixture(scope="module")
def judged(folder: Path, train) -> tuple[Path, str]:
    """The folder of a run that was judged every four of its fifteen images, and what it printed."""
    ended = train(folder, *TRAINING, *CUT, *SIZES, *FIGURES, "--name", "judged", "--ema", "0.8")
    assert (ended.status, ended.complained) == (0, "")
    return folder / "checkpoints" / "judged", ended.told


def evaluations(run_dir: Path) -> list[dict]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if "evaluation" in record]


def test_a_run_is_judged_in_its_course_and_at_its_end(judged: tuple[Path, str]) -> None:
    run_dir, told = judged
    records = evaluations(run_dir)
    assert [record["images"] for record in records] == [4, 8, 12, 15]
    names = ["FID (thumbnail)", "KID (thumbnail)", "precision (thumbnail)", "recall (thumbnail)", "PSNR", "SSIM"]
    assert list(records[0]["evaluation"]) == [*names, *(f"{name} of G_ema" for name in names)]
    first = records[0]["taken_with"][0]
    assert {name: first[name] for name in ("judged", "name", "split", "pictures", "real_pictures", "seed")} == {
        "judged": "G",
        "name": "FID (thumbnail)",
        "split": "testA to testB",
        "pictures": 6,
        "real_pictures": 8,
        "seed": 0,
    }
    assert len(first["weights_sha256"]) == 64
    assert told.count("evaluation of G after 15 images, testA to testB: FID (thumbnail) ") == 1


def test_the_end_of_a_run_tells_last_and_best(judged: tuple[Path, str]) -> None:
    run_dir, told = judged
    for title, of in (("G", ""), ("G_ema", " of G_ema")):
        curve = [record["evaluation"][f"FID (thumbnail){of}"] for record in evaluations(run_dir)]
        best = min(range(4), key=curve.__getitem__)
        line = next(line for line in told.splitlines() if line.startswith(f"FID (thumbnail) of {title} on testA to testB:"))
        assert f"last {curve[-1]:.4g} (epoch 3), best {curve[best]:.4g} (epoch {[1, 2, 3, 3][best]}, " in line
        assert line.endswith(f"images: best_net_{'*' if title == 'G' else title}.pth)")


def result_figures(folder: Path, name: str, *options: str) -> dict[str, float]:
    """What evaluate.py finds in the images that test.py makes with the weights of a run."""
    where = ["--checkpoints_dir", str(folder / "checkpoints"), "--results_dir", str(folder / "results"), "--name", name]
    architecture = [*CUT[:10], *SIZES, "--load_size", "32", "--gpu_ids", "-1"]
    opt = TestOptions().parse([*where, "--dataroot", str(folder / "data"), "--model", "cut", *architecture, *options])
    torch.manual_seed(0)  # as an evaluation begins: dropout is on in tests as well, as published
    translate(opt)
    page = next((folder / "results" / name).iterdir())
    asked = ["--paired", "--features", str(folder / "thumbnail.pt2"), "--gpu_ids", "-1"]
    evaluate(parse(["--results", str(page), "--dataroot", str(folder / "data"), *asked]))
    record = json.loads((page / "evaluation.json").read_text())
    shutil.rmtree(folder / "results")
    return {figure["name"]: figure["value"] for figure in record[-1]["figures"]}


@pytest.mark.parametrize(
    ("options", "of"),
    [([], ""), (["--ema"], " of G_ema"), (["--epoch", "best"], ""), (["--epoch", "best", "--ema"], " of G_ema")],
)
def test_figures_are_those_of_the_tested_weights(
    folder: Path, judged: tuple[Path, str], options: list[str], of: str
) -> None:
    """To the last digit: what training judges is what test.py saves and evaluate.py reads; last and best, G and average."""
    records = [record["evaluation"] for record in evaluations(judged[0])]
    expected = min(records, key=lambda figures: figures[f"FID (thumbnail){of}"]) if "best" in options else records[-1]
    found = result_figures(folder, "judged", *options)
    assert found == {name: expected[name + of] for name in found}


def same_files(one: Path, other: Path, names: list[str]) -> bool:
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_training_does_not_notice(folder: Path, judged: tuple[Path, str], train) -> None:
    """The weights are, byte for byte, those of a run that was neither judged nor averaged."""
    assert train(folder, *TRAINING, *CUT, *SIZES, "--name", "alone").status == 0
    alone = folder / "checkpoints" / "alone"
    assert sorted(path.name for path in alone.glob("*.pth")) == [f"latest_net_{name}.pth" for name in "DFG"]
    assert evaluations(alone) == []
    assert same_files(alone, judged[0], [f"latest_net_{name}.pth" for name in "DFG"])


def test_a_run_that_is_stopped_and_goes_on_ends_with_the_same_average_and_best(
    folder: Path, judged: tuple[Path, str], train
) -> None:
    def stop_in_second_epoch(pid: int, output: Path) -> None:
        while not output.exists() or output.read_text().count("\n(epoch: ") < 7:
            time.sleep(0.01)
        os.kill(pid, signal.SIGTERM)

    arguments = [*TRAINING, *CUT, *SIZES, *FIGURES, "--name", "parts", "--ema", "0.8"]
    assert train(folder, *arguments, meanwhile=stop_in_second_epoch).status == 143
    ended = train(folder, *arguments, "--continue_train")
    assert ended.status == 0, ended
    files = sorted(path.name for path in judged[0].glob("*.pth"))
    assert files == [f"{label}_net_{name}.pth" for label in ("best", "latest") for name in ("D", "F", "G", "G_ema")]
    assert same_files(judged[0], folder / "checkpoints" / "parts", [*files, FILE_NAME])
    assert evaluations(folder / "checkpoints" / "parts") == evaluations(judged[0])


def test_batches_that_wait_for_others_of_their_step_are_no_steps(folder: Path, train) -> None:
    """--accumulate: with two steps of two batches, the average is the first step's weights, moved once."""
    two_steps = ["--n_epochs", "1", "--n_epochs_decay", "0", "--normG", "instance", "--no_dropout", "--accumulate", "2"]
    arguments = [*TRAINING, *CUT, *SIZES, *two_steps, "--name", "waiting", "--save_latest_freq", "2", "--save_by_iter"]
    assert train(folder, *arguments, "--ema", "0.8") == (0, ANY, "")
    first, second, average = (
        torch.load(folder / "checkpoints" / "waiting" / f"{name}.pth", weights_only=True)["model.1.weight"]
        for name in ("iter_2_net_G", "iter_4_net_G", "iter_4_net_G_ema")
    )
    assert not torch.equal(first, second)
    torch.testing.assert_close(average, torch.lerp(first, second, 0.2))


def test_absent_weights_cost_their_figures_and_one_sentence(folder: Path, train) -> None:
    one_epoch = ["--n_epochs", "1", "--n_epochs_decay", "0"]
    ended = train(folder, *TRAINING, *CUT, *SIZES, *one_epoch, "--name", "absent", "--inception", "nowhere.pth", "--paired")
    assert (ended.status, ended.complained) == (0, "")
    assert ended.told.count("note: there is no file nowhere.pth; training goes on without") == 1
    assert [list(record["evaluation"]) for record in evaluations(folder / "checkpoints" / "absent")] == [["PSNR", "SSIM"]]


def test_what_can_be_known_at_the_start_is_refused_at_the_start(folder: Path, train) -> None:
    ended = train(folder, *TRAINING, *CUT, *SIZES, "--name", "refused", "--paired", "--evaluation_phase", "exam")
    assert ended.status == 2
    assert re.fullmatch(r"error: \S*examA is not a folder.*\n", ended.complained)
    assert not (folder / "checkpoints" / "refused").exists()


def options_of(folder: Path, *arguments: str) -> list[str]:
    return ["--dataroot", str(folder / "data"), "--gpu_ids", "-1", *NETWORKS[:6], *SIZES, *arguments]


def test_what_fails_later_ends_the_judging_alone(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_domains(tmp_path / "data", "test", n_A=5, n_B=4, size=(32, 32))
    opt = TrainOptions().parse(["--dataroot", str(data), *options_of(folder)[2:]])
    judge = MetricEvaluator([], paired=True, perceptual=None, seed=0)
    generator = nn.Identity()
    evaluation = Validator(judge, EvalDataset(opt), {"G": generator}, lambda name: None, torch.device("cpu"))
    with Visualizer(tmp_path, "run", 1, 1, 5, web_page=False, live_view=NoView()) as report:
        evaluation.at(1, 4, report)
        evaluation.at(1, 8, report)
    told = capsys.readouterr().out
    assert told.count("note: the run cannot be judged, training goes on without: ") == 1
    assert "has no image named 04" in told


class NoView:
    def start(self, say: Callable[[str], None]) -> None: ...
    def close(self) -> None: ...


def test_pairs_side_by_side_in_one_file_are_judged_by_their_halves(tmp_path: Path) -> None:
    fill(tmp_path / "test", 4, (64, 32))
    for direction, left in (("AtoB", slice(32, 64)), ("BtoA", slice(0, 32))):
        opt = TrainOptions().parse(
            options_of(tmp_path, "--dataroot", str(tmp_path), "--dataset_mode", "aligned", "--direction", direction)
        )
        images = EvalDataset(opt)
        names = [name for _, name in images.inputs()]
        assert names == ["00", "01", "02", "03"]
        with Image.open(tmp_path / "test" / "02.png") as whole:
            half = np.asarray(whole)[:, left]
        assert np.array_equal(list(images.targets(names, None))[2], half)


def test_a_single_pair_has_nothing_to_be_judged_on(folder: Path) -> None:
    opt = TrainOptions().parse(["--dataroot", str(folder / "data"), "--model", "sincut"])
    with pytest.raises(UserError, match="single pair of images cannot be evaluated"):
        EvalDataset(opt)


def test_averages_of_both_generators_of_cycle_gan_are_saved_and_tested(folder: Path, tmp_path: Path) -> None:
    arguments = options_of(folder, "--checkpoints_dir", str(tmp_path), "--name", "cycle", "--model", "cycle_gan")
    model = create_model(TrainOptions().parse([*arguments, "--ema", "0.5"]))
    model.averages.update()
    for network in model.networks.values():
        for parameter in network.parameters():
            parameter.data.add_(1)
    model.averages.update()
    model.save_networks("latest")
    assert {path.name for path in tmp_path.glob("cycle/*G*")} == {
        f"latest_net_{name}.pth" for name in ("G_A", "G_B", "G_A_ema", "G_B_ema")
    }
    newest = torch.load(tmp_path / "cycle" / "latest_net_G_B.pth", weights_only=True)
    for chosen, name in ((["--ema"], "G_B"), (["--model", "test", "--model_suffix", "_B_ema"], "G_B_ema")):
        tested = create_model(TestOptions().parse([*arguments, *chosen]))
        tested.load_networks("latest")
        for key, weight in tested.networks[name].state_dict().items():
            if key.endswith(("weight", "bias")):
                torch.testing.assert_close(weight, newest[key] - 0.5)
