"""The Weights & Biases logger with the real client: offline, without an account, and with a server that does not answer."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("wandb")

from visdom_servers import HANG_GUARD_SECONDS, silent_server, wait_until

from util.loggers import WandbLogger
from util.loggers.base import TrainingPosition

VISUALS = {"fake_B": torch.ones(1, 3, 4, 6), "gray": -torch.ones(1, 1, 4, 6)}


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch) -> None:
    """Remove accounts and settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(WandbLogger, "close_timeout", HANG_GUARD_SECONDS)


def at(images: int) -> TrainingPosition:
    return TrainingPosition(1, images / 1000, images)


def test_an_offline_run_is_written_to_its_folder(tmp_path) -> None:
    (tmp_path / "train_opt.json").write_text('{"lambda_NCE": 10.0}')
    printed: list[str] = []
    logger = WandbLogger(tmp_path, "cats")
    logger.start(printed.append)
    for images in range(1, 5001):
        logger.log_scalars("losses", at(images), {"G_GAN": images + 0.25, "D_real": float("nan")})
        logger.log_images(at(images), VISUALS)
    logger.close()
    assert logger.thread and not logger.thread.is_alive()
    assert printed == []

    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = run.glob("*.wandb")
    written = file.read_bytes()
    assert all(text in written for text in (b"losses/G_GAN", b"losses/D_real", b"5000.25", b"lambda_NCE", b"cats"))
    images = list(run.glob("files/media/images/fake_B_*.png"))
    assert images and all(np.asarray(Image.open(file).convert("L")).min() == 255 for file in images)
    assert list(run.glob("files/media/images/gray_*.png"))


def test_a_missing_account_gives_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    printed: list[str] = []
    logger = WandbLogger(tmp_path, "cats")
    logger.start(printed.append)
    logger.log_scalars("losses", at(1), {"G": 1.0})
    wait_until(lambda: bool(printed))
    logger.close()
    (line,) = printed
    assert line.startswith("wandb stopped: training continues without it (") and str(tmp_path / "wandb_log.txt") in line
    assert "api" in line.lower() or "log" in line.lower()


def test_a_server_that_does_not_answer_does_not_block(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(WandbLogger, "close_timeout", 0.1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with silent_server() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        logger = WandbLogger(tmp_path, "cats")
        logger.start(print)
        for images in range(5000):  # a call that waits for an answer would block until the test is killed
            logger.log_scalars("losses", at(images), {"G": 1.0})
            logger.log_images(at(images), {"fake_B": torch.zeros(1, 3, 64, 64)})
        logger.close()
        assert logger.thread and logger.thread.daemon and logger.thread.is_alive()
    wait_until(lambda: not logger.thread.is_alive())  # W&B gives up


def test_a_missing_package_gives_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    printed: list[str] = []
    logger = WandbLogger(tmp_path, "cats")
    logger.start(printed.append)
    logger.log_scalars("losses", at(1), {"G": 1.0})
    logger.close()
    assert printed == ["wandb is not installed: training continues without it. Install it with `pip install wandb`."]
    assert list(tmp_path.iterdir()) == []
