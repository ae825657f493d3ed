"""Devices: selection, memory, and settings of the CPU allocator and of determinism."""

import ctypes
import os
import sys

import psutil
import torch

from util.errors import UserError
from util.runtime.distributed import launched_world_size, local_rank

AUTO, CPU = "auto", "-1"  # values of --gpu_ids


def select_device(gpu_ids: str) -> torch.device:
    """Return the device for --gpu_ids: "auto" is the best available device, "-1" the CPU, "N" the CUDA GPU N.

    If several processes train together on this machine, each gets its own GPU, out of "N,M..." or of all GPUs.

    A CUDA GPU becomes PyTorch's current device: streams, CUDA graphs and pinned memory belong to the current device, and
    without this call they would belong to GPU 0.

    Raises UserError if the value is invalid, or there is no such GPU.
    """
    if gpu_ids == AUTO:
        if torch.cuda.is_available():
            return _make_current(_local_gpu(list(range(torch.cuda.device_count()))))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    listed = parse_gpu_ids(gpu_ids)
    if not listed:
        return torch.device("cpu")
    if launched_world_size() == 1 and len(listed) > 1:
        raise UserError(f"--gpu_ids {gpu_ids}: only train.py uses several GPUs. Name one of them.")
    return _make_current(_local_gpu(listed))


def _make_current(gpu: int) -> torch.device:
    """Make this CUDA GPU PyTorch's current device, and return it."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def on_gpu(device: torch.device) -> bool:
    """Return True for a CUDA GPU, where a step should launch few kernels.

    At small batch sizes a GPU waits for the program, which launches kernels one by one. On the CPU launches cost nothing,
    and a step computes as little as possible.
    """
    return device.type == "cuda"


def parse_gpu_ids(gpu_ids: str) -> list[int]:
    """Return the GPU numbers of --gpu_ids; an empty list for "auto" and for the CPU.

    Raises UserError if the value is invalid, or there is no such GPU.
    """
    if gpu_ids == AUTO:
        return []
    try:
        numbers = [int(number) for number in gpu_ids.split(",") if number.strip()]
        if not numbers:  # such as an empty variable of a script
            raise ValueError
    except ValueError:
        raise UserError(f"--gpu_ids {gpu_ids}: must be a GPU number such as 0. Use -1 for the CPU.") from None
    listed = list(dict.fromkeys(number for number in numbers if number >= 0))
    available = torch.cuda.device_count()
    if any(number >= available for number in listed):
        found = f"PyTorch finds {available or 'no'} CUDA {'GPU' if available <= 1 else 'GPUs'}"
        raise UserError(f"--gpu_ids {gpu_ids}: {found}. Use --gpu_ids -1 for the CPU.")
    return listed


def _local_gpu(gpus: list[int]) -> int:
    """Return the GPU of this process out of those of all processes on this machine."""
    if local_rank() >= len(gpus):
        raise UserError(
            f"--gpu_ids: process {local_rank()} of this machine has no GPU of its own ({len(gpus)} available). "
            "Start one process per GPU."
        )
    return gpus[local_rank()]


def describe_device(device: torch.device) -> str:
    """Return the device's name for messages, such as "GPU 0 (NVIDIA H200)" or "the CPU (2 threads)"."""
    if device.type == "cuda":
        return f"GPU {device.index} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "the Apple GPU"
    threads = torch.get_num_threads()
    return f"the CPU ({threads} thread{'' if threads == 1 else 's'})"


GIB = 2**30
USABLE_FRACTION = 0.8  # of the free memory; other programs need some, and allocations leave gaps


def free_memory(device: torch.device) -> int:
    """Return the bytes that may be used on the device."""
    if device.type == "cuda":
        reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return usable_gpu_memory(torch.cuda.mem_get_info(device)[0], reserved, allocated)
    return int(psutil.virtual_memory().available * USABLE_FRACTION)


def usable_gpu_memory(free: int, reserved: int, allocated: int) -> int:
    """Return the bytes that may be used on a GPU.

    Args:
        free: bytes that the driver reports as free.
        reserved: bytes that PyTorch's caching allocator holds. The driver counts them as used.
        allocated: bytes of these that tensors use. The rest is free for new tensors.
    """
    return int((free + reserved - allocated) * USABLE_FRACTION)


def format_gib(size: float) -> str:
    """Return a number of bytes for messages, such as "9.2 GiB"."""
    return f"{size / GIB:.1f} GiB"


# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def tune_malloc() -> None:
    """Make glibc's malloc reuse the memory of freed feature maps. Do nothing with another C library.

    By default glibc maps new memory for every block above 32 MB, and the kernel zeroes each page at first touch. That took
    a quarter of a CUT step at 256 pixels on the CPU.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def set_deterministic() -> None:
    """Make PyTorch use deterministic algorithms, and warn about operations that have none.

    Call it before the first computation on a GPU: cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False  # it selects algorithms by measured time
    torch.use_deterministic_algorithms(True, warn_only=True)
