"""The device to compute on."""

import ctypes
import os
import sys

import psutil
import torch

from util.errors import UserError
from util.runtime.distributed import launched_world_size, local_rank

AUTO, CPU = "auto", "-1"  # of --gpu_ids


def select_device(gpu_ids: str) -> torch.device:
    """Return the device for --gpu_ids: "auto" is the best available device, "-1" the CPU, "N" the CUDA GPU N. If several
    processes train together on this machine, each gets its own GPU, out of "N,M..." or of all GPUs.

    A CUDA GPU becomes PyTorch's current device: streams, CUDA graphs and pinned memory belong to the current device, and
    without this call they would belong to GPU 0.

    Raises UserError if the value is invalid, or there is no such GPU.
    """
    if gpu_ids == AUTO:
        if torch.cuda.is_available():
            return _made_current(_own(list(range(torch.cuda.device_count())), "this machine has"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    listed = parse_gpu_ids(gpu_ids)
    if not listed:
        return torch.device("cpu")
    if launched_world_size() == 1 and len(listed) > 1:
        raise UserError(f"--gpu_ids {gpu_ids}: one run computes on one GPU; name one of them")
    return _made_current(_own(listed, f"--gpu_ids {gpu_ids} names"))


def _made_current(gpu: int) -> torch.device:
    """Make this CUDA GPU PyTorch's current device, and return it."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def parse_gpu_ids(gpu_ids: str) -> list[int]:
    """The numbers of the GPUs that --gpu_ids names, none for "auto" and for the CPU. Raises UserError as `select_device`."""
    if gpu_ids == AUTO:
        return []
    try:
        numbers = [int(number) for number in gpu_ids.split(",") if number.strip()]
        if not numbers:  # as where a script's variable was empty
            raise ValueError
    except ValueError:
        raise UserError(f"--gpu_ids {gpu_ids}: give the number of a GPU, such as 0, or -1 for the CPU") from None
    listed = list(dict.fromkeys(number for number in numbers if number >= 0))
    available = torch.cuda.device_count()
    if any(number >= available for number in listed):
        there = f"this machine has {available} CUDA GPU(s)" if available else "PyTorch sees no CUDA GPU here"
        raise UserError(f"--gpu_ids {gpu_ids}: {there}; --gpu_ids -1 computes on the CPU")
    return listed


def _own(gpus: list[int], who_says: str) -> int:
    """The GPU of this process among those for all on this machine."""
    if local_rank() >= len(gpus):
        raise UserError(f"{who_says} {len(gpus)} GPU(s), too few for the processes started here: one takes one GPU")
    return gpus[local_rank()]


def describe_device(device: torch.device) -> str:
    """For people: "GPU 0 (NVIDIA H200)", "the CPU (2 threads)"."""
    if device.type == "cuda":
        return f"GPU {device.index} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "the Apple GPU"
    return f"the CPU ({torch.get_num_threads()} threads)"


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
    """For people: "9.2 GiB"."""
    return f"{size / GIB:.1f} GiB"


# The names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def tune_malloc() -> None:
    """Lets the process keep the memory of feature maps that are freed, for the next ones.

    glibc takes every block above 32 MB freshly from the kernel, which fills it with zeros, page by page, at first touch:
    a quarter of a CUT step at 256 pixels went into that. Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def set_deterministic() -> None:
    """Has PyTorch take algorithms whose results do not depend on timing, and warn of operations that have none.

    To be called before anything is computed on a GPU: cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False  # which would choose the algorithm that was the fastest this time
    torch.use_deterministic_algorithms(True, warn_only=True)
