"""Data-parallel training in several processes (DDP). With a single process, every function here is a no-op.

The result is that of one process with the whole batch. Therefore random samples (patch positions, flips, noise) and the
image pool are the same in every process, and only the images differ. Of each batch, rank r of n has the images r, r + n,
r + 2n ... With this order, rows r, r + n ... of several concatenated batches belong to rank r as well.
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
from typing import Any, TypeVar

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
from util.terminal import print_line

# Maximum wait of a process for the others: the main process may evaluate or save meanwhile.
TIMEOUT = timedelta(minutes=30)

T = TypeVar("T", Tensor, np.ndarray, list[Any])


def launched_world_size() -> int:
    """Return the number of processes of this run that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """Return the number of this process on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group within the body: NCCL on GPUs, gloo on the CPU. Only the main process prints.

    A CUDA `device` must be the current one, as after `select_device`. If one process fails, all end: that one raises its
    error, and the others exit without a message.
    """
    if launched_world_size() == 1:
        yield
        return
    if device.type == "mps":
        raise UserError("--gpu_ids: several processes need CUDA GPUs or the CPU. Use --gpu_ids -1 for the CPU.")
    store, own_rank, count = next(dist.rendezvous("env://"))
    # CPU tensors, such as the flag of `any_rank`, always go through gloo, so that no GPU waits for them.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"  # Windows has no NCCL
    dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=own_rank, world_size=count)
    try:
        with nullcontext() if is_main_process() else redirect_stdout(StringIO()):
            yield
    except BaseException:
        if not _is_first_to_end(store):
            sys.exit(FAILURE_STATUS)
        raise
    dist.destroy_process_group()  # not after an error: it would wait for processes that have ended


def _is_first_to_end(store: dist.Store) -> bool:
    """Return True if this process is the first that failed."""
    try:
        return store.add("failed processes", 1) == 1
    except RuntimeError:  # the process that holds the store has ended: print the error rather than lose it
        return True


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Return True if this process prints, logs and saves."""
    return rank() == 0


def describe_group() -> str:
    """Return text to follow a device name, such as ", the first of 4 processes"; empty for a single process."""
    return f", the first of {world_size()} processes" if world_size() > 1 else ""


def check_batch_size(batch_size: int) -> None:
    """Raise UserError if a batch of this size cannot be divided evenly among the processes."""
    if batch_size % world_size():
        raise UserError(
            f"--batch_size {batch_size}: the batch of all {world_size()} processes must divide evenly among them. "
            f"Use a multiple of {world_size()}."
        )


def wrap_ddp(network: nn.Module) -> nn.Module:
    """Return the network wrapped by DDP, which averages its gradients over all processes.

    The plain network may be called as well. Its gradients are averaged too if the wrapped one was called before the backward
    pass. A network without trainable parameters is returned as it is.

    Raises UserError for batch norm: its statistics would only cover the images of one process.
    """
    if world_size() == 1 or not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        raise UserError(
            "--normG batch, --normD batch: incompatible with several processes. Use instance norm, or one process."
        )
    # broadcast_buffers=False: buffers are constants (blur filters). A broadcast before each forward pass of a step would
    # write to tensors that the backward pass of an earlier one still needs.
    # The gradient of a 1x1 convolution may have other strides in dimensions of size 1, where strides have no effect. DDP
    # warns about them in the backward pass, in every process.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    with warnings.catch_warnings():
        # PyTorch 2.14 renames broadcast_buffers; 2.11 does not know the new name.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)


def local_shard(whole: T) -> T:
    """Return this process's rows out of those of the whole batch, or of several concatenated batches."""
    return whole[rank() :: world_size()]


def all_gather_batch(local: Tensor) -> Tensor:
    """Return the rows of all processes in the order of the whole batch, the inverse of `local_shard`. No gradient."""
    if world_size() == 1:
        return local
    return torch.stack(_all_gather(local), dim=1).flatten(0, 1)


def gather_from_other_ranks(local: Tensor) -> Tensor:
    """Return the rows of all other processes; no rows with a single process. No gradient."""
    if world_size() == 1:
        return local.new_empty(0, *local.shape[1:])
    rows = _all_gather(local)
    del rows[rank()]
    return torch.cat(rows)


def all_reduce_mean(values: Tensor) -> Tensor:
    """Return the mean of each value over all processes. All processes must call it."""
    if world_size() == 1:
        return values
    return torch.stack(_all_gather(values)).mean(dim=0)


def barrier() -> None:
    """Wait until all processes have called it."""
    if world_size() > 1:
        any_rank(False)


def any_rank(condition: bool) -> bool:
    """Return True if the condition is true in any process. All processes must call it."""
    if world_size() == 1:
        return condition
    flag = torch.tensor(int(condition))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _all_gather(local: Tensor) -> list[Tensor]:
    local = local.detach().contiguous()
    tensors = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(tensors, local)
    return tensors


SHUTDOWN_TIMEOUT = 60  # seconds that processes have to end after a stop signal, or after one of them has failed


def launch_processes(count: int, program: Sequence[str]) -> int:
    """Run `program`, a Python file and its arguments, in `count` processes on this machine. Return their exit status.

    If one fails, or this process receives a stop signal, all are stopped.
    """
    logging.disable()  # the launcher's: the processes print their errors themselves
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
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # the launcher sends it to the others
                print_line(f"error: process {number} of the run was killed by {failure.signal_name()}", file=sys.stderr)
                return FAILURE_STATUS
        # The process that failed first has printed its error and has its status; the others have status 1.
        return max(FAILURE_STATUS, *(failure.exitcode for failure in failed.failures.values()))
    except SignalException as stopped:
        return SIGNALLED + stopped.sigval
    return 0
