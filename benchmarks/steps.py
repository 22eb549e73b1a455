"""What a training step costs, on the host and on the GPU, and what would make it faster.

    python -m benchmarks.steps resnet50

Every variant trains on one batch in memory. `issue` is the time until the host has launched a step,
`step` until the device has finished it: if they are equal, the host is the limit, and a CUDA graph
helps; if `step` is longer, the kernels are the limit. On a CPU a graph is replaced by running the
step again, so that everything but the capture itself is checked there.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from lesions.common.params import Params, load_params
from lesions.networks import hardware
from lesions.networks.architectures import build
from lesions.networks.augmentation import augment, random_changes

Found = dict[str, Any]
CLASSES = 7  # of HAM10000
WARM_UP = {"cuda": 12, "cpu": 2}
STEPS = {"cuda": 40, "cpu": 2}


class Step:
    """One training step on one batch; the same arithmetic as training's."""

    def __init__(
        self,
        name: str,
        params: Params,
        used: hardware.Hardware,
        layout: torch.memory_format = torch.channels_last,
        augmented: bool = True,
        compiled: bool = False,
    ) -> None:
        """Build the network, the optimizer and a batch of noise."""
        self.params, self.used, self.layout, self.augmented = params, used, layout, augmented
        device, size, side = used.device, params.batch_size, params.image_size
        network = build(params.network(name), CLASSES, "random", 0).train()
        self.network: nn.Module = network.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.run = torch.compile(self.network) if compiled else self.network
        # A tensor, so that a graph can be replayed at another learning rate, with the same bits.
        self.rate = torch.tensor(params.lr, device=device)
        capturable = device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), self.rate, fused=True, capturable=capturable
        )
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        self.photos = torch.from_numpy(pixels).to(device)
        self.changes = torch.from_numpy(random_changes(size, params.augment, rng)).to(device)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, size)).to(device)
        self.ready = self.inputs() if not augmented else None
        self.loss = torch.zeros((), device=device)
        torch.manual_seed(0)

    def inputs(self) -> Tensor:
        """Augment and normalise the photos."""
        images = augment(self.photos, self.changes, self.params.augment)
        return images.sub_(0.6).div_(0.2).contiguous(memory_format=self.layout)

    def __call__(self) -> None:
        """Take the step."""
        autocast = hardware.AUTOCAST.get(self.used.precision)
        images = self.inputs() if self.ready is None else self.ready
        with torch.autocast(self.used.device.type, autocast, enabled=autocast is not None):
            logits = self.run(images)
        loss = F.cross_entropy(logits.float(), self.labels, reduction="sum") / len(self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.loss.copy_(loss.detach())


def captured(step: Step) -> Callable[[], None]:
    """Capture a step that has warmed up as a CUDA graph; return its replay."""
    if step.used.device.type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad(set_to_none=True)  # the gradients then lie in the graph's memory
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], None], step: Step) -> Found:
    """Time a step: medians of five rounds."""
    device = step.used.device
    for _ in range(WARM_UP[device.type]):
        work()
    wait(device)
    count, issued, done = STEPS[device.type], [], []
    for _ in range(5 if device.type == "cuda" else 1):
        start = time.perf_counter()
        for _ in range(count):
            work()
        issued.append(time.perf_counter() - start)
        wait(device)
        done.append(time.perf_counter() - start)
    milliseconds = float(np.median(done)) / count * 1000
    return {
        "issue_ms": float(np.median(issued)) / count * 1000,
        "step_ms": milliseconds,
        "spread_ms": [min(done) / count * 1000, max(done) / count * 1000],
        "photos_per_second": step.params.batch_size / milliseconds * 1000,
        "loss": float(step.loss),
    }


def kernels(step: Step) -> Found:
    """Profile three steps: kernels per step, the time that they take, and the longest."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = step.used.device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiled:
        for _ in range(3):
            step()
        wait(step.used.device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [event for event in profiled.key_averages() if getattr(event, key) > 0]
    events.sort(key=lambda event: -getattr(event, key))
    return {
        "kernels": sum(event.count for event in events) / 3,
        "busy_ms": sum(getattr(event, key) for event in events) / 3000,
        "longest": [
            [event.key[:90], event.count / 3, round(getattr(event, key) / 3000, 4)]
            for event in events[:25]
        ],
    }


def same_bits(name: str, params: Params, used: hardware.Hardware) -> bool:
    """Say whether replays of a graph give the same bits as steps one by one.

    Capturing takes no step, but warms up with three.
    """
    eager, graph = Step(name, params, used), Step(name, params, used)
    torch.manual_seed(1)
    replay = captured(graph)
    if used.device.type == "cuda":
        torch.manual_seed(1)
        for _ in range(3):
            eager()
    for work in (replay, eager):
        torch.manual_seed(2)
        for _ in range(4):
            work()
    wait(used.device)
    ours, theirs = eager.network.state_dict(), graph.network.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def measure(name: str, params: Params, used: hardware.Hardware, compiled: bool = False) -> Found:
    """Measure all variants of a network's step; a variant that fails is a result too."""
    found: Found = {}

    def attempt(title: str, part: Callable[[], Any]) -> None:
        start = time.perf_counter()
        try:
            found[title] = part()
        except Exception as error:  # so that the other variants run
            found[title] = {"failed": f"{type(error).__name__}: {error}"[-1500:]}
            traceback.print_exc()
        print(json.dumps({name: {title: found[title]}}), flush=True)
        print(f"{title}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    def variant(**options: Any) -> Found:
        step = Step(name, params, used, **options)
        return timed(step, step)

    def graph(**options: Any) -> Found:
        step = Step(name, params, used, **options)
        for _ in range(2):
            step()
        return timed(captured(step), step)

    def fast() -> Found:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = True
        try:
            return variant()
        finally:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False

    attempt("as it is", variant)
    attempt("kernels", lambda: kernels(Step(name, params, used)))
    attempt("graph", graph)
    attempt("graph gives the same bits", lambda: same_bits(name, params, used))
    attempt("without augmentation", lambda: variant(augmented=False))
    attempt("graph without augmentation", lambda: graph(augmented=False))
    attempt("not deterministic", fast)
    attempt("channels first", lambda: variant(layout=torch.contiguous_format))
    large = params.model_copy(update={"batch_size": 8 * params.batch_size})
    attempt("batch 8 times as large", lambda: (lambda s: timed(s, s))(Step(name, large, used)))
    if compiled:
        attempt("compiled", lambda: variant(compiled=True))
        attempt("compiled, graph", lambda: graph(compiled=True))
    return found


def main(
    name: str,
    device: str = "auto",
    image_size: int = 224,
    compiled: Annotated[bool, typer.Option(help="torch.compile too; takes minutes.")] = False,
) -> None:
    """Measure the variants of one network's step; one JSON object per line."""
    params = load_params().model_copy(update={"image_size": image_size})
    used = hardware.set_up(device, params.precision, deterministic=True)
    measure(name, params, used, compiled)


if __name__ == "__main__":
    typer.run(main)
