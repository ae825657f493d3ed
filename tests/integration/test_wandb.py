"""The view on Weights & Biases, with its own client: offline, without an account, and before a server that says nothing."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("wandb")

from visdom_servers import HANG_GUARD_SECONDS, silent_server, wait_until

import util.loggers.wandb_logger as wandb_module
from util.loggers.base import TrainingPosition
from util.loggers.wandb_logger import wandb_logger

VISUALS = {"fake_B": torch.ones(1, 3, 4, 6), "gray": -torch.ones(1, 1, 4, 6)}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch) -> None:
    """No account and no settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_module, "CLOSE_SECONDS", HANG_GUARD_SECONDS)


def at(images: int) -> TrainingPosition:
    return TrainingPosition(1, images / 1000, images)


def test_an_offline_run_lies_in_its_folder(tmp_path) -> None:
    (tmp_path / "train_opt.json").write_text('{"lambda_NCE": 10.0}')
    said: list[str] = []
    view = wandb_logger(tmp_path, "cats")
    view.start(said.append)
    for images in range(1, 5001):
        view.plot("losses", at(images), {"G_GAN": images + 0.25, "D_real": float("nan")})
        view.images(at(images), VISUALS)
    view.close()
    assert view.thread and not view.thread.is_alive()
    assert said == []

    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = run.glob("*.wandb")
    written = file.read_bytes()
    assert all(text in written for text in (b"losses/G_GAN", b"losses/D_real", b"5000.25", b"lambda_NCE", b"cats"))
    images = list(run.glob("files/media/images/fake_B_*.png"))
    assert images and all(np.asarray(Image.open(file).convert("L")).min() == 255 for file in images)
    assert list(run.glob("files/media/images/gray_*.png"))


def test_without_an_account_one_line_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    said: list[str] = []
    view = wandb_logger(tmp_path, "cats")
    view.start(said.append)
    view.plot("losses", at(1), {"G": 1.0})
    wait_until(lambda: bool(said))
    view.close()
    (line,) = said
    assert line.startswith("wandb stopped: training goes on without it (") and str(tmp_path / "wandb_log.txt") in line
    assert "api" in line.lower() or "log" in line.lower()


def test_a_server_that_says_nothing_holds_nobody_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(wandb_module, "CLOSE_SECONDS", 0.1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with silent_server() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        view = wandb_logger(tmp_path, "cats")
        view.start(print)
        for images in range(5000):  # whoever waits here for an answer waits until the test is killed
            view.plot("losses", at(images), {"G": 1.0})
            view.images(at(images), {"fake_B": torch.zeros(1, 3, 64, 64)})
        view.close()
        assert view.thread and view.thread.daemon and view.thread.is_alive()
    wait_until(lambda: not view.thread.is_alive())  # W&B gives up


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    view = wandb_logger(tmp_path, "cats")
    view.start(said.append)
    view.plot("losses", at(1), {"G": 1.0})
    view.close()
    assert said == ["wandb is not installed: training goes on without it; `pip install wandb` brings it"]
    assert list(tmp_path.iterdir()) == []
