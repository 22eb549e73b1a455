"""A training that records what each of its processes does; test_processes.py starts it."""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from helpers import PARAMS
from safetensors.torch import save_file

from lesions.dataset.diagnoses import CODES
from lesions.dataset.photos import PhotoArray
from lesions.networks import batches, hardware
from lesions.training import loop, processes


def main(folder: Path) -> None:
    """Train one epoch on 21 photos in `folder`, with batch norm frozen.

    torch has no batch norm over several processes on a CPU, and nothing else may differ between
    one process and two.
    """
    changes = {"epochs": 1, "batch_size": 8, "precision": "fp32", "device": "cpu"}
    requests: list[list[int]] = []
    load = batches.PhotoLoader.__call__

    def recorded(self: batches.PhotoLoader, rows: list[batches.Rows]) -> object:
        requests.append(np.concatenate(rows).tolist())
        return load(self, rows)

    def frozen(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
        self.training = False
        return self

    params = PARAMS.model_copy(update=changes)
    rows = pd.DataFrame(
        {"image_id": [f"P{k:02}" for k in range(28)], "dx": [CODES[k % 7] for k in range(28)]}
    )
    data = loop.TrainingData(PhotoArray(folder), rows.iloc[:21], rows.iloc[21:])
    with (
        processes.process_group(hardware.pick_device("cpu")) as group,
        mock.patch.object(batches.PhotoLoader, "__call__", recorded),
        mock.patch.object(torch.nn.BatchNorm2d, "train", frozen),
        mock.patch.object(torch.nn.Dropout, "forward", lambda self, given: given),
    ):
        files = loop.Files(folder / "history.csv", folder / "checkpoint")
        trained = loop.train("mobilenetv2", data, params, files, group)
        print("said by", group.rank)
        name = f"{group.world_size}-{group.rank}"
        record = {"requests": requests, "history": trained.history.to_dict("records")}
        (folder / f"{name}.json").write_text(json.dumps(record))
        state = {key: value.contiguous() for key, value in trained.state.items()}
        save_file(state, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
