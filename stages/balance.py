"""Stage balance: training observations repeated, so that rare diagnoses count as much."""

from pathlib import Path

from lesions.artifacts import replacing, write_csv
from lesions.balancing import balance
from lesions.errors import run
from lesions.metadata import read_table
from lesions.params import load_params


def main() -> None:
    """Repeat rows of data/split/train.csv into data/balanced/train.csv; factors.csv says how."""
    params = load_params()
    rows, factors = balance(read_table(Path("data/split/train.csv"), "dx"), params.balance)
    with replacing(Path("data/balanced"), folder=True) as folder:
        write_csv(folder / "train.csv", rows)
        write_csv(folder / "factors.csv", factors)
    print(factors.to_string(index=False))


if __name__ == "__main__":
    run(main)
