"""Starting a program anew in several processes, as torchrun would; util/runtime/distributed.py is what they then share."""

import logging
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from util.errors import FAILURE_STATUS, SIGNALLED
from util.signals import STOP_SIGNALS, is_free

SHUTDOWN_TIMEOUT = 60  # that the processes have after a stop signal, or after one of them has failed


def launch_processes(count: int, program: Sequence[str]) -> int:
    """Runs `program`, a Python file and its arguments, in `count` processes on this machine, and returns their exit status.

    When one fails or this process is asked to stop, all are.
    """
    logging.disable()  # of PyTorch's launcher: the processes say themselves what is wrong
    handled = [number.name for number in STOP_SIGNALS if number == signal.SIGINT or is_free(number)]
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=SHUTDOWN_TIMEOUT,
        signals_to_handle=",".join(handled),
    )
    try:
        elastic_launch(config, sys.executable)(*program)
    except ChildFailedError as failed:
        for number, failure in failed.failures.items():
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which the others are asked to end with
                print(f"error: process {number} of the run was ended by {failure.signal_name()}", file=sys.stderr)
                return FAILURE_STATUS
        # The one that knows what went wrong says so; the others only fail.
        return max(FAILURE_STATUS, *(failure.exitcode for failure in failed.failures.values()))
    except SignalException as asked:
        return SIGNALLED + asked.sigval
    return 0
