"""A training that tells what each of its processes saw; tests/test_processes.py starts it."""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from test_training import TINY, table

from lesions import batches, hardware, processes, training
from lesions.params import load_params
from lesions.photos import PhotoArray


def main(folder: Path) -> None:
    """Train one epoch on 21 photos in `folder`, batch norm frozen: torch has none over processes
    on a CPU, and nothing else may differ between one process and two.
    """
    changes = {"epochs": 1, "batch_size": 8, "precision": "fp32"}
    asked: list[list[int]] = []
    gather = batches.Batches.__call__

    def noted(self: batches.Batches, rows: list[batches.Rows]) -> object:
        asked.append(np.concatenate(rows).tolist())
        return gather(self, rows)

    def frozen(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
        self.training = False
        return self

    params = load_params(Path(__file__).parent.parent / "params.yaml").model_copy(
        update={**TINY, **changes}
    )
    with (
        processes.joined(hardware.pick_device("cpu")) as ours,
        mock.patch.object(batches.Batches, "__call__", noted),
        mock.patch.object(torch.nn.BatchNorm2d, "train", frozen),
        mock.patch.object(torch.nn.Dropout, "forward", lambda self, given: given),
    ):
        rows = table()
        trained = training.train(
            "mobilenetv2",
            PhotoArray(folder),
            rows.iloc[:21],
            rows.iloc[21:],
            params,
            folder / "checkpoint",
            ours,
        )
        print("said by", ours.rank)
        told = {"asked": asked, "history": trained.history.to_dict("records")}
        (folder / f"{ours.count}-{ours.rank}.json").write_text(json.dumps(told))
        state = {key: value.contiguous() for key, value in trained.state.items()}
        save_file(state, folder / f"{ours.count}-{ours.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
