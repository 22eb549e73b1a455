"""Serving: which pictures a trained model flags, and how fast `lesions predict` is.

    python -m benchmarks.serving photos/ mobilenetv2 resnet50

predicts this project's test photos, and pictures that are not dermatoscopic photos: noise, one
plain colour, synthetic lesions, and tiles of scikit-learn's two photos, a temple and a flower. Then
it predicts the photos of a folder, in turns with decoding alone and the network alone.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from PIL import Image
from sklearn.datasets import load_sample_images

from lesions.common.threads import thread_pool
from lesions.common.types import Pixels
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray, read_file
from lesions.networks.inference import BATCH_SIZE
from lesions.serving.arguments import find_model, find_photos
from lesions.serving.predictor import Predictor
from lesions.sources.sample import LESIONS, render_photo

EACH = 70  # pictures of a kind
TILE = 106  # pixels, side of a tile
ROUNDS = 5


def other_pictures(size: int) -> dict[str, Pixels]:
    """Make pictures that are not dermatoscopic photos: (n, size, size, 3) of each kind."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (EACH, 1, 1, 3), dtype=np.uint8)
    synthetic = [render_photo(list(LESIONS)[k % len(LESIONS)], 1, k, 0) for k in range(EACH)]
    tiles = [
        Image.fromarray(picture[top : top + TILE, left : left + TILE])
        for picture in load_sample_images().images
        for top in range(0, picture.shape[0] - TILE, TILE)
        for left in range(0, picture.shape[1] - TILE, TILE)
    ]
    return {
        "noise": rng.integers(0, 256, (EACH, size, size, 3), dtype=np.uint8),
        "one colour": np.broadcast_to(plain, (EACH, size, size, 3)).copy(),
        "synthetic lesions": np.stack([np.asarray(one.resize((size, size))) for one in synthetic]),
        "other photos": np.stack([np.asarray(one.resize((size, size))) for one in tiles]),
    }


def flags(predictor: Predictor, pictures: Pixels) -> dict[str, object]:
    """Count pictures, and compute the shares that are flagged."""
    predictions = [
        prediction
        for start in range(0, len(pictures), BATCH_SIZE)
        for prediction in predictor.predict(np.array(pictures[start : start + BATCH_SIZE]))
    ]
    return {
        "pictures": len(predictions),
        "low_confidence": np.mean([one.low_confidence for one in predictions]),
        "out_of_distribution": np.mean([one.out_of_distribution for one in predictions]),
    }


def speed(predictor: Predictor, paths: list[Path]) -> str:
    """Predict files, only decode them, and only run the network on a batch in memory, in turns."""
    side = predictor.classifier.card.image_size
    batch = torch.rand(BATCH_SIZE, 3, side, side, device=predictor.classifier.device)
    paths = paths[: max(1, len(paths) // BATCH_SIZE) * BATCH_SIZE]  # whole batches

    def predict() -> None:
        list(predictor.predict_files(paths))

    def decode() -> None:
        with thread_pool() as pool:
            list(pool.map(lambda path: predictor.decode(read_file(path), str(path)), paths))

    def network() -> None:
        with torch.inference_mode():
            for _ in range(len(paths) // BATCH_SIZE):
                predictor.classifier.logits(batch.clone()).cpu()

    rounds = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        seconds = {}
        for work in (predict, decode, network):
            start = time.perf_counter()
            work()
            seconds[work.__name__] = time.perf_counter() - start
        rounds.append(seconds)
    table = pd.DataFrame(rounds[1:])
    # Decoding and network share the cores, so no program is faster than both after each other.
    shares = (table["decode"] + table["network"]) / table["predict"]
    rates = len(paths) / table.median()
    return (
        f"{rates['predict']:.0f} photos/s; decoding alone {rates['decode']:.0f}, network alone "
        f"{rates['network']:.0f}; of what both cost together: {shares.median():.2f} "
        f"({shares.min():.2f} to {shares.max():.2f})"
    )


def main(
    photos: Annotated[str, typer.Argument(help="A folder of photos, for the speed.")],
    models: Annotated[list[str], typer.Argument(help="As for lesions predict.")],
) -> None:
    """Measure flags and speed of MODELS."""
    array = PhotoArray(Path("data/resized"))
    test = array.rows(read_table(Path("data/split/test.csv"), "image_id")["image_id"])
    for model in models:
        predictor = Predictor(find_model(model))
        kinds = {"test photos": array.images[test], **other_pictures(array.size)}
        table = pd.DataFrame({kind: flags(predictor, found) for kind, found in kinds.items()}).T
        print(f"\n{model}\n{table.round(3).to_string()}")
        print(f"lesions predict: {speed(predictor, find_photos([photos])[0])}", flush=True)


if __name__ == "__main__":
    typer.run(main)
