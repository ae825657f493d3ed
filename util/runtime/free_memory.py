"""How much memory there is to use."""

import psutil
import torch

GIB = 2**30
SHARE_TO_USE = 0.8  # of the memory that is free now; other programs go on living


def free_memory(device: torch.device) -> int:
    """Bytes that may be used on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE_TO_USE)
    return int(psutil.virtual_memory().available * SHARE_TO_USE)


def in_gib(size: float) -> str:
    """For people: "9.2 GiB"."""
    return f"{size / GIB:.1f} GiB"
