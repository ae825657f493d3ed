"""TensorBoard events, written by the logger and read back by TensorBoard."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from util.loggers import TensorBoardLogger
from util.loggers.base import MAX_QUEUED, LoggerGroup, TrainingPosition

VISUALS = {"real_A": torch.ones(1, 3, 4, 6), "fake_B": -torch.ones(1, 1, 4, 6)}


def at(images: int) -> TrainingPosition:
    return TrainingPosition(1, images / 1000, images)


def run(folder: Path, images: range) -> list[str]:
    """Log after each of these numbers of images. Return the lines that the logger printed."""
    printed: list[str] = []
    logger = TensorBoardLogger(folder)
    logger.start(printed.append)
    for seen in images:
        logger.log_scalars("losses", at(seen), {"G": float(seen), "D": 0.5})
        logger.log_images(at(seen), VISUALS)
    logger.close()
    assert logger.thread and not logger.thread.is_alive()
    return printed


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, IMAGES: 0}).Reload()


def test_curves_and_images_arrive(tmp_path) -> None:
    assert run(tmp_path, range(1, 4)) == []
    read = events(tmp_path)
    assert [(event.step, event.value) for event in read.Scalars("losses/G")] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert {event.value for event in read.Scalars("losses/D")} == {0.5}
    (white,), (black,) = (
        {np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L")).mean() for event in read.Images(name)}
        for name in ("real_A", "fake_B")
    )
    assert (white, black) == (255, 0)
    assert read.Images("real_A")[-1].step == 3


def test_of_many_calls_the_newest_are_written(tmp_path) -> None:
    assert run(tmp_path, range(1, 5001)) == []
    steps = [event.step for event in events(tmp_path).Scalars("losses/G")]
    assert steps[-1] == 5000 and len(steps) >= MAX_QUEUED and steps == sorted(steps)


def test_a_resumed_run_replaces_later_events(tmp_path) -> None:
    run(tmp_path, range(100, 600, 100))
    run(tmp_path, range(300, 500, 100))
    assert [event.step for event in events(tmp_path).Scalars("losses/G")] == [100, 200, 300, 400]


def test_a_folder_that_is_not_writable_gives_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    printed: list[str] = []
    logger = TensorBoardLogger(tmp_path / "file" / "events")
    logger.start(printed.append)
    logger.log_scalars("losses", at(1), {"G": 1.0})
    assert logger.thread
    logger.thread.join(60)  # it stops by itself
    logger.close()
    (line,) = printed
    assert line.startswith("tensorboard stopped: training continues without it (")


def test_a_missing_package_gives_one_line(tmp_path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # makes its import fail
    printed: list[str] = []
    logger = LoggerGroup([TensorBoardLogger(tmp_path)])
    logger.start(printed.append)
    logger.log_scalars("losses", at(1), {"G": 1.0})
    logger.log_images(at(1), VISUALS)
    logger.close()
    assert printed == [
        "tensorboard is not installed: training continues without it. Install it with `pip install tensorboard`."
    ]
    assert list(tmp_path.iterdir()) == []
