"""Stage split: who trains, who validates, who tests; no lesion on two sides."""

from pathlib import Path

from lesions.artifacts import replacing, write_csv
from lesions.errors import run
from lesions.metadata import read_metadata
from lesions.params import load_params
from lesions.splits import split, summary


def main() -> None:
    """Divide data/raw/metadata.csv into data/split/train.csv, val.csv and test.csv."""
    params = load_params()
    metadata = read_metadata(Path("data/raw/metadata.csv"))
    sides = split(metadata, params.val_share, params.test_share, params.holdout, params.split_seed)
    with replacing(Path("data/split"), folder=True) as folder:
        for side, rows in sides.items():
            write_csv(folder / f"{side}.csv", rows)
    print(summary(sides).to_string())


if __name__ == "__main__":
    run(main)
