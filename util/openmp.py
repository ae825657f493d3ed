"""Threads of the CPU's operators: how many, and how they wait. OpenMP reads both when torch is imported.

This module must not import torch.
"""

import os
from pathlib import Path

# Iterations that a thread spins at a barrier before it sleeps; libgomp's default is 300,000. Beside other programs, a thread
# that spins takes the core from a thread it waits for. These iterations last some 10 to 45 microseconds, longer than most
# waits inside a step. docs/performance.md has measurements.
SPIN_COUNT = 1000
CGROUPS = Path("/sys/fs/cgroup")


def configure_openmp() -> None:
    """Let idle threads sleep sooner, and start no more threads than the container may use cores.

    Call it before torch is imported. The user's own OMP_* and GOMP_* variables are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    limit = cpu_limit()
    if limit is not None and limit < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(limit))))


def cpu_limit() -> float | None:
    """Return how many cores the cgroups of this process may use on average, such as 1.5; None: no limit, or not Linux.

    OpenMP counts the cores that a process may run on, and does not know this limit, which `docker run --cpus` sets.
    """
    try:
        entries = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    limits = []
    for controllers, path in entries:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        group = root / path.lstrip("/")
        # Inside a container the path may be that of the host, while the mounted folder is the container's own.
        for folder in [root, *(parent for parent in [group, *group.parents] if parent.is_relative_to(root))]:
            limits.append(_quota_v1(folder) if controllers else _quota_v2(folder))
    return min((limit for limit in limits if limit is not None), default=None)


def _quota_v2(folder: Path) -> float | None:
    """Return the limit in `cpu.max` of a cgroup, in cores; None: there is none."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Return the limit in `cpu.cfs_quota_us` of a cgroup of version 1, in cores; None: there is none."""
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return None if quota < 0 else quota / period
    except (OSError, ValueError):
        return None
