"""Measure training steps, the data pipeline and the training loop.

    python scripts/benchmarks/benchmark.py --model cut --size 256
    python scripts/benchmarks/benchmark.py --all --page docs/performance.md --json docs/performance/benchmark.json

Each configuration runs in its own process: the published step, the default step, and the default step with each performance
flag. Times are ratios to a reference workload Y, timed alternately with the step, so that they hold on a noisy machine too.
Y is 18 convolutions of 256 channels at a quarter of the image size. `--all` measures everything in docs/performance.md.
Options that are not listed below are passed to train.py.
"""

import json
import platform
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark_data import make_photo_dataset, measure_loading, measure_loop
from measure_step import Case
from results import Results, markdown, plot, replace_results, save_results, title
from training_steps import CONFIGS, DEFAULT, METHODS, REFERENCE

from util.cli import CLIParser, image_size, positive_int
from util.errors import UserError, exit_on_user_error
from util.files import prepare_output_file
from util.runtime.device import select_device

MEASURE_STEP = Path(__file__).with_name("measure_step.py")
ON_CPU = [REFERENCE, DEFAULT, "channels_last", "grad_checkpoint", "bf16", "bf16, channels_last", "fast"]
ON_GPU = [config for config in CONFIGS if config != "accumulate 2"]
MINIMAL = [REFERENCE, DEFAULT, "fast"]
# What --all measures on a device: method, size in pixels, batch, configurations, rounds.
Run = tuple[str, int, int, list[str], int]
ALL: dict[str, list[Run]] = {
    "cpu": [
        ("cut", 256, 1, ON_CPU, 3),
        ("fastcut", 256, 1, MINIMAL, 3),
        ("cycle_gan", 256, 1, MINIMAL, 2),
        ("sincut", 64, 16, MINIMAL, 3),
    ],
    "cuda": [
        ("cut", 256, 1, ON_GPU, 20),
        ("cut", 256, 16, ON_GPU, 10),
        ("fastcut", 256, 1, MINIMAL, 20),
        ("cycle_gan", 256, 1, MINIMAL, 20),
        ("sincut", 64, 16, MINIMAL, 20),
    ],
}


def parse(argv: list[str] | None = None) -> tuple[Namespace, list[str]]:
    """Parse the command line. Return the benchmark's options, and the rest for train.py."""
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="measure everything in docs/performance.md")
    parser.add_argument("--model", choices=list(METHODS), default="cut", help="method")
    parser.add_argument("--size", type=image_size, default=256, help="image side in pixels")
    parser.add_argument("--batch", type=positive_int, default=1, help="images per step")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="device to measure")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=list(CONFIGS),
        metavar="CONFIG",
        help=f"configurations to measure: {', '.join(map(repr, CONFIGS))}; default: all that suit the device",
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="timings per configuration")
    parser.add_argument("--no_memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--data", action="store_true", help="measure the data pipeline and the training loop too")
    parser.add_argument("--json", type=Path, help="results file; results of other devices in it are kept")
    parser.add_argument("--plot", type=Path, help="plot file")
    parser.add_argument("--page", type=Path, help="Markdown page whose tables of this device are replaced")
    return parser.parse_known_args(argv)


def plan_runs(arguments: Namespace, device_type: str) -> list[Run]:
    """Return what to measure. Raises UserError if the default configuration is missing."""
    if arguments.all:
        return ALL[device_type]
    chosen = arguments.ways or (ON_CPU if device_type == "cpu" else ON_GPU)
    if DEFAULT not in chosen:
        raise UserError(f"--ways: must include {DEFAULT}. The other configurations are compared with it.")
    configs = [config for config in CONFIGS if config in chosen]
    return [(arguments.model, arguments.size, arguments.batch, configs, arguments.rounds)]


def run_case(case: Case) -> dict[str, Any]:
    """Measure the case in its own process. Return the result, or {"error": message} if the process failed."""
    command = [sys.executable, str(MEASURE_STEP), json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"error": f"killed by {signal.Signals(-done.returncode).name}"}
    message = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"error": message.removeprefix("error: ")}


def measure_runs(runs: list[Run], arguments: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Measure all cases; yield the results so far after each case.

    Raises UserError if every case of a run failed.
    """
    results: list[dict[str, Any]] = []
    with tqdm(total=sum(len(configs) for _, _, _, configs, _ in runs), unit="case", disable=None) as progress:
        for method, size, batch, configs, rounds in runs:
            measured: dict[str, dict[str, Any]] = {}
            run = {"method": method, "size": size, "batch": batch, "configs": measured}
            results.append(run)
            for config in configs:
                progress.set_description(f"{title(run)}, {config}")
                measured[config] = run_case(Case(method, size, batch, config, rounds, arguments))
                progress.update()
                yield results
            errors = [result.get("error") for result in measured.values()]
            if all(errors):
                raise UserError(errors[0])


def machine_info(device: torch.device) -> dict[str, Any]:
    """Describe the device and the software. "device" names one kind of machine, whose results are comparable."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "type": device.type,
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """Return the CPU's model, its widest vector units and PyTorch's threads: "Intel Xeon with AMX, 2 threads"."""
    found = torch.cpu.get_capabilities()
    units = [name for key, name in (("amx_bf16", "AMX"), ("avx512_f", "AVX-512"), ("avx2", "AVX2")) if found.get(key)]
    model = found.get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{model}{f' with {units[0]}' if units else ''}, {threads} thread{'s' if threads > 1 else ''}"


def write(results: Results, arguments: Namespace) -> None:
    """Write the results to the files that the arguments name."""
    devices = {results["machine"]["device"]: results}
    if arguments.json:
        devices = save_results(arguments.json, results)
    if arguments.page:
        replace_results(arguments.page, results)
    if arguments.plot:
        plot(devices, arguments.plot)


@exit_on_user_error()
def main() -> None:
    arguments, extra = parse()
    gpu_ids = {"auto": "auto", "cpu": "-1", "cuda": "0"}[arguments.device]
    device = select_device(gpu_ids)
    if device.type == "mps":
        raise UserError("--device auto: Apple GPUs are not supported here. Use --device cpu.")
    if arguments.page and not arguments.page.is_file():
        raise UserError(f"--page {arguments.page}: no such file. Check the path.")
    for flag, file in (("--json", arguments.json), ("--plot", arguments.plot)):
        if file:
            prepare_output_file(file, flag)
    results: Results = {"machine": machine_info(device)}
    train_arguments = ["--gpu_ids", "-1" if device.type == "cpu" else "0", *extra]
    for runs in measure_runs(plan_runs(arguments, device.type), train_arguments):
        if arguments.no_memory:
            for result in runs[-1]["configs"].values():
                result.pop("peak_GB", None)
        results["runs"] = runs
        write(results, arguments)
    if arguments.data or arguments.all:
        with tempfile.TemporaryDirectory() as folder:
            make_photo_dataset(Path(folder))
            results["data"] = measure_loading(Path(folder), rounds=3)
            results["loop"] = measure_loop(Path(folder), device, steps=3 if device.type == "cpu" else 100)
        write(results, arguments)
    print(markdown(results))


if __name__ == "__main__":
    main()
