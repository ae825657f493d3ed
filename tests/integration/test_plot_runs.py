"""The table and the drawing of several runs, made by their script from what runs leave."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from util.loggers.base import TrainingPosition
from util.train_log import MetricsLog

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/plot_runs.py"


@dataclass(frozen=True)
class Told:
    """What a run was found to be worth at one time."""

    psnr: float
    fid: float
    fid_of_average: float


def judged(run: Path, *told: Told) -> str:
    """The folder of a run that was judged so, 100 images apart."""
    log = MetricsLog(run / "metrics.jsonl")
    for step, figures in enumerate(told, 1):
        log.add(TrainingPosition(epoch=step, epochs_done=step, images=100 * step), {"losses": {"G": 1.0}})
        taken = [
            ("G", "PSNR", figures.psnr, False),
            ("G", "FID", figures.fid, True),
            ("G_ema", "FID", figures.fid_of_average, True),
        ]
        fields = ("judged", "name", "value", "lower_is_better")
        log.add(
            TrainingPosition(epoch=step, epochs_done=step, images=100 * step),
            {"taken_with": [dict(zip(fields, values, strict=True)) for values in taken]},
        )
    return str(run)


def plot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def test_last_and_best_over_seeds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [
        judged(tmp_path / "cut_0", Told(10, 50, 40), Told(12, 30, 30), Told(11, 40, 20)),
        judged(tmp_path / "cut_1", Told(10, 50, 40), Told(14, 20, 30), Told(13, 40, 20)),
        judged(tmp_path / "other", Told(9, 1, 1)),
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
    ]
    with Image.open(tmp_path / "new" / "curves.png") as drawing:
        assert drawing.width > 3 * drawing.height


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    run = judged(tmp_path / "cut", Told(10, 50, 40))
    for arguments, sentence in (
        ([], "error: the following arguments are required: RUN_DIR (see plot_runs.py --help)"),
        ([str(tmp_path)], f"error: {tmp_path} holds no figures: "),
        ([run, run], "error: two runs are called cut; "),
        ([run, "--plot", "x.foo"], "error: --plot x.foo: "),
        ([run, "--figures", "KID"], "error: --figures: no run was judged by 'KID'; there are PSNR, FID, FID of G_ema"),
    ):
        done = plot(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)
