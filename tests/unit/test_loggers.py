"""The registry of loggers, for every logger in LOGGERS."""

from argparse import ArgumentParser, _ArgumentGroup
from pathlib import Path

import pytest
import torch

from options import TrainOptions
from options.saved_options import diff_options, save_options
from util.loggers import LOGGERS, create_loggers, logger_option_names
from util.loggers.base import AsyncLogger, TrainingPosition
from util.loggers.tensorboard_logger import TensorBoardLogger


def switches(name: str) -> list[str]:
    """Return the on/off options of a logger."""
    parser = ArgumentParser(add_help=False)
    LOGGERS[name].add_arguments(parser)
    return [action.option_strings[0] for action in parser._actions if action.const is True]


@pytest.mark.parametrize("name", LOGGERS)
def test_every_logger_is_created_from_the_options_of_training(name: str, tmp_path: Path) -> None:
    opt = TrainOptions().parse(["--name", "run", *switches(name)])
    assert isinstance(LOGGERS[name].from_options(opt, tmp_path), LOGGERS[name])


@pytest.mark.parametrize("name", LOGGERS)
def test_no_call_of_a_logger_blocks_or_raises_before_its_start(name: str, tmp_path: Path) -> None:
    logger = LOGGERS[name].from_options(TrainOptions().parse(switches(name)), tmp_path)
    assert isinstance(logger, AsyncLogger)
    position = TrainingPosition(1, 0.5, 10)
    logger.log_scalars("losses", position, {"G": 1.0})
    logger.log_images(position, {"fake_B": torch.zeros(1, 3, 4, 4)})
    logger.close()
    assert [event.values for event in logger.queue.events] == [{"G": 1.0}]
    assert list(tmp_path.iterdir()) == []


def test_only_requested_loggers_are_created(tmp_path: Path) -> None:
    assert create_loggers(TrainOptions().parse(["--display_id", "-1"]), tmp_path).loggers == []
    every = [flag for name in LOGGERS for flag in switches(name)]
    created = create_loggers(TrainOptions().parse(every), tmp_path).loggers
    assert [type(logger) for logger in created] == list(LOGGERS.values())


@pytest.mark.parametrize("name", LOGGERS)
def test_a_resumed_run_may_change_its_loggers(name: str, tmp_path: Path) -> None:
    command = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    save_options(TrainOptions().parse(command), tmp_path / "run")
    assert diff_options(TrainOptions().parse([*command, *switches(name)])) == []


def test_a_new_logger_needs_one_registry_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnLogger(TensorBoardLogger):
        @staticmethod
        def add_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
            group.add_argument("--use_own", action="store_true")

    monkeypatch.setitem(LOGGERS, "own", OwnLogger)
    assert logger_option_names() >= {"use_own", "use_tensorboard", "use_wandb", "display_port"}
