"""Measure what each logger adds to the time of a training step.

    python scripts/benchmarks/benchmark_loggers.py

Trains a small CUT model without a logger and with each logger, in interleaved rounds. One of the visdom servers accepts
connections and never answers. Losses and images are logged after every step, a hundred times more often than by default.
The results are ratios to a step without a logger: of wall-clock time, which includes waiting, and of the CPU time of the
training thread, which does not depend on other programs.
"""

import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from util.cli import CLIParser, image_size, positive_int
from util.errors import exit_on_user_error
from util.loggers import TensorBoardLogger, VisdomLogger, WandbLogger
from util.loggers.base import Logger, LoggerGroup, TrainingPosition
from util.loggers.visdom_logger import VisdomSettings

MODEL = "--name loggers --gpu_ids -1 --netG resnet_4blocks --ngf 16 --ndf 16 --netF_nc 64 --num_patches 64 --display_id -1"
NO_LOGGER = "no logger"


def time_steps(model: BaseModel, logger: Logger | LoggerGroup, count: int) -> tuple[float, float]:
    """Train for `count` steps and log each of them. Return seconds of wall-clock time, and of CPU time of this thread."""
    wall, cpu = time.perf_counter(), time.thread_time()
    for step in range(1, count + 1):
        model.optimize_parameters()
        position = TrainingPosition(1, step / count, step)
        logger.log_scalars("losses", position, model.get_current_losses())
        logger.log_images(position, model.visuals_for_display())
    return time.perf_counter() - wall, time.thread_time() - cpu


def logger_factories(folder: Path, hanging: int, refusing: int) -> dict[str, Callable[[], Logger | LoggerGroup]]:
    """Return a factory per logger. `hanging` and `refusing` are ports of servers that do not answer."""
    return {
        NO_LOGGER: lambda: LoggerGroup(),
        "visdom, server hangs": lambda: VisdomLogger(VisdomSettings("loggers", "loggers", port=hanging)),
        "visdom, no server": lambda: VisdomLogger(VisdomSettings("loggers", "loggers", port=refusing)),
        "tensorboard": lambda: TensorBoardLogger(folder / "tensorboard"),
        "wandb, offline": lambda: WandbLogger(folder, "loggers"),
    }


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=positive_int, default=5, help="interleaved rounds")
    parser.add_argument("--steps", type=positive_int, default=40, help="steps per round")
    parser.add_argument("--size", type=image_size, default=64, help="image side in pixels")
    arguments = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "offline")

    model = create_model(TrainOptions().parse([*MODEL.split(), "--crop_size", str(arguments.size)]))
    size = (1, 3, arguments.size, arguments.size)
    model.set_input({"A": torch.rand(size) * 2 - 1, "B": torch.rand(size) * 2 - 1, "A_paths": ["A"], "B_paths": ["B"]})
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1000) as silent,
        socket.create_server(("127.0.0.1", 0)) as closed,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        refusing = closed.getsockname()[1]
        closed.close()
        factories = logger_factories(Path(folder), silent.getsockname()[1], refusing)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in factories}
        time_steps(model, LoggerGroup(), arguments.steps)  # warm up
        for _ in tqdm(range(arguments.turns), unit="round"):
            for name, create_logger in factories.items():
                logger = create_logger()
                logger.start(lambda line: None)
                times[name].append(time_steps(model, logger, arguments.steps))
                logger.close()

    base = times[NO_LOGGER]
    print(f"{arguments.turns} rounds of {arguments.steps} steps, {torch.get_num_threads()} threads; ratios to {NO_LOGGER}:")
    print(f"{'':>22}  wall clock (min to max)   CPU time")
    for name, rounds in times.items():
        wall, cpu = ([each[clock] / alone[clock] for each, alone in zip(rounds, base, strict=True)] for clock in (0, 1))
        print(
            f"{name:>22}  {statistics.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})"
            f"       {statistics.median(cpu):.3f}"
        )


if __name__ == "__main__":
    main()
