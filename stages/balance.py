"""Stage balance: repeats training observations, so that rare classes count as much."""

from lesions.common import layout
from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.params import load_params
from lesions.dataset.balancing import balance
from lesions.dataset.description import load_description
from lesions.dataset.metadata import read_table
from stages import run_stage


def main() -> None:
    """Repeat rows of data/split/train.csv into data/balanced/train.csv; factors.csv says how."""
    params = load_params()
    classes = load_description(params.dataset).classes
    rows, factors = balance(read_table(layout.TRAIN_TABLE, "dx"), classes, params.balance)
    with atomic_write(layout.BALANCED, folder=True) as folder:
        write_csv(folder / "train.csv", rows)
        write_csv(folder / "factors.csv", factors)
    repeats = ", ".join(f"{row.dx} ×{row.factor}" for row in factors.itertuples())
    print(f"balance: {factors['photos'].sum():,} photos → {len(rows):,} observations ({repeats})")


if __name__ == "__main__":
    run_stage(main)
