"""Ideas: what each one brings to a training step, one added after the other, in one run.

`python -m benchmarks.ideas`: about 15 minutes on two cores. A step is that of the recipe (224 px,
batch 32, Adam) on one resident batch; the augmentation is measured apart.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torchvision.transforms import v2

from benchmarks.throughput import Work, in_turns, ratio
from lesions import augmentation, hardware, networks
from lesions.params import load_params

SIZE, SIDE = 32, 224


def stepping(
    name: str, place: torch.device, channels_last: bool, bf16: bool, fused: bool, compiled: bool
) -> Work:
    """Make a work that takes three training steps (100 on a GPU)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = networks.build(name, "random", 0).to(place, memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(SIZE, 3, SIDE, SIDE, device=place).contiguous(memory_format=layout)
    labels = torch.randint(0, 7, (SIZE,), device=place)
    optimizer = torch.optim.Adam(network.parameters(), 0.001, fused=fused)
    forward: Callable[[torch.Tensor], torch.Tensor] = (
        torch.compile(network) if compiled else network
    )
    steps = 3 if place.type == "cpu" else 100

    def work() -> int:
        for _ in range(steps):
            with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
                output = forward(images)
            loss = F.cross_entropy(output.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return steps * SIZE

    return work


def augmenting(place: torch.device) -> dict[str, Work]:
    """Make works that augment a batch: photo by photo, whole, and in parts."""
    settings = load_params().augment
    rng = np.random.default_rng(0)
    photos = torch.from_numpy(rng.integers(0, 255, (SIZE, SIDE, SIDE, 3), dtype=np.uint8))
    photos = photos.to(place)
    draws = torch.from_numpy(augmentation.draw(SIZE, settings, rng)).to(place)
    usual = v2.Compose(
        [
            v2.RandomHorizontalFlip(settings.horizontal_flip),
            v2.RandomVerticalFlip(settings.vertical_flip),
            v2.RandomRotation(settings.rotation, v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(settings.brightness, settings.contrast, hue=settings.hue),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def photo_by_photo() -> int:
        for photo in photos:
            usual(photo.permute(2, 0, 1))
        return SIZE

    def whole() -> int:
        images = augmentation.move(augmentation.to_unit(photos), draws)
        augmentation.jitter(images, draws, settings)
        return SIZE

    def in_parts() -> int:
        augmentation.augment(photos, draws, settings)
        return SIZE

    works = (photo_by_photo, whole, in_parts) if place.type == "cpu" else (photo_by_photo, whole)
    return {f"augmentation, {work.__name__.replace('_', ' ')}": work for work in works}


def table(works: dict[str, Work], repeats: int, place: torch.device) -> pd.DataFrame:
    """Time the works in turns and compare each with the one before it."""
    rates = in_turns(works, repeats, place)
    rows = []
    for before, name in zip([None, *works], works, strict=False):
        gain = ratio(rates[name], rates[before]) if before else None
        brings = (
            f"{gain['median']:.2f} ({gain['lowest']:.2f}–{gain['highest']:.2f})" if gain else ""
        )
        rows.append({"": name, "photos/s": round(rates[name].median(), 1), "brings": brings})
    return pd.DataFrame(rows)


def main(
    compiled: Annotated[
        bool, typer.Option(help="Measure torch.compile; wants a C++ compiler.")
    ] = True,
) -> None:
    """Measure plain training steps, then with each idea added."""
    params = load_params()
    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    print(f"{hardware.describe(place)}, torch {torch.__version__}\n")
    repeats = 5 if place.type == "cpu" else 7
    print(table(augmenting(place), 9, place).to_string(index=False), "\n")
    for name in networks.ARCHITECTURES:
        ideas = {
            "plain fp32": (False, False, False, False),
            "+ channels last": (True, False, False, False),
            "+ bfloat16": (True, True, False, False),
            "+ fused Adam": (True, True, True, False),
        }
        if compiled:
            ideas["+ torch.compile"] = (True, True, True, True)
        works = {
            f"{name} {idea}": stepping(name, place, *settings) for idea, settings in ideas.items()
        }
        print(table(works, repeats, place).to_string(index=False), "\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
