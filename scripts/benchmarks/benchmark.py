"""Measures training steps, the data pipeline and the loop that joins them.

The step as published, ours, and ours with each flag take turns in one process, beside a yardstick Y: 18 convolutions of 256
channels at a quarter of the images' size. Ratios to Y hold on a noisy machine too. `--all` measures what
docs/performance.md holds. Options that are not listed below go to the training.
"""

import gc
import json
import platform
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]  # the script is run from anywhere

from benchmark_data import draw_photographs, measure
from measure_step import peak_memory
from results import draw, markdown, replace_figures
from training_steps import (
    CONFIGS,
    DEFAULT,
    METHODS,
    REFERENCE,
    alternate_flips,
    build,
    count_flops,
    size_arguments,
    stepper,
    yardstick,
)

from data import create_dataset
from models import create_model
from options import TrainOptions
from util.cli import (
    CLIParser,
    image_size,
    positive_int,
)
from util.errors import UserError, exit_on_user_error
from util.runtime.cuda_graph import WARMUP_STEPS
from util.runtime.device import describe_device, select_device

ON_CPU = [REFERENCE, DEFAULT, "channels_last", "grad_checkpoint", "bf16", "bf16, channels_last", "fast"]
MINIMAL = [REFERENCE, DEFAULT, "fast"]
# What --all measures on this device: method, side in pixels, batch, ways, rounds.
ALL: dict[str, list[tuple[str, int, int, list[str], int]]] = {
    "cpu": [
        ("cut", 256, 1, ON_CPU, 3),
        ("fastcut", 256, 1, MINIMAL, 3),
        ("cycle_gan", 256, 1, MINIMAL, 2),
        ("sincut", 64, 16, MINIMAL, 3),
    ],
    "cuda": [
        ("cut", 256, 1, [way for way in CONFIGS if way != "accumulate 2"], 20),
        ("cut", 256, 16, [way for way in CONFIGS if way != "accumulate 2"], 10),
        ("fastcut", 256, 1, MINIMAL, 20),
        ("cycle_gan", 256, 1, MINIMAL, 20),
        ("sincut", 64, 16, MINIMAL, 20),
    ],
}


def seconds(run: Callable[[], Any], device: torch.device, repeat: int = 1) -> float:
    """How long one of `repeat` runs takes, from an idle device to an idle device."""
    wait(device)
    started = time.perf_counter()
    for _ in range(repeat):
        run()
    wait(device)
    return (time.perf_counter() - started) / repeat


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of this device in large matrix products, the best of some."""
    side = 8192 if device.type == "cuda" else 2048
    factors = [torch.randn(side, side, device=device, dtype=dtype) for _ in range(2)]
    return 2 * side**3 / min(seconds(lambda: torch.mm(*factors), device) for _ in range(6))


def measure_steps(
    method: str, side: int, batch: int, ways: list[str], rounds: int, device: torch.device, extra: list[str], memory: bool
) -> dict[str, Any]:
    """The figures of one method: {"Y": seconds, "ways": {way: {...}}}."""
    arguments = [*size_arguments(method, side, batch), "--gpu_ids", "-1" if device.type == "cpu" else "0", *extra]
    alternate_flips()
    steps: dict[str, Callable[[], None]] = {}
    figures: dict[str, dict[str, Any]] = {}
    on_cpu = device.type == "cpu"
    pairs = method == "fastcut"  # a flipped step and one that is not
    Y = yardstick(side, batch, device)
    Y()

    total = len(ways) * (2 if memory else 1) + rounds
    with tqdm(total=total, desc=f"{method} {side} px, batch {batch}", disable=None) as progress:
        for way in ways:
            model = build(method, way, arguments)
            steps[way] = stepper(model)
            if way in (REFERENCE, DEFAULT):
                flops = count_flops(steps[way])  # what others compute twice, to save memory, does not count
            period = 2 if pairs or "--accumulate" in CONFIGS[way] else 1  # steps until all is as it was
            for _ in range(period * (1 if on_cpu else WARMUP_STEPS + 2)):
                steps[way]()
            repeat = period if on_cpu else 10 * period
            figures[way] = {"flops": flops, "seconds": [], "repeat": repeat, "format": model.performance.precision}
            progress.update()
        yards = []
        for _ in range(rounds):
            for way, step in steps.items():
                yards.append(seconds(Y, device, 1 if on_cpu else 20))
                figures[way]["seconds"].append(seconds(step, device, figures[way]["repeat"]))
            progress.update()
        steps.clear()
        gc.collect()
        if memory:
            for way in ways:
                figures[way]["peak_GB"] = peak_memory(method, way, arguments)
                progress.update()

    result: dict[str, Any] = {"method": method, "side": side, "batch": batch, "Y": median(yards), "Y_all": yards, "ways": {}}
    for way, found in figures.items():
        found["median"] = median(found["seconds"])
        found["over_Y"] = found["median"] / result["Y"]
        found["images_per_second"] = batch / found["median"]
        result["ways"][way] = found
    return result


def measure_loop(folder: Path, device: torch.device, steps: int) -> dict[str, float]:
    """Images per second of CUT at 256 px from JPEG files: the step alone, and the whole loop."""
    arguments = ["--dataroot", str(folder), "--num_threads", "2", "--gpu_ids", "-1" if device.type == "cpu" else "0"]
    model = create_model(TrainOptions().parse(arguments))
    dataset = create_dataset(model.opt)
    step = stepper(model)
    step()
    alone, looped = [], []
    dataset.set_epoch(1)
    batches = iter(dataset)
    next(batches)
    for _ in tqdm(range(steps), "loop", disable=None):
        alone.append(seconds(step, device))
        started = time.perf_counter()
        model.set_input(next(batches))
        model.optimize_parameters()
        wait(device)
        looped.append(time.perf_counter() - started)
    return {"step alone": 1 / median(alone), "whole loop": 1 / median(looped)}


def machine(device: torch.device) -> dict[str, Any]:
    """Where and when."""
    return {
        "date": date.today().isoformat(),
        "device": describe_device(device),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "bf16_units": bool(torch.cpu.get_capabilities().get("amx_bf16")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_flops": {"fp32": peak_rate(device, torch.float32), "bf16": peak_rate(device, torch.bfloat16)},
    }


def parse(argv: list[str] | None = None) -> tuple[Namespace, list[str]]:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="everything that docs/performance.md holds")
    parser.add_argument("--model", choices=list(METHODS), default="cut", help="the method")
    parser.add_argument("--size", type=image_size, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=positive_int, default=1, help="images per step")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=list(CONFIGS),
        metavar="WAY",
        help=f"what to measure, of {', '.join(map(repr, CONFIGS))}; by default what fits the device",
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="measurements of each")
    parser.add_argument("--no_memory", action="store_true", help="leave out the processes that measure peak memory")
    parser.add_argument("--data", action="store_true", help="the data pipeline and the whole loop as well")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--plot", type=Path, help="file for a drawing")
    parser.add_argument("--page", type=Path, help="page whose figures are replaced, such as docs/performance.md")
    return parser.parse_known_args(argv)


def run(arguments: Namespace, extra: list[str]) -> dict[str, Any]:
    """All figures that the arguments ask for. `extra` are options of the training, the same for every way."""
    device = select_device({"auto": "auto", "cpu": "-1", "cuda": "0"}[arguments.device])
    if device.type == "mps":
        raise UserError("nothing is measured on Apple GPUs; --device cpu measures the CPU")
    default_ways = ON_CPU if device.type == "cpu" else [way for way in CONFIGS if way != "accumulate 2"]
    one = (arguments.model, arguments.size, arguments.batch, arguments.ways or default_ways, arguments.rounds)
    plan: Iterable[tuple[str, int, int, list[str], int]] = ALL[device.type] if arguments.all else [one]
    report: dict[str, Any] = {"machine": machine(device), "runs": []}
    for method, side, batch, ways, rounds in plan:
        if DEFAULT not in ways:
            raise UserError(f"--ways has to contain {DEFAULT}, which the others are compared with")
        ways = [way for way in CONFIGS if way in ways]
        report["runs"].append(
            measure_steps(method, side, batch, ways, rounds, device, extra, memory=not arguments.no_memory)
        )
    if arguments.data or arguments.all:
        with tempfile.TemporaryDirectory() as folder:
            draw_photographs(Path(folder))
            report["data"] = measure(Path(folder), rounds=3)
            report["loop"] = measure_loop(Path(folder), device, steps=3 if device.type == "cpu" else 100)
    return report


def main() -> None:
    with exit_on_user_error():
        arguments, extra = parse()
        report = run(arguments, extra)
        print(markdown(report))
        for file in filter(None, (arguments.json, arguments.plot)):
            file.parent.mkdir(parents=True, exist_ok=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
        if arguments.page:
            replace_figures(arguments.page, markdown(report))
        if arguments.plot:
            draw(report, arguments.plot)


if __name__ == "__main__":
    main()
