"""Measure one training step: time, memory, operations and GPU kernels.

scripts/benchmarks/benchmark.py runs this program once per `Case`, each in its own process. The argument is the case as JSON;
the last line of the output is the result as JSON. Separate processes keep cases independent: peak memory, compiled code,
and settings such as TF32 or cudnn.benchmark do not carry over.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training_steps import (
    CONFIGS,
    DEFAULT,
    REFERENCE,
    alternate_flips,
    build_model,
    count_flops,
    make_reference_workload,
    make_step_fn,
    size_arguments,
)

from models.base_model import MIN_SAFE_SIZE
from util.errors import UserError, exit_on_user_error, is_out_of_memory
from util.runtime.cuda_graph import WARMUP_STEPS


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        method: a key of `METHODS`.
        size: image side in pixels.
        batch: images per step.
        config: a key of `CONFIGS`.
        rounds: number of timings.
        arguments: further arguments of train.py, --gpu_ids included.
    """

    method: str
    size: int
    batch: int
    config: str
    rounds: int
    arguments: list[str]


def measure(case: Case) -> dict[str, Any]:
    """Measure the case in this process.

    Returns:
        Times in seconds, memory in GB (10^9 bytes), rates per second:
        seconds, Y: timings of the step and of the reference workload, interleaved.
        ratios: each timing of the step divided by the mean of the Y before and after it.
        median, over_Y: medians of `seconds` and `ratios`.
        images_per_second, peak_GB, precision, peak_flops (of large matrix products at this precision).
        flops: operations of a step; only for the reference and the default step.
        kernels, device_seconds, host_seconds: per step; only on a GPU.

    Raises UserError if the images are too small for the method.
    """
    memory_before = peak_rss()
    alternate_flips()
    model = build_model(case.method, case.config, [*size_arguments(case.method, case.size, case.batch), *case.arguments])
    step, device = make_step_fn(model), model.device
    on_gpu = device.type == "cuda"
    # FastCUT alternates two kinds of steps. With --accumulate, only every second call updates the weights.
    period = 2 if case.method == "fastcut" or "--accumulate" in CONFIGS[case.config] else 1
    try:
        # On a GPU, include CUDA graph capture and a few replays.
        for _ in range((2 * WARMUP_STEPS + 4) * period if on_gpu else 1):
            step()
    except (ValueError, RuntimeError) as error:
        if case.size >= MIN_SAFE_SIZE or is_out_of_memory(error):
            raise
        raise UserError(f"--size {case.size}: too small for --model {case.method} ({error}). Use larger images.") from None
    result: dict[str, Any] = {"peak_GB": torch.cuda.max_memory_reserved() / 1e9 if on_gpu else peak_rss() - memory_before}

    if case.config in (REFERENCE, DEFAULT):
        result["flops"] = count_flops(step, period)
    result |= time_interleaved(step, make_reference_workload(case.size, case.batch, device), device, case.rounds, period)
    result["images_per_second"] = case.batch / result["median"]
    if on_gpu:
        result |= profile_kernels(step, period) | {"host_seconds": host_seconds(step, device, 5 * period)}

    tf32 = on_gpu and torch.backends.cudnn.allow_tf32  # PyTorch's default for convolutions in float32
    precision = model.performance.precision
    result["precision"] = "tf32" if tf32 and precision == "fp32" else precision
    result["peak_flops"] = peak_flops(device, result["precision"])
    return result


def time_interleaved(
    step: Callable[[], None], reference: Callable[[], None], device: torch.device, rounds: int, period: int
) -> dict[str, Any]:
    """Time the step and the reference workload alternately, so that a change in machine load affects both."""
    step_repeats, reference_repeats = (10 * period, 20) if device.type == "cuda" else (period, 1)
    reference()
    for _ in range(period):
        step()
    seconds, references = [], [timed(reference, device, reference_repeats)]
    for _ in range(rounds):
        seconds.append(timed(step, device, step_repeats))
        references.append(timed(reference, device, reference_repeats))
    ratios = [2 * s / (references[i] + references[i + 1]) for i, s in enumerate(seconds)]
    return {"seconds": seconds, "Y": references, "ratios": ratios, "median": median(seconds), "over_Y": median(ratios)}


def timed(run: Callable[[], Any], device: torch.device, repeats: int = 1) -> float:
    """Return the mean wall-clock time of `run` in seconds, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def host_seconds(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Return the CPU time that a step takes to be launched, without waiting for the device."""
    synchronize(device)
    start = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - start) / repeats


def profile_kernels(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Profile some steps on the GPU; return the means per step as `sum_events`."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    return sum_events(profiler.events(), DeviceType.CUDA, steps)


def sum_events(events: Iterable[FunctionEvent], device_type: DeviceType, steps: int) -> dict[str, float]:
    """Return the number of kernels (copies and memsets included) and their total time in seconds, per step."""
    kernels = [event for event in events if event.device_type == device_type and not event.is_user_annotation]
    microseconds = sum(event.time_range.elapsed_us() for event in kernels)
    return {"kernels": len(kernels) / steps, "device_seconds": microseconds / 1e6 / steps}


def peak_flops(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of large matrix products at this precision: the best of six.

    Changes the precision of float32 products in this process: call it last.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b), device) for _ in range(6))


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_rss() -> float:
    """Return the largest amount of memory that this process has held, in GB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


if __name__ == "__main__":
    with exit_on_user_error():
        print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
