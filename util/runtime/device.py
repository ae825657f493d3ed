"""Which device to compute on."""

import torch

from util.errors import UserError

AUTO, CPU = "auto", "-1"  # of --gpu_ids


def choose_device(gpu_ids: str) -> torch.device:
    """The device that --gpu_ids means: "auto" the best there is, "-1" the CPU, "N" the CUDA GPU of that number.

    Raises UserError where the value is none of these, or there is no such GPU.
    """
    if gpu_ids == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        numbers = [int(number) for number in gpu_ids.split(",") if number.strip()]
    except ValueError:
        raise UserError(f"--gpu_ids {gpu_ids}: give the number of a GPU, such as 0, or -1 for the CPU") from None
    wanted = [number for number in numbers if number >= 0]
    if not wanted:
        return torch.device("cpu")
    if len(wanted) > 1:
        raise UserError(f"--gpu_ids {gpu_ids}: one run computes on one GPU; name one of them")
    available = torch.cuda.device_count()
    if wanted[0] >= available:
        there = f"this machine has {available} CUDA GPU(s)" if available else "PyTorch sees no CUDA GPU here"
        raise UserError(f"--gpu_ids {gpu_ids}: {there}; --gpu_ids -1 computes on the CPU")
    return torch.device("cuda", wanted[0])


def describe_device(device: torch.device) -> str:
    """For people: "GPU 0 (NVIDIA H200)", "the CPU (2 threads)"."""
    if device.type == "cuda":
        return f"GPU {device.index} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "the Apple GPU"
    return f"the CPU ({torch.get_num_threads()} threads)"
