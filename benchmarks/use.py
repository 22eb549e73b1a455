"""Use: which pictures a trained model marks, and how fast `lesions predict` is beside the network.

    python -m benchmarks.use photos/ mobilenetv2 resnet50

asks the models of this project about its test photos and about what is no dermatoscopic photo:
noise, one plain colour, drawn lesions, and tiles of the two
photographs that scikit-learn brings, a temple and a flower. Then it answers the photos of a folder
in turns with the bare network on one resident batch.
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image
from sklearn.datasets import load_sample_images

from lesions.diagnoses import CODES
from lesions.inference import BATCH
from lesions.metadata import read_table
from lesions.photos import PhotoArray, Pixels
from lesions.predictor import Predictor, find_model, find_photos
from lesions.sample import draw_photo

EACH = 70  # pictures of a kind
TILE = 106  # pixels of a photograph, a side
ROUNDS = 5


def strangers(size: int) -> dict[str, Pixels]:
    """Make pictures that are no dermatoscopic photos: (n, size, size, 3) of each kind."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (EACH, 1, 1, 3), dtype=np.uint8)
    drawn = [draw_photo(CODES[k % len(CODES)], 1, k, 0) for k in range(EACH)]
    tiles = [
        Image.fromarray(picture[top : top + TILE, left : left + TILE])
        for picture in load_sample_images().images
        for top in range(0, picture.shape[0] - TILE, TILE)
        for left in range(0, picture.shape[1] - TILE, TILE)
    ]
    return {
        "noise": rng.integers(0, 256, (EACH, size, size, 3), dtype=np.uint8),
        "one colour": np.broadcast_to(plain, (EACH, size, size, 3)).copy(),
        "drawn lesions": np.stack([np.asarray(one.resize((size, size))) for one in drawn]),
        "photographs": np.stack([np.asarray(one.resize((size, size))) for one in tiles]),
    }


def marks(predictor: Predictor, pictures: Pixels) -> dict[str, object]:
    """Count pictures, and the shares that are marked."""
    answers = [
        answer
        for start in range(0, len(pictures), BATCH)
        for answer in predictor.answers(np.array(pictures[start : start + BATCH]))
    ]
    return {
        "pictures": len(answers),
        "doubtful": np.mean([one.doubtful for one in answers]),
        "strange": np.mean([one.strange for one in answers]),
        "either": np.mean([one.doubtful or one.strange for one in answers]),
    }


def speed(predictor: Predictor, paths: list[Path]) -> str:
    """Answer files and one resident batch in turns."""
    import torch

    list(predictor.of_files(paths))  # fills the disk's cache, warms up
    side = predictor.classifier.card.image_size
    batch = torch.rand(BATCH, 3, side, side, device=predictor.classifier.place)
    rates, bares = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        list(predictor.of_files(paths))
        rates.append(len(paths) / (time.perf_counter() - start))
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(-(-len(paths) // BATCH)):
                predictor.classifier.logits(batch.clone()).cpu()
        bares.append(-(-len(paths) // BATCH) * BATCH / (time.perf_counter() - start))
    ratios = [rate / bare for rate, bare in zip(rates, bares, strict=True)]
    return (
        f"{median(rates):.0f} photos/s, bare network {median(bares):.0f}: "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main(
    photos: Annotated[str, typer.Argument(help="A folder of photos, for the speed.")],
    models: Annotated[list[str], typer.Argument(help="As for lesions predict.")],
) -> None:
    """Measure marks and speed of MODELS."""
    array = PhotoArray(Path("data/resized"))
    test = array.rows(read_table(Path("data/split/test.csv"), "image_id")["image_id"])
    for model in models:
        predictor = Predictor(find_model(model))
        kinds = {"test photos": array.images[test], **strangers(array.size)}
        table = pd.DataFrame({kind: marks(predictor, found) for kind, found in kinds.items()}).T
        print(f"\n{model}\n{table.round(3).to_string()}")
        print(f"lesions predict: {speed(predictor, find_photos([photos]))}", flush=True)


if __name__ == "__main__":
    typer.run(main)
