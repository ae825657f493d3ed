"""Free memory of a device."""

import psutil
import torch

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
