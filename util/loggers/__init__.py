"""Registry of loggers. To add one, write a file with its `Logger` class (see base.py) and add a line to LOGGERS.

docs/extending.md has an example.
"""

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from pathlib import Path

from util.loggers.base import Logger, LoggerGroup
from util.loggers.tensorboard_logger import TensorBoardLogger
from util.loggers.visdom_logger import VisdomLogger
from util.loggers.wandb_logger import WandbLogger

LOGGERS: dict[str, type[Logger]] = {
    "visdom": VisdomLogger,
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
}


def add_logger_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
    """Declare the options of every logger in LOGGERS."""
    for logger in LOGGERS.values():
        logger.add_arguments(group)


def logger_option_names() -> frozenset[str]:
    """Return the names of the options that the loggers declare."""
    parser = ArgumentParser(add_help=False)
    add_logger_arguments(parser)
    return frozenset(action.dest for action in parser._actions)


def create_loggers(opt: Namespace, run_dir: Path) -> LoggerGroup:
    """Create the loggers that the options request."""
    loggers = (logger.from_options(opt, run_dir) for logger in LOGGERS.values())
    return LoggerGroup([logger for logger in loggers if logger is not None])
