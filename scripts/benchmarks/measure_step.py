"""The most memory that training steps take: run by scripts/benchmarks/benchmark.py in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is run from anywhere

from training_steps import alternate_flips, build, stepper

from util.runtime.cuda_graph import WARMUP_STEPS


def peak_memory(method: str, way: str, arguments: list[str]) -> float:
    """GB that a step takes at most, in a process of its own, above what importing the program takes."""
    command = [sys.executable, __file__, method, way, json.dumps(arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(result.stdout)


def print_own_memory(method: str, way: str, arguments: list[str]) -> None:
    """The other end of `peak_memory`. On a GPU it takes more than one step, so that recorded ones are played back."""
    before = peak_rss()
    alternate_flips()
    model = build(method, way, arguments)
    step = stepper(model)
    for _ in range(1 if model.device.type == "cpu" else 2 * WARMUP_STEPS + 4):
        step()
    on_gpu = model.device.type == "cuda"
    print(torch.cuda.max_memory_reserved() / 1e9 if on_gpu else peak_rss() - before)


def peak_rss() -> float:
    """GB of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


if __name__ == "__main__":
    method, way, arguments = sys.argv[1:]
    print_own_memory(method, way, json.loads(arguments))
