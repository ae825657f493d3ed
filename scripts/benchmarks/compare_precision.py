"""Compares the losses of one training in several number formats.

Each way of computing starts from the same weights, and is shown the same images and positions. Beside float32 and bfloat16
there is float32 with other draws, which tells how far curves of equal worth lie apart. Options that are not listed below go
to the training.
"""

import csv
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is run from anywhere

from data import ImageDataLoader, create_dataset
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from util.cli import (
    CLIParser,
    positive_int,
)
from util.errors import exit_on_user_error
from util.plotting import figure_to_file

CONFIGS = {"fp32": [], "bf16": ["--precision", "bf16"], "fp32, other draws": []}
WINDOW = 20  # steps that a value of the table is the mean of

Curves = dict[str, list[float]]  # loss -> its value in every step


def train(title: str, arguments: list[str], steps: int) -> Curves:
    """The losses of the first steps of a training."""
    opt = TrainOptions().parse(arguments)
    model, dataset = create_model(opt), create_dataset(opt)
    if title == "fp32, other draws":
        opt.seed += 1  # of the steps; the weights are drawn already
    curves: Curves = {name: [] for name in model.loss_names}
    with tqdm(total=steps, desc=title, unit="step", disable=None) as progress:
        for batch in islice(endless(dataset), steps):
            for name, value in take_step(model, batch).items():
                curves[name].append(value)
            progress.update()
    return curves


def endless(dataset: ImageDataLoader) -> Iterator[dict]:
    """The batches of one epoch after the other."""
    for epoch in count(1):
        dataset.set_epoch(epoch)
        yield from dataset


def take_step(model: BaseModel, batch: dict) -> dict[str, float]:
    """The losses of a step on this batch."""
    model.set_input(batch)
    model.optimize_parameters()
    return model.get_current_losses()


def windows(values: list[float]) -> list[float]:
    """Means over `WINDOW` steps each."""
    return [fmean(values[first : first + WINDOW]) for first in range(0, len(values), WINDOW)]


def write_table(curves: dict[str, Curves], path: Path) -> None:
    """One line for each window of steps, one column for each loss and way."""
    columns = [(name, way) for name in next(iter(curves.values())) for way in curves]
    means = {(name, way): windows(curves[way][name]) for name, way in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["steps", *(f"{name} ({way})" for name, way in columns)])
        for row in range(len(means[columns[0]])):
            table.writerow([(row + 1) * WINDOW, *(f"{means[column][row]:.4f}" for column in columns)])


def draw(curves: dict[str, Curves], path: Path) -> None:
    """A panel for each loss, a curve for each way."""
    names = list(next(iter(curves.values())))
    with figure_to_file(path, 3.2 * len(names), 2.6) as figure:
        for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for way, style in zip(curves, ("-", "-", ":"), strict=True):
                means = windows(curves[way][name])
                panel.plot([(row + 1) * WINDOW for row in range(len(means))], means, style, label=way)
            panel.set_title(name)
            panel.set_xlabel("step")
        panel.legend()


def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=positive_int, default=300, help="steps of each training")
    parser.add_argument("--csv", type=Path, help="file for the table")
    parser.add_argument("--plot", type=Path, help="file for the drawing")
    with exit_on_user_error():
        arguments, options = parser.parse_known_args()
        curves = {way: train(way, [*options, *flags], arguments.steps) for way, flags in CONFIGS.items()}
        if arguments.csv:
            write_table(curves, arguments.csv)
        if arguments.plot:
            draw(curves, arguments.plot)
    for name in curves["fp32"]:
        last = slice(-5 * WINDOW, None)
        means = {way: fmean(curves[way][name][last]) for way in curves}
        print(f"{name:>8}, last {5 * WINDOW} steps: " + ", ".join(f"{way} {mean:.4f}" for way, mean in means.items()))


if __name__ == "__main__":
    main()
