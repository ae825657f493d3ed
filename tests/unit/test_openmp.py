"""Settings of OpenMP before torch is imported, and the notice that other programs use the CPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from util import openmp
from util.runtime.cpu_contention import CPUContention

CPU_GROUP = Path("/sys/fs/cgroup/cpu/cut_test")
PRINT_SETTINGS = (
    "from util.openmp import configure_openmp; configure_openmp(); import os, torch; "
    "print(os.environ['GOMP_SPINCOUNT'] if 'GOMP_SPINCOUNT' in os.environ else '', torch.get_num_threads())"
)


def settings(prefix: str = "", **variables: str) -> list[str]:
    """Return the spin count and the number of threads in a new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = ["sh", "-c", f'{prefix} exec "$0" -c "$1"', sys.executable, PRINT_SETTINGS]
    finished = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True, timeout=100)
    return finished.stdout.rstrip("\n").split(" ")


def test_idle_threads_sleep_sooner_unless_the_user_chose() -> None:
    cores = str(len(os.sched_getaffinity(0)))
    assert settings() == [str(openmp.SPIN_COUNT), cores]
    assert settings(GOMP_SPINCOUNT="7", OMP_NUM_THREADS="1") == ["7", "1"]
    assert settings(OMP_WAIT_POLICY="active") == ["", cores]


@pytest.mark.parametrize(("text", "limit"), [("150000 100000", 1.5), ("max 100000", None), ("broken", None)])
def test_limit_of_a_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(openmp, "CGROUPS", tmp_path)
    assert openmp.cpu_limit() == limit


def test_no_more_threads_than_the_container_may_use() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    try:
        CPU_GROUP.mkdir()
    except OSError as error:
        pytest.skip(f"cannot create a cgroup of version 1: {error}")
    try:
        (CPU_GROUP / "cpu.cfs_quota_us").write_text("150000")
        join = f"echo $$ > {CPU_GROUP}/cgroup.procs;"
        assert settings(join)[1] == "1"
        assert settings(join, OMP_NUM_THREADS="2")[1] == "2"
    finally:
        CPU_GROUP.rmdir()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs the scheduler statistics of Linux")
def test_notice_when_other_programs_take_the_core() -> None:
    """Five busy processes share one core with this one, which therefore waits for it most of the time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    neighbors = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(5)]
    try:
        contention = CPUContention(window=1.0)
        assert contention.check() is None  # within the window
        end = time.perf_counter() + 1.5
        while time.perf_counter() < end:
            pass
        notice = contention.check()
        assert notice is not None and "other programs use the CPU" in notice
        time.sleep(1.1)
        assert contention.check() is None  # only one notice
    finally:
        os.sched_setaffinity(0, cores)
        for process in neighbors:
            process.kill()
            process.wait()


def test_no_notice_without_work_to_do() -> None:
    contention = CPUContention(window=0.2)
    time.sleep(0.3)
    assert contention.check() is None
