"""Table and plot of several runs, by scripts/plot_runs.py."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from scripts.plot_runs import smooth
from util.loggers.base import TrainingPosition
from util.train_log import MetricsLog

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/plot_runs.py"


@dataclass(frozen=True)
class Values:
    """The metrics of a run at one position."""

    psnr: float
    fid: float
    fid_of_ema: float


def evaluated(run: Path, *evaluations: Values, **conditions: object) -> str:
    """Write the log of a run with these evaluations, 100 images apart. Return its folder."""
    log = MetricsLog(run / "metrics.jsonl")
    for step, values in enumerate(evaluations, 1):
        log.add(TrainingPosition(epoch=step, epochs_done=step, images=100 * step), {"losses": {"G": 1.0}})
        results = [
            ("G", "PSNR", values.psnr, False),
            ("G", "FID", values.fid, True),
            ("G_ema", "FID", values.fid_of_ema, True),
        ]
        fields = ("judged", "name", "value", "lower_is_better")
        log.add(
            TrainingPosition(epoch=step, epochs_done=step, images=100 * step),
            {"taken_with": [dict(zip(fields, result, strict=True)) | conditions for result in results]},
        )
    return str(run)


def plot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def test_last_and_best_over_seeds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [
        evaluated(tmp_path / "cut_0", Values(10, 50, 40), Values(12, 30, 30), Values(11, 40, 20)),
        evaluated(tmp_path / "cut_1", Values(10, 50, 40), Values(14, 20, 30), Values(13, 40, 20)),
        evaluated(tmp_path / "other", Values(9, 1, 1)),
    ]
    done = plot(*runs, "--figures", "PSNR", "FID", "FID of G_ema", "--plot", str(tmp_path / "new" / "curves.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == [
        "| cut | 2 | PSNR ↑ | 12 ± 1.4 | 13 ± 1.4 |",
        "| cut | 2 | FID ↓ | 40 ± 0 | 25 ± 7.1 |",
        "| cut | 2 | FID of G_ema ↓ | 20 ± 0 | 20 ± 0 |",
        "| other | 1 | PSNR ↑ | 9 | 9 |",
        "| other | 1 | FID ↓ | 1 | 1 |",
        "| other | 1 | FID of G_ema ↓ | 1 | 1 |",
        f"written: {tmp_path / 'new' / 'curves.png'}",
    ]
    with Image.open(tmp_path / "new" / "curves.png") as plotted:
        assert plotted.width > 3 * plotted.height


def test_losses_and_metrics_three_panels_in_a_row(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [evaluated(tmp_path / name, Values(10, 50, 40), Values(12, 30, 30)) for name in ("cut", "other")]
    done = plot(*runs, "--plot", str(tmp_path / "curves.png"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "curves.png") as plotted:
        assert 2 < plotted.width / plotted.height < 3  # G, PSNR and FID in one row, FID of G_ema in the next


def test_losses_of_a_run_without_metrics(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log = MetricsLog(tmp_path / "run/metrics.jsonl")
    log.add(TrainingPosition(epoch=1, epochs_done=1, images=100), {"losses": {"G": 1.0}})
    log.add(TrainingPosition(epoch=2, epochs_done=2, images=200), {"losses": {"G": float("nan")}})  # stored as null
    done = plot(str(tmp_path / "run"), "--plot", str(tmp_path / "curves.png"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"written: {tmp_path / 'curves.png'}\n", "")
    assert (tmp_path / "curves.png").is_file()
    assert plot(str(tmp_path / "run")).stderr.startswith(f"error: {tmp_path / 'run'}: no metrics. ")


def test_moving_average_has_no_bias_to_the_first_value() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smooth([0.0, 1.0])[-1] == pytest.approx(0.05 / (0.05 + 0.95 * 0.05))


def test_metrics_under_different_conditions_are_named(tmp_path: Path) -> None:
    """They are those of every evaluation, not those of the first one or the first run."""
    runs = [
        evaluated(tmp_path / "cut_0", Values(10, 50, 40), split="testB", pictures=100),  # style: ok
        evaluated(tmp_path / "cut_1", Values(10, 50, 40), split="testB", pictures=100),  # style: ok
    ]
    assert "warning" not in plot(*runs).stdout
    evaluated(tmp_path / "cut_1", Values(11, 50, 40), split="testB", pictures=50)  # resumed # style: ok
    done = plot(*runs, "--figures", "FID")
    warning = "warning: FID: pictures differs (100, 50), so its values cannot be compared."  # style: ok
    assert done.stdout.splitlines()[-1] == warning, done


def test_missing_data_is_an_error(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "cut", Values(10, 50, 40))
    for arguments, message in (
        ([], "error: the following arguments are required: RUN_DIR (see plot_runs.py --help)"),
        ([str(tmp_path)], f"error: {tmp_path}: no metrics. "),
        ([str(tmp_path / "cat")], f"error: {tmp_path / 'cat'}: no such folder. "),
        ([run, run], "error: cut: two runs have this name. "),
        ([run, "--plot", "x.foo"], "error: --plot x.foo: "),
        ([run, "--plot", str(tmp_path)], f"error: --plot {tmp_path}: a folder. "),
        (
            [run, "--figures", "KID"],
            "error: --figures KID: no run has this loss or metric. Choose from G, PSNR, ",
        ),
    ):
        done = plot(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(message)
