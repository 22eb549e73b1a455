"""Processes: a training in one, or in one a device as torchrun starts them."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lesions.errors import LesionsError

if TYPE_CHECKING:
    from torch import device, nn

T = TypeVar("T")
Array = TypeVar("Array", bound=npt.NDArray[np.generic])


@dataclass(frozen=True)
class Processes:
    """This process among those of a training."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, rows: Array) -> Array:
        """Take this process's share of what is the same in all of them."""
        return rows[self.rank :: self.count]  # type: ignore[return-value]

    def gathered(self, part: Array) -> Array:
        """Put the parts of all processes together again: the inverse of `part`."""
        if self.count == 1:
            return part
        import torch.distributed as dist

        parts: list[Array] = [part] * self.count
        dist.all_gather_object(parts, part)
        whole = np.empty((sum(map(len, parts)), *part.shape[1:]), part.dtype)
        for rank, other in enumerate(parts):
            whole[rank :: self.count] = other
        return whole  # type: ignore[return-value]

    def told(self, value: T) -> T:
        """Return what the first process has; the others' values are dropped."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wrap(self, network: "nn.Module", place: "device") -> "nn.Module":
        """Make a network average its gradients over all processes.

        On GPUs batch norm takes its statistics over the whole batch; torch has that for no other
        device, so elsewhere each process normalises its part, and the first one's running
        statistics count.
        """
        if self.count == 1:
            return network
        import torch

        if place.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        wrapped: nn.Module = torch.nn.parallel.DistributedDataParallel(network)
        return wrapped

    def agree(self, network: "nn.Module") -> None:
        """Give every process the first one's running statistics."""
        if self.count > 1:
            import torch.distributed as dist

            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


def started() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def wanted(devices: int | Literal["all"], place: "device") -> int:
    """Resolve the parameter `devices`: how many processes train.

    Raises:
        LesionsError: there are not so many.
    """
    import torch

    there = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(place.type, 1)
    if devices == "all":
        return there if place.type == "cuda" else 1
    if devices > there:
        raise LesionsError(
            f"devices: {devices} are wanted and {there} of {place.type} are there. Lower devices."
        )
    return devices


def start(count: int, module: str, *arguments: str) -> None:
    """Run a module in `count` processes on this machine, as `torchrun --standalone` does.

    Raises:
        LesionsError: one of them failed; the others were ended at once.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What failed is told below; torchrun's own lines say it again. Its loggers have levels each.
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
        # torch counts whole seconds: of those within one, a kill (below 0) made the others fail,
        # save for torchrun's own SIGTERM to those that were left.
        rank, failure = min(
            error.failures.items(),
            key=lambda one: (
                one[1].timestamp,
                one[1].exitcode == -signal.SIGTERM,
                one[1].exitcode,
            ),
        )
        raise LesionsError(
            f"process {rank} of {count} ended with exit code {failure.exitcode}, and so all did. "
            "What it said stands above; the next run goes on from the checkpoint, if there is one."
        ) from None
    except SignalException:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def joined(place: "device") -> Iterator[Processes]:
    """Meet the other processes that torchrun started; alone, if it started none.

    Raises:
        LesionsError: another process was lost.
    """
    if not started():
        yield Processes()
        return
    import torch
    import torch.distributed as dist

    # A launcher that is killed takes its processes along, which run in sessions of their own.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    if place.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    ours = Processes(dist.get_rank(), dist.get_world_size())
    try:
        with contextlib.ExitStack() as silent:
            if not ours.first:
                nowhere = silent.enter_context(open(os.devnull, "w"))  # noqa: PTH123
                silent.enter_context(contextlib.redirect_stdout(nowhere))
            yield ours
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LesionsError(
            f"process {ours.rank} of {ours.count} lost touch with another one."
        ) from None
    dist.destroy_process_group()
