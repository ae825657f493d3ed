"""What watching costs a run: `python scripts/benchmarks/benchmark_loggers.py`.

Trains the same small CUT in turns without a live view, and with each of several, among them a visdom server that accepts
connections and never answers. Losses and images are shown after every step, a hundred times more often than by default.
Prints the time of a step as a ratio to that without a view, turn by turn: wall-clock time, which shows any waiting, and
the CPU time of the training thread, which does not depend on what else the machine does.
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

MODEL = "--name views --gpu_ids -1 --netG resnet_4blocks --ngf 16 --ndf 16 --netF_nc 64 --num_patches 64 --display_id -1"
NO_VIEW = "no view"


def steps(model: BaseModel, view: Logger | LoggerGroup, count: int) -> tuple[float, float]:
    """Wall-clock seconds and seconds of this thread's CPU time that `count` steps take, shown one by one."""
    wall, processor = time.perf_counter(), time.thread_time()
    for step in range(1, count + 1):
        model.optimize_parameters()
        position = TrainingPosition(1, step / count, step)
        view.log_scalars("losses", position, model.get_current_losses())
        view.log_images(position, model.visuals_for_display())
    return time.perf_counter() - wall, time.thread_time() - processor


def views(folder: Path, hanging: int, refusing: int) -> dict[str, Callable[[], Logger | LoggerGroup]]:
    """What opens each view, by its name. `hanging` and `refusing` are ports."""
    return {
        NO_VIEW: lambda: LoggerGroup(),
        "visdom, server hangs": lambda: VisdomLogger(VisdomSettings("views", "views", port=hanging)),
        "visdom, no server": lambda: VisdomLogger(VisdomSettings("views", "views", port=refusing)),
        "tensorboard": lambda: TensorBoardLogger(folder / "tensorboard"),
        "wandb, offline": lambda: WandbLogger(folder, "views"),
    }


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description="What each live view costs a training step, as ratios taken in turns.")
    parser.add_argument("--turns", type=positive_int, default=5, help="turns of each view")
    parser.add_argument("--steps", type=positive_int, default=40, help="steps in a turn")
    parser.add_argument("--size", type=image_size, default=64, help="side of the images in pixels")
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
        openers = views(Path(folder), silent.getsockname()[1], refusing)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in openers}
        steps(model, LoggerGroup(), arguments.steps)  # warms up
        for _ in tqdm(range(arguments.turns), unit="turn"):
            for name, opener in openers.items():
                view = opener()
                view.start(lambda line: None)
                taken[name].append(steps(model, view, arguments.steps))
                view.close()

    base = taken[NO_VIEW]
    print(f"{arguments.turns} turns of {arguments.steps} steps, {torch.get_num_threads()} threads; ratios to {NO_VIEW}:")
    print(f"{'':>22}  wall clock (least to most)   CPU time")
    for name, turns in taken.items():
        wall, processor = ([turn[clock] / alone[clock] for turn, alone in zip(turns, base, strict=True)] for clock in (0, 1))
        print(
            f"{name:>22}  {statistics.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})"
            f"       {statistics.median(processor):.3f}"
        )


if __name__ == "__main__":
    main()
