"""How the C library hands memory to a run on the CPU."""

import ctypes
import sys

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
