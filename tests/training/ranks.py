"""A training that records what each of its processes does; test_processes.py starts it."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from helpers import CODES, CPU, DATASET, FP32, PARAMS
from safetensors.torch import save_file

from lesions.common.types import Rows
from lesions.dataset.photos import PhotoArray
from lesions.networks import architectures, batches
from lesions.training import loop, processes


def main(folder: Path) -> None:
    """Train one epoch on 21 photos in `folder`, with batch norm frozen.

    torch has no batch norm over several processes on a CPU, and nothing else may differ between
    one process and two.
    """
    changes = {"epochs": 1, "batch_size": 8, "precision": "fp32", "device": "cpu"}
    requests: list[list[int]] = []
    networks: list[torch.nn.Module] = []
    load = batches.PhotoLoader.__call__
    build = architectures.build

    def recorded(self: batches.PhotoLoader, rows: list[Rows]) -> object:
        requests.append(np.concatenate(rows).tolist())
        return load(self, rows)

    def noted(*arguments: Any) -> torch.nn.Module:
        networks.append(build(*arguments))
        return networks[-1]

    def frozen(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
        self.training = False
        return self

    params = PARAMS.model_copy(update=changes)
    ids = [f"P{k:02}" for k in range(28)]
    rows = pd.DataFrame(
        {"image_id": ids, "lesion_id": ids, "dx": [CODES[k % 7] for k in range(28)]}
    )
    data = loop.TrainingData(DATASET, PhotoArray(folder), rows.iloc[:21], rows.iloc[21:])
    with (
        processes.process_group(CPU) as group,
        mock.patch.object(loop, "dry_run"),
        mock.patch.object(architectures, "build", noted),
        mock.patch.object(batches.PhotoLoader, "__call__", recorded),
        mock.patch.object(torch.nn.BatchNorm2d, "train", frozen),
        mock.patch.object(torch.nn.Dropout, "forward", lambda self, given: given),
    ):
        trained = loop.train(
            "mobilenetv2",
            data,
            params,
            folder / "history.csv",
            FP32,
            group,
        )
        assert (trained is not None) == group.is_main
        if trained is not None:
            trained.checkpoint.remove()
        print("said by", group.rank)
        name = f"{group.world_size}-{group.rank}"
        record = {"requests": requests, "history": trained and trained.history.to_dict("records")}
        (folder / f"{name}.json").write_text(json.dumps(record))
        state = networks[0].state_dict()
        state = {key: value.contiguous() for key, value in state.items()}
        save_file(state, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
