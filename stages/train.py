"""Stages train-resnet50 and train-mobilenetv2: fine-tune one network, validate every epoch."""

from typing import Annotated

import typer

from lesions.common import layout
from lesions.common.artifacts import write_csv, write_json
from lesions.common.params import load_params
from lesions.dataset.description import load_description
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import find_leak
from lesions.networks import architectures, hardware, model_file
from lesions.training import processes
from lesions.training.loop import TrainingData, check_batch_size, describe, train
from stages import run_stage


def main(
    model: Annotated[
        str, typer.Argument(help="The network, as `networks` in params.yaml names it.")
    ],
) -> None:
    """Train MODEL: its file in models/, history in plots/, key metrics in metrics/val/."""
    params = load_params()
    dataset = load_description(params.dataset)
    network = params.network(model)
    used = hardware.set_up(params.device, params.precision, params.deterministic)

    # With several devices, torchrun starts this script again, once per device.
    if not processes.launched_by_torchrun():
        count = processes.count_processes(params.devices, used.device)
        if network.fit == "last-layer":  # one pass over the photos; nothing to share
            count = 1
        check_batch_size(params.batch_size, count)
        if count > 1:
            # Download the weights once, before all processes need them.
            weights = params.starting_weights(model)
            architectures.build(network, len(dataset.classes), weights, params.seed)
            processes.launch(count, "stages.train", model)
            return

    with processes.process_group(used.device) as group:
        data = TrainingData(
            dataset=dataset,
            photos=PhotoArray(layout.RESIZED),
            train=read_table(layout.BALANCED_TABLE, "image_id", "lesion_id", "dx"),
            val=read_table(layout.VAL_TABLE, "image_id", "lesion_id", "dx"),
        )
        history = layout.history(model)
        trained = train(model, data, params, history, used, group)
        if trained is not None:
            leak = find_leak(data.train, data.val, "validation")
            write_json(layout.val_metrics(model), {**trained.metrics, **leak.metric})
            write_csv(layout.validation(model), trained.validation)
            model_file.save(layout.model_file(model), trained.state, trained.subspace, trained.card)
            trained.checkpoint.remove()
            print(describe(trained))
            if leak:
                print(leak.warning)


if __name__ == "__main__":
    run_stage(main)
