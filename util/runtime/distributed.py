"""Several processes that train one model together, by PyTorch's own means; for a single one everything here does nothing.

The run is that of one process with the whole batch. Whatever is drawn or remembered (positions, flips, noise, the history of
translations) is therefore the same in every process, and only the images differ: of each batch, process r of n has the
images r, r + n, r + 2n ... So arranged, rows r, r + n ... of several joined batches are its own as well.
"""

import logging
import os
import signal
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from io import StringIO
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from util.errors import FAILURE_STATUS, SIGNALLED, UserError
from util.signals import STOP_SIGNALS, is_free

# Until a process that waits for the others gives up. Long, for the first of them may evaluate or save meanwhile.
TIMEOUT = timedelta(minutes=30)

Rows = TypeVar("Rows", Tensor, np.ndarray)


def launched_world_size() -> int:
    """How many processes torchrun, or whoever sets its variables, has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The number of this process among those of the run on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """In the body this process is one of the group, and talks with the others through NCCL on GPUs, through gloo on CPUs.
    Only the first of them prints. A CUDA `device` must be the current one, as after `select_device`.

    An error ends all processes. It leaves the body of the one that came to it; the others, which miss that one, exit
    without a word.
    """
    if launched_world_size() == 1:
        yield
        return
    if device.type == "mps":
        raise UserError("several processes compute on CUDA GPUs or on the CPU; --gpu_ids -1 chooses the CPU")
    store, number, count = next(dist.rendezvous("env://"))
    # Words between processes, which no GPU shall wait for, go through gloo in any case.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"  # Windows has no NCCL
    dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=number, world_size=count)
    try:
        with nullcontext() if is_main_process() else redirect_stdout(StringIO()):
            yield
    except BaseException:
        if not _is_first_to_end(store):
            sys.exit(FAILURE_STATUS)
        raise
    dist.destroy_process_group()  # not after an error: it would wait for those that have gone


def _is_first_to_end(store: dist.Store) -> bool:
    """Whether this process, which ends before its time, is the first to do so."""
    try:
        return store.add("ended before their time", 1) == 1
    except RuntimeError:  # those that kept the count have gone: somebody has to say something
        return True


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that prints, logs and saves."""
    return rank() == 0


def describe_group() -> str:
    """For people, behind the name of a device: ", the first of 4 processes"; nothing for a single process."""
    return f", the first of {world_size()} processes" if world_size() > 1 else ""


def check_batch_size(batch_size: int) -> None:
    """Raises UserError where so many images cannot be shared out evenly among the processes."""
    if batch_size % world_size():
        raise UserError(
            f"--batch_size {batch_size} is that of all processes together and cannot be shared out evenly among "
            f"{world_size()}; give a multiple of {world_size()}"
        )


def wrap_ddp(network: nn.Module) -> nn.Module:
    """The network as the training step calls it: its gradients come out as means over all processes.

    The network itself may be called as well: whatever reaches its weights in a backward pass is averaged, as long as the
    one returned was called before that pass.

    Raises UserError for batch norms, which would see the images of their own process alone.
    """
    if world_size() == 1 or not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        raise UserError("batch norm does not go with several processes: give another --normG and --normD, or train in one")
    # Buffers are not sent around: they never change (blur filters), and sending them before each of several passes of a
    # step would spoil what the first of them has kept for its gradient.
    # The gradient of a 1x1 convolution may have other strides in dimensions of size 1, where strides mean nothing. DDP warns
    # in the backward pass, in every process.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    with warnings.catch_warnings():
        # PyTorch 2.14 renames broadcast_buffers; 2.11 does not know the new name.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)


def local_shard(whole: Rows) -> Rows:
    """Of the rows for the images of the whole batch, or of several batches joined, those of this process's images."""
    return whole[rank() :: world_size()]


def all_gather_batch(own: Tensor) -> Tensor:
    """The rows of all processes, in the order that one process would have; the inverse of `local_shard`. No gradient."""
    if world_size() == 1:
        return own
    return torch.stack(_gathered(own), dim=1).flatten(0, 1)


def gather_from_other_ranks(own: Tensor) -> Tensor:
    """The rows of all processes but this one, none for a single process. No gradient."""
    if world_size() == 1:
        return own.new_empty(0, *own.shape[1:])
    rows = _gathered(own)
    del rows[rank()]
    return torch.cat(rows)


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of each value over all processes; all of them have to ask for it."""
    if world_size() == 1:
        return values
    return torch.stack(_gathered(values)).mean(dim=0)


def barrier() -> None:
    """Waits until all processes are here."""
    if world_size() > 1:
        any_rank(False)


def any_rank(here: bool) -> bool:
    """Whether something is so in any process; all of them have to ask."""
    if world_size() == 1:
        return here
    flag = torch.tensor(int(here))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _gathered(own: Tensor) -> list[Tensor]:
    own = own.detach().contiguous()
    tensors = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(tensors, own)
    return tensors


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
