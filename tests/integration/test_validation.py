"""Evaluation during training: metrics, best weights, EMA of the generator, and that training is unaffected."""

import filecmp
import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import ANY, Mock

import numpy as np
import pytest
import torch
from image_factory import fill, two_domains
from PIL import Image
from torch import nn
from training_processes import Ended, TrainingProcesses

from data.eval_data import EvalDataset
from models import create_model, evaluation
from options import TestOptions, TrainOptions
from options.metric_options import metric_config
from scripts.evaluate import evaluate, parse
from test import test as translate
from util.errors import UserError
from util.loggers.base import LoggerGroup
from util.metrics.base import EvalImages, Measurement, MetricResult, MetricSpec
from util.metrics.evaluator import METRICS, MetricEvaluator, create_evaluator
from util.metrics.validation import Validator
from util.runtime.checkpoint import STATE_FILE
from util.visualizer import Visualizer

# Batch norm and dropout: a forward pass of the training networks would change their state.
NETWORKS = ["--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2", "--normG", "batch", "--no_dropout", "no"]
CUT = [*NETWORKS, "--netF_nc", "4", "--num_patches", "8", "--nce_layers", "0,4,8"]
SIZES = ["--load_size", "36", "--crop_size", "32"]
TRAINING = ["--dataroot", "data", "--print_freq", "1", "--no_html", "--n_epochs", "1", "--n_epochs_decay", "2"]
METRIC_OPTIONS = ["--paired", "--features", "thumbnail.pt2", "--evaluation_freq", "4"]


class Thumbnail(nn.Module):
    """A feature network small enough for tests."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def train() -> Iterator[Callable[..., Ended]]:
    """Run train.py in a separate process."""
    processes = TrainingProcesses()
    yield processes.run
    processes.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a dataset with pairs to test on, and a feature network."""
    folder = tmp_path_factory.mktemp("evaluated")
    two_domains(folder / "data", n_A=5, n_B=3, size=(40, 32))
    two_domains(folder / "data", "test", n_A=6, n_B=8, size=(40, 32))
    auto = torch.export.Dim.AUTO
    example = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    program = torch.export.export(Thumbnail(), (example,), dynamic_shapes={"images": {0: auto, 2: auto, 3: auto}})
    torch.export.save(program, folder / "thumbnail.pt2")
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path, train) -> tuple[Path, str]:
    """Train with an evaluation every four of fifteen images. Return the run's folder and its output."""
    ended = train(folder, *TRAINING, *CUT, *SIZES, *METRIC_OPTIONS, "--name", "evaluated", "--ema", "0.8")
    assert (ended.status, ended.complained) == (0, "")
    return folder / "checkpoints" / "evaluated", ended.told


def evaluations(run_dir: Path) -> list[dict]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "evaluation" in row]


def test_a_run_is_evaluated_regularly_and_at_its_end(evaluated: tuple[Path, str]) -> None:
    run_dir, printed = evaluated
    rows = evaluations(run_dir)
    assert [row["images"] for row in rows] == [4, 8, 12, 15]
    names = ["FID (thumbnail)", "KID (thumbnail)", "precision (thumbnail)", "recall (thumbnail)", "PSNR", "SSIM"]
    assert list(rows[0]["evaluation"]) == [*names, *(f"{name} of G_ema" for name in names)]
    first = rows[0]["taken_with"][0]
    assert {name: first[name] for name in ("judged", "name", "split", "pictures", "real_pictures", "seed")} == {
        "judged": "G",
        "name": "FID (thumbnail)",
        "split": "testA to testB",
        "pictures": 6,
        "real_pictures": 8,
        "seed": 0,
    }
    assert len(first["weights_sha256"]) == 64
    assert printed.count("evaluation of G after 15 images, testA to testB: FID (thumbnail) ") == 1


def test_the_end_of_a_run_prints_last_and_best_values(evaluated: tuple[Path, str]) -> None:
    run_dir, printed = evaluated
    for title, of in (("G", ""), ("G_ema", " of G_ema")):
        curve = [row["evaluation"][f"FID (thumbnail){of}"] for row in evaluations(run_dir)]
        best = min(range(4), key=curve.__getitem__)
        line = next(
            line for line in printed.splitlines() if line.startswith(f"FID (thumbnail) of {title} on testA to testB:")
        )
        assert f"last {curve[-1]:.4g} (epoch 3), best {curve[best]:.4g} (epoch {[1, 2, 3, 3][best]}, " in line
        assert line.endswith(f"images: best_net_{'*' if title == 'G' else title}.pth)")


def metrics_of_results(folder: Path, name: str, *options: str) -> dict[str, float]:
    """Return the metrics that evaluate.py computes of the images that test.py writes for a run."""
    where = ["--checkpoints_dir", str(folder / "checkpoints"), "--results_dir", str(folder / "results"), "--name", name]
    architecture = [*CUT[:10], *SIZES, "--load_size", "32", "--gpu_ids", "-1"]
    opt = TestOptions().parse([*where, "--dataroot", str(folder / "data"), "--model", "cut", *architecture, *options])
    torch.manual_seed(0)  # as an evaluation starts: dropout is also on in tests, as published
    translate(opt)
    page = next((folder / "results" / name).iterdir())
    metrics = ["--paired", "--features", str(folder / "thumbnail.pt2"), "--gpu_ids", "-1"]
    evaluate(parse(["--results", str(page), "--dataroot", str(folder / "data"), *metrics]))
    entries = json.loads((page / "evaluation.json").read_text())
    shutil.rmtree(folder / "results")
    return {figure["name"]: figure["value"] for figure in entries[-1]["figures"]}


@pytest.mark.parametrize(
    ("options", "of"),
    [([], ""), (["--ema"], " of G_ema"), (["--epoch", "best"], ""), (["--epoch", "best", "--ema"], " of G_ema")],
)
def test_metrics_equal_those_of_test_and_evaluate(
    folder: Path, evaluated: tuple[Path, str], options: list[str], of: str
) -> None:
    """Compare every digit, for the last and best weights of G and its EMA."""
    rows = [row["evaluation"] for row in evaluations(evaluated[0])]
    expected = min(rows, key=lambda values: values[f"FID (thumbnail){of}"]) if "best" in options else rows[-1]
    found = metrics_of_results(folder, "evaluated", *options)
    assert found == {name: expected[name + of] for name in found}


def same_files(one: Path, other: Path, names: list[str]) -> bool:
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_training_is_unaffected(folder: Path, evaluated: tuple[Path, str], train) -> None:
    """The weights equal, byte for byte, those of a run without evaluation and EMA."""
    assert train(folder, *TRAINING, *CUT, *SIZES, "--name", "alone").status == 0
    alone = folder / "checkpoints" / "alone"
    assert sorted(path.name for path in alone.glob("*.pth")) == [f"latest_net_{name}.pth" for name in "DFG"]
    assert evaluations(alone) == []
    assert same_files(alone, evaluated[0], [f"latest_net_{name}.pth" for name in "DFG"])


def test_a_resumed_run_ends_with_the_same_ema_and_best_weights(folder: Path, evaluated: tuple[Path, str], train) -> None:
    def stop_in_second_epoch(pid: int, output: Path) -> None:
        while not output.exists() or output.read_text().count("\n(epoch: ") < 7:
            time.sleep(0.01)
        os.kill(pid, signal.SIGTERM)

    arguments = [*TRAINING, *CUT, *SIZES, *METRIC_OPTIONS, "--name", "parts", "--ema", "0.8"]
    assert train(folder, *arguments, meanwhile=stop_in_second_epoch).status == 143
    ended = train(folder, *arguments, "--continue_train")
    assert ended.status == 0, ended
    files = sorted(path.name for path in evaluated[0].glob("*.pth"))
    assert files == [f"{label}_net_{name}.pth" for label in ("best", "latest") for name in ("D", "F", "G", "G_ema")]
    assert same_files(evaluated[0], folder / "checkpoints" / "parts", [*files, STATE_FILE])
    assert evaluations(folder / "checkpoints" / "parts") == evaluations(evaluated[0])


def test_ema_counts_optimizer_steps_not_batches(folder: Path, train) -> None:
    """--accumulate: with two steps of two batches, the EMA is updated once after the first step."""
    two_steps = ["--n_epochs", "1", "--n_epochs_decay", "0", "--normG", "instance", "--no_dropout", "--accumulate", "2"]
    arguments = [*TRAINING, *CUT, *SIZES, *two_steps, "--name", "waiting", "--save_latest_freq", "2", "--save_by_iter"]
    assert train(folder, *arguments, "--ema", "0.8") == (0, ANY, "")
    first, second, ema = (
        torch.load(folder / "checkpoints" / "waiting" / f"{name}.pth", weights_only=True)["model.1.weight"]
        for name in ("iter_2_net_G", "iter_4_net_G", "iter_4_net_G_ema")
    )
    assert not torch.equal(first, second)
    torch.testing.assert_close(ema, torch.lerp(first, second, 0.2))


def test_metrics_without_weights_are_skipped_with_a_warning(folder: Path, train) -> None:
    one_epoch = ["--n_epochs", "1", "--n_epochs_decay", "0"]
    ended = train(folder, *TRAINING, *CUT, *SIZES, *one_epoch, "--name", "absent", "--inception", "nowhere.pth", "--paired")
    assert (ended.status, ended.complained) == (0, "")
    assert ended.told.count("warning: metric skipped, training continues: nowhere.pth: no such file") == 1
    assert [list(row["evaluation"]) for row in evaluations(folder / "checkpoints" / "absent")] == [["PSNR", "SSIM"]]


def test_errors_known_at_the_start_are_raised_at_the_start(folder: Path, train) -> None:
    ended = train(folder, *TRAINING, *CUT, *SIZES, "--name", "refused", "--paired", "--evaluation_phase", "exam")
    assert ended.status == 2
    assert re.fullmatch(r"error: \S*examA: not a folder.*\n", ended.complained)
    assert not (folder / "checkpoints" / "refused").exists()


def options_of(folder: Path, *arguments: str) -> list[str]:
    return ["--dataroot", str(folder / "data"), "--gpu_ids", "-1", *NETWORKS[:6], *SIZES, *arguments]


def evaluate_repeatedly(tmp_path: Path, validator: Validator, *between: Callable[[], object]) -> list[dict]:
    """Evaluate once, and again after each of `between`. Return the results of the successful evaluations by name."""
    with Visualizer(tmp_path, "run", 1, 1, 5, web_page=False, loggers=LoggerGroup()) as visualizer:
        validator.run(1, 4, visualizer)
        for number, change in enumerate(between, start=2):
            change()
            validator.run(1, 4 * number, visualizer)
    if not (tmp_path / "metrics.jsonl").exists():
        return []
    return [{row["name"]: row for row in line["taken_with"]} for line in evaluations(tmp_path)]


def create_validator(data: Path, folder: Path, network: nn.Module | None = None) -> Validator:
    opt = TrainOptions().parse(["--dataroot", str(data), *options_of(folder)[2:]])
    config = {"paired": True, "features": str(folder / "thumbnail.pt2")}
    evaluator = create_evaluator(config, 0, torch.device("cpu"))
    generators = {"G": network or nn.Identity()}
    return Validator(evaluator, EvalDataset(opt), generators, lambda name: None, torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_an_unreadable_file_is_skipped_and_tried_again(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | str
) -> None:
    data = two_domains(tmp_path / "data", "test", n_A=6, n_B=5, size=(32, 32))
    source, target = data / "testA" / "01.png", data / "testB" / "02.png"
    whole = {path: path.read_bytes() for path in (source, target)}
    for path, intact in whole.items():
        path.write_bytes(intact[:-100] if isinstance(content, str) else content)
    validator = create_validator(data, folder)
    assert "pairs: 5 of 6 matched" in list(validator.check())
    first, second, third = evaluate_repeatedly(
        tmp_path,
        validator,
        lambda: target.write_bytes(whole[target]),
        lambda: source.write_bytes(whole[source]),
    )
    fids = [row["FID (thumbnail)"] for row in (first, second, third)]
    counts = [(fid["pictures"], fid["real_pictures"]) for fid in fids]
    assert counts == [(5, 4), (5, 5), (6, 5)]
    assert [row["PSNR"]["pairs"] for row in (first, second, third)] == [3, 4, 5]
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluation: skipped")]
    assert len(skipped) == 2
    assert skipped[0].startswith("evaluation: skipped 2 unreadable images, the first is ")
    assert skipped[1].startswith(f"evaluation: skipped 1 unreadable image, {str(source)!r}: ")


def test_unreadable_files_are_reported_before_the_training(folder: Path, tmp_path: Path, train) -> None:
    two_domains(tmp_path / "data", n_A=3, n_B=3, size=(40, 32))
    two_domains(tmp_path / "data", "test", n_A=5, n_B=5, size=(40, 32))
    (tmp_path / "data" / "testB" / "02.png").write_bytes(b"")
    shutil.copy(folder / "thumbnail.pt2", tmp_path)
    ended = train(tmp_path, *TRAINING, *CUT, *SIZES, *METRIC_OPTIONS, "--name", "run")
    assert ended.status == 0
    before = ended.told[: ended.told.index("training images per epoch")]
    assert "evaluation: testA to testB, at 32 px\npairs: 5 of 5 matched\n" in before
    assert "warning: evaluation: skipped 1 unreadable image, 'data/testB/02.png': an empty file" in before
    last = evaluations(tmp_path / "checkpoints" / "run")[-1]["taken_with"]
    assert {row["real_pictures"] for row in last if "real_pictures" in row} == {4}
    assert {row["pairs"] for row in last if "pairs" in row} == {4}
    assert (tmp_path / "checkpoints" / "run" / "best_net_G.pth").exists()


def test_too_few_images_are_tried_again(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_domains(tmp_path / "data", "test", n_A=4, n_B=4, size=(32, 32))
    target = data / "testB" / "01.png"
    whole = target.read_bytes()
    target.write_bytes(b"")
    validator = create_validator(data, folder)
    (only,) = evaluate_repeatedly(tmp_path, validator, lambda: target.write_bytes(whole))
    assert only["FID (thumbnail)"]["real_pictures"] == 4
    printed = capsys.readouterr().out
    assert printed.count("warning: no evaluation after 4 images, the next one tries again: readable real images: 3 ") == 1


def test_an_evaluation_without_memory_is_tried_again(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Greedy(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.empty(10**15) if (tmp_path / "data").exists() else image

    data = two_domains(tmp_path / "data", "test", n_A=4, n_B=4, size=(32, 32))
    validator = create_validator(data, folder, Greedy())
    assert evaluate_repeatedly(tmp_path, validator) == []
    assert "warning: no evaluation after 4 images, the next one tries again: out of memory" in capsys.readouterr().out


def test_names_of_pairs_may_differ(tmp_path: Path, folder: Path) -> None:
    data = two_domains(tmp_path / "data", "test", n_A=4, n_B=4, size=(32, 32))
    for domain in "AB":
        for path in (data / f"test{domain}").iterdir():
            path.rename(path.with_stem(f"{path.stem}_{domain}"))
    validator = create_validator(data, folder)
    assert "pairs: 4 of 4 matched" in list(validator.check())
    (only,) = evaluate_repeatedly(tmp_path, validator)
    assert only["PSNR"]["pairs"] == 4


def test_a_split_without_pairs_is_an_error_before_training(tmp_path: Path, folder: Path) -> None:
    data = two_domains(tmp_path / "data", "test", n_A=4, n_B=4, size=(32, 32))
    for path in (data / "testB").iterdir():
        path.rename(path.with_stem(f"other_{path.stem}"))
    with pytest.raises(UserError, match=r"testB: no image is the ground truth of one of 4 images such as 00\.png"):
        list(create_validator(data, folder).check())


def test_a_faithfulness_metric_receives_the_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric is one class and one registry line; the sources are the images that were translated."""

    class ColorChange:
        def measure(self, images: EvalImages) -> Iterator[Measurement]:
            assert images.source is not None and images.target is None and images.real is None
            pairs = zip(images.source, images.results, strict=True)
            yield Measurement("change", float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs])), {})

    spec = MetricSpec("faithfulness", {"change": True}, {"action": "store_true"}, lambda value, device, seed: ColorChange())
    monkeypatch.setitem(METRICS, "color_change", spec)
    opt = TrainOptions().parse(options_of(folder, "--color_change"))
    evaluator = create_evaluator(metric_config(opt), 0, torch.device("cpu"))
    logged: list[dict] = []

    class Log:
        pause_timer = staticmethod(nullcontext)

        def print(self, line: str) -> None: ...

        def log_metrics(self, values: dict, results: list) -> None:
            logged.append(values)

    white = nn.Threshold(2.0, 1.0)
    for network in (nn.Identity(), white):
        validator = Validator(evaluator, EvalDataset(opt), {"G": network}, lambda name: None, torch.device("cpu"))
        validator.run(1, 4, Log())
    assert logged[0]["change"] == 0
    assert logged[1]["change"] > 50


def test_a_value_that_is_no_number_is_not_the_best_for_ever(tmp_path: Path) -> None:
    validator = Validator(MetricEvaluator({}, 0), Mock(), {"G": nn.Identity()}, lambda name: None, torch.device("cpu"))
    values = [math.nan, 50.0, math.nan, 60.0, 40.0]
    found = [
        validator._update_best("G", MetricResult("FID", value, lower_is_better=True), 1, images)
        for images, value in enumerate(values)
    ]
    assert found == [True, True, False, False, True]
    assert validator.best["G"]["value"] == 40.0


def test_aligned_pairs_are_evaluated_by_their_halves(tmp_path: Path) -> None:
    fill(tmp_path / "test", 4, (64, 32))
    for direction, left in (("AtoB", slice(32, 64)), ("BtoA", slice(0, 32))):
        opt = TrainOptions().parse(
            options_of(tmp_path, "--dataroot", str(tmp_path), "--dataset_mode", "aligned", "--direction", direction)
        )
        images = EvalDataset(opt)
        names = [name for _, name in images.inputs()]
        assert names == ["00.png", "01.png", "02.png", "03.png"]
        with Image.open(tmp_path / "test" / "02.png") as whole:
            half = np.asarray(whole)[:, left]
        assert np.array_equal(list(images.targets(names, None))[2], half)


def test_a_single_pair_cannot_be_evaluated(folder: Path) -> None:
    opt = TrainOptions().parse(["--dataroot", str(folder / "data"), "--model", "sincut"])
    with pytest.raises(UserError, match="single pair of images cannot be evaluated"):
        EvalDataset(opt)


def test_the_ema_of_both_cycle_gan_generators_is_saved_and_tested(folder: Path, tmp_path: Path) -> None:
    arguments = options_of(folder, "--checkpoints_dir", str(tmp_path), "--name", "cycle", "--model", "cycle_gan")
    model = create_model(TrainOptions().parse([*arguments, "--ema", "0.5"]))
    model.ema.update()
    for network in model.networks.values():
        for parameter in network.parameters():
            parameter.data.add_(1)
    model.ema.update()
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


def test_a_best_checkpoint_that_changes_the_least_is_announced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, announced in ((["--faithfulness"], True), (["--faithfulness", "--best_by", "SSIM_source"], False)):
        opt = TrainOptions().parse([*TRAINING, *CUT, *SIZES, "--dataroot", str(folder / "data"), *arguments])
        evaluation.create_validator(opt, metric_config(opt), create_model(opt))
        assert ("weights that change the least" in capsys.readouterr().out) == announced


def test_best_by_names_the_metric_that_decides(folder: Path, train) -> None:
    """A value is marked as the best if it is the smallest structure distance so far, whatever FID is."""
    options = ["--features", "thumbnail.pt2", "--faithfulness", "--evaluation_freq", "4", "--best_by", "structure"]
    ended = train(folder, *TRAINING, *CUT, *SIZES, *options, "--name", "by_structure")
    assert (ended.status, ended.complained) == (0, "")
    run_dir = folder / "checkpoints" / "by_structure"
    curve = [row["evaluation"]["structure (thumbnail)"] for row in evaluations(run_dir)]
    line = next(line for line in ended.told.splitlines() if line.startswith("structure (thumbnail) of G on testA to testB"))
    assert f"best {min(curve):.4g} " in line
    assert ended.told.count("(best)") == sum(value < min([np.inf, *curve[:place]]) for place, value in enumerate(curve))

    ended = train(folder, *TRAINING, *CUT, *SIZES, "--name", "refused_best", "--best_by", "FID")
    assert ended.status == 2
    assert ended.complained == "error: --best_by FID: not computed. Add --inception or --features.\n"
