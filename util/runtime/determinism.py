"""--deterministic: what PyTorch can do so that the same step always has the same result, bit for bit."""

import os

import torch


def set_deterministic() -> None:
    """Has PyTorch take algorithms whose results do not depend on timing, and warn of operations that have none.

    To be called before anything is computed on a GPU: cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False  # which would choose the algorithm that was the fastest this time
    torch.use_deterministic_algorithms(True, warn_only=True)
