"""Stages train-resnet50 and train-mobilenetv2: one network, fine-tuned and validated."""

from pathlib import Path
from typing import Annotated

import typer

from lesions import hardware, networks, processes
from lesions.artifacts import write_csv, write_json
from lesions.errors import run
from lesions.metadata import read_table
from lesions.params import load_params
from lesions.photos import PhotoArray
from lesions.training import check_batch, train


def main(
    model: Annotated[str, typer.Argument(help="The network: resnet50 or mobilenetv2.")],
) -> None:
    """Train MODEL into models/, with its history in plots/ and figures in metrics/training/."""
    params = load_params()
    networks.check_architecture(model)
    place = hardware.pick_device(params.device)
    if not processes.started():
        count = processes.wanted(params.devices, place)
        check_batch(params.batch_size, count)
        if count > 1:
            # Fetched here once, the weights lie ready for all processes.
            networks.build(model, params.starting_weights(model), params.seed)
            processes.start(count, "stages.train", model)
            return
    checkpoint = Path(f"models/{model}.checkpoint")
    with processes.joined(place) as ours:
        trained = train(
            model,
            PhotoArray(Path("data/resized")),
            read_table(Path("data/balanced/train.csv"), "image_id", "dx"),
            read_table(Path("data/split/val.csv"), "image_id", "dx"),
            params,
            checkpoint,
            ours,
        )
        if ours.first:
            write_csv(Path(f"plots/{model}/history.csv"), trained.history)
            write_json(Path(f"metrics/training/{model}.json"), trained.metrics)
            networks.save(
                Path(f"models/{model}.safetensors"), trained.state, trained.subspace, trained.card
            )
            checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
