"""Processes: training in one process, or in one per device, as torchrun starts them.

The words are those of torch.distributed: rank, world size, shard, all-gather, broadcast.
"""

import contextlib
import ctypes
import inspect
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from lesions.common.errors import LesionsError

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal to get when the parent process ends
GRACE = 5.0  # seconds; the launcher ends all processes much sooner
T = TypeVar("T")
Array = TypeVar("Array", bound=npt.NDArray[np.generic])


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and how many processes train together."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def shard(self, rows: Array) -> Array:
        """Take this process's share of rows that are the same in all processes."""
        return rows[self.rank :: self.world_size]  # type: ignore[return-value]

    def all_gather(self, shard: Array) -> Array:
        """Join the shards of all processes in order: the inverse of `shard`."""
        if self.world_size == 1:
            return shard
        shards: list[Array] = [shard] * self.world_size
        dist.all_gather_object(shards, shard)
        whole = np.empty((sum(map(len, shards)), *shard.shape[1:]), shard.dtype)
        for rank, part in enumerate(shards):
            whole[rank :: self.world_size] = part
        return whole  # type: ignore[return-value]

    def broadcast(self, value: T) -> T:
        """Return the main process's value in all processes."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def parallelise(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Make a network average its gradients over all processes.

        On GPUs batch norm computes its statistics over the whole batch. torch has that for no
        other device: elsewhere each process normalises its shard, and the running statistics of
        the main process are used.
        """
        if self.world_size == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # Buffers need no broadcast before every step: SyncBatchNorm keeps them equal, and elsewhere
        # `broadcast_buffers` takes the main process's before validation.
        ddp = nn.parallel.DistributedDataParallel
        newer = "forward_sync_buffers" in inspect.signature(ddp).parameters  # not in 2.7
        no_sync: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        parallel: nn.Module = ddp(network, gradient_as_bucket_view=True, **no_sync)
        return parallel

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give every process the running statistics of the main process."""
        if self.world_size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


def launched_by_torchrun() -> bool:
    """Say whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def count_processes(devices: int | Literal["all"], device: torch.device) -> int:
    """Resolve the parameter `devices`: how many processes train.

    Raises:
        LesionsError: there are fewer devices than that.
    """
    available = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(device.type, 1)
    if devices == "all":
        return available if device.type == "cuda" else 1
    if devices > available:
        raise LesionsError(
            f"devices: {devices}, but {available} of type {device.type} are available. Lower it."
        )
    return devices


def launch(count: int, module: str, *arguments: str) -> None:
    """Run a module in `count` processes on this machine, as `torchrun --standalone` does.

    Raises:
        LesionsError: one of them failed; the others were ended at once.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # torchrun's own log lines would repeat the error below. Each of its loggers has a level.
    for name in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    try:
        with tempfile.TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                logs_specs=DefaultLogsSpecs(logs),
                run_id="lesions",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
            )
            elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        # The first failure is the cause, but torch records whole seconds. Among those of one
        # second, a kill (exit code below 0) is the cause, unless it is torchrun's own SIGTERM.
        rank, failure = min(
            error.failures.items(),
            key=lambda one: (
                one[1].timestamp,
                one[1].exitcode == -signal.SIGTERM,
                one[1].exitcode,
            ),
        )
        raise LesionsError(
            f"process {rank} of {count} ended with exit code {failure.exitcode}, so all were "
            "ended. Its output is above; the next run resumes from the checkpoint, if there is one."
        ) from None
    except SignalException:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started; a single process if it started none.

    Raises:
        LesionsError: another process was lost.
    """
    if not launched_by_torchrun():
        yield Processes()
        return
    # The processes run in sessions of their own; this ends them when the launcher is killed.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if device.type == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", device_id=own)
    else:
        dist.init_process_group("gloo")
    processes = Processes(dist.get_rank(), dist.get_world_size())
    try:
        with contextlib.ExitStack() as silent:
            if not processes.is_main:
                nowhere = silent.enter_context(open(os.devnull, "w"))  # noqa: PTH123
                silent.enter_context(contextlib.redirect_stdout(nowhere))
            yield processes
    except LesionsError:
        # If all processes meet the error, the first reports it, and the launcher ends the others.
        if not processes.is_main:
            time.sleep(GRACE)
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LesionsError(
            f"process {processes.rank} of {processes.world_size} lost its connection to another."
        ) from None
    dist.barrier()  # with older versions, the last one hangs if the others have already left
    dist.destroy_process_group()
