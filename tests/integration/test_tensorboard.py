"""TensorBoard's events, written by the view and read back by TensorBoard itself."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from util.loggers.base import MOST_POINTS, LoggerGroup, TrainingPosition
from util.loggers.tensorboard_logger import tensorboard_logger

VISUALS = {"real_A": torch.ones(1, 3, 4, 6), "fake_B": -torch.ones(1, 1, 4, 6)}


def at(images: int) -> TrainingPosition:
    return TrainingPosition(1, images / 1000, images)


def show(folder: Path, images: range) -> list[str]:
    """A run that reports after these numbers of images; returns what its view had to say."""
    said: list[str] = []
    view = tensorboard_logger(folder)
    view.start(said.append)
    for seen in images:
        view.plot("losses", at(seen), {"G": float(seen), "D": 0.5})
        view.images(at(seen), VISUALS)
    view.close()
    assert view.thread and not view.thread.is_alive()
    return said


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, IMAGES: 0}).Reload()


def test_curves_and_images_arrive(tmp_path) -> None:
    assert show(tmp_path, range(1, 4)) == []
    read = events(tmp_path)
    assert [(event.step, event.value) for event in read.Scalars("losses/G")] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert {event.value for event in read.Scalars("losses/D")} == {0.5}
    (white,), (black,) = (
        {np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L")).mean() for event in read.Images(name)}
        for name in ("real_A", "fake_B")
    )
    assert (white, black) == (255, 0)
    assert read.Images("real_A")[-1].step == 3


def test_five_thousand_calls_are_taken_and_the_newest_shown(tmp_path) -> None:
    assert show(tmp_path, range(1, 5001)) == []
    steps = [event.step for event in events(tmp_path).Scalars("losses/G")]
    assert steps[-1] == 5000 and len(steps) >= MOST_POINTS and steps == sorted(steps)


def test_a_resumed_run_replaces_what_it_lives_through_again(tmp_path) -> None:
    show(tmp_path, range(100, 600, 100))
    show(tmp_path, range(300, 500, 100))
    assert [event.step for event in events(tmp_path).Scalars("losses/G")] == [100, 200, 300, 400]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    view = tensorboard_logger(tmp_path / "file" / "events")
    view.start(said.append)
    view.plot("losses", at(1), {"G": 1.0})
    assert view.thread
    view.thread.join(60)  # ends by itself
    view.close()
    (line,) = said
    assert line.startswith("tensorboard stopped: training goes on without it (")


def test_a_missing_package_is_one_line(tmp_path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # makes its import fail
    said: list[str] = []
    view = LoggerGroup([tensorboard_logger(tmp_path)])
    view.start(said.append)
    view.plot("losses", at(1), {"G": 1.0})
    view.images(at(1), VISUALS)
    view.close()
    assert said == ["tensorboard is not installed: training goes on without it; `pip install tensorboard` brings it"]
    assert list(tmp_path.iterdir()) == []
