"""Compare the training losses of float32 and bfloat16.

    python scripts/benchmarks/compare_precision.py --dataroot datasets/grumpifycat --steps 300 --plot losses.png

All runs start from the same weights. fp32 and bf16 see the same images and patch positions. "fp32, other seed" has other
random numbers: its distance from fp32 is the variation between equally good runs. Options that are not listed below are
passed to train.py.
"""

import csv
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data import ImageDataLoader, create_dataset
from models import create_model
from models.base_model import BaseModel
from options import TrainOptions
from util.cli import CLIParser, positive_int
from util.errors import exit_on_user_error
from util.files import prepare_output_file
from util.plotting import figure_to_file

OTHER_SEED = "fp32, other seed"
CONFIGS = {"fp32": [], "bf16": ["--precision", "bf16"], OTHER_SEED: []}
WINDOW = 20  # steps averaged for one value of the table

Curves = dict[str, list[float]]  # loss name -> its value in every step


def train(config: str, arguments: list[str], steps: int) -> Curves:
    """Train in this configuration; return the losses of every step."""
    opt = TrainOptions().parse(arguments)
    model, dataset = create_model(opt), create_dataset(opt)
    if config == OTHER_SEED:
        opt.seed += 1  # affects the steps only, because the weights are initialized already
    curves: Curves = {name: [] for name in model.loss_names}
    with tqdm(total=steps, desc=config, unit="step", disable=None) as progress:
        for batch in islice(iterate_epochs(dataset), steps):
            for name, value in take_step(model, batch).items():
                curves[name].append(value)
            progress.update()
    return curves


def iterate_epochs(dataset: ImageDataLoader) -> Iterator[dict]:
    """Yield the batches of all epochs, without end."""
    for epoch in count(1):
        dataset.set_epoch(epoch)
        yield from dataset


def take_step(model: BaseModel, batch: dict) -> dict[str, float]:
    """Train on this batch; return the losses."""
    model.set_input(batch)
    model.optimize_parameters()
    return model.get_current_losses()


def window_means(values: list[float]) -> list[float]:
    """Return the means of `WINDOW` steps each."""
    return [fmean(values[first : first + WINDOW]) for first in range(0, len(values), WINDOW)]


def write_table(curves: dict[str, Curves], path: Path) -> None:
    """Write a CSV file with a row per window of steps, and a column per loss and configuration."""
    columns = [(name, config) for name in next(iter(curves.values())) for config in curves]
    means = {(name, config): window_means(curves[config][name]) for name, config in columns}
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["steps", *(f"{name} ({config})" for name, config in columns)])
        for row in range(len(means[columns[0]])):
            table.writerow([(row + 1) * WINDOW, *(f"{means[column][row]:.4f}" for column in columns)])


def plot(curves: dict[str, Curves], path: Path) -> None:
    """Plot a panel per loss, with a curve per configuration."""
    names = list(next(iter(curves.values())))
    with figure_to_file(path, 3.2 * len(names), 2.6) as figure:
        for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for config, style in zip(curves, ("-", "-", ":"), strict=True):
                means = window_means(curves[config][name])
                panel.plot([(row + 1) * WINDOW for row in range(len(means))], means, style, label=config)
            panel.set_title(name)
            panel.set_xlabel("step")
        panel.legend()


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=positive_int, default=300, help="training steps per configuration")
    parser.add_argument("--csv", type=Path, help="table file")
    parser.add_argument("--plot", type=Path, help="plot file")
    arguments, train_arguments = parser.parse_known_args()
    for flag, file in (("--csv", arguments.csv), ("--plot", arguments.plot)):
        if file:
            prepare_output_file(file, flag)
    curves = {config: train(config, [*train_arguments, *flags], arguments.steps) for config, flags in CONFIGS.items()}
    if arguments.csv:
        write_table(curves, arguments.csv)
    if arguments.plot:
        plot(curves, arguments.plot)
    for name in curves["fp32"]:
        last = slice(-5 * WINDOW, None)
        means = {config: fmean(curves[config][name][last]) for config in curves}
        print(f"{name:>8}, last {5 * WINDOW} steps: " + ", ".join(f"{config} {mean:.4f}" for config, mean in means.items()))


if __name__ == "__main__":
    main()
