"""Stage split: divides the photos into train, validation and test, by whole lesions."""

from pathlib import Path

from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.params import load_params
from lesions.dataset import audit
from lesions.dataset.metadata import join_lesions, pairs_in, read_metadata
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import find_leak, split, summary
from stages import run_stage


def main() -> None:
    """Divide data/raw/metadata.csv into data/split/train.csv, val.csv and test.csv; audit it."""
    params = load_params()
    metadata = read_metadata(Path("data/raw/metadata.csv"))
    listed = pairs_in(metadata, Path(params.same_lesion))
    identical = audit.identical_photos(PhotoArray(Path("data/resized")), metadata)
    subsets = split(
        join_lesions(metadata, [*listed, *identical]),
        params.val_share,
        params.test_share,
        params.holdout,
        params.split_seed,
    )
    shares = {"val": params.val_share, "test": params.test_share}
    findings = audit.audit(metadata, identical, subsets, shares)
    with atomic_write(Path("data/split"), folder=True) as folder:
        for name, rows in subsets.items():
            write_csv(folder / f"{name}.csv", rows)
        write_csv(folder / "audit.csv", findings)
    if listed:
        print(f"split: {len(listed)} listed pairs of photos of one lesion stay together")
    print(f"split: photos of each diagnosis\n{summary(subsets).T.to_string()}")
    for name, words in (("val", "validation"), ("test", "test")):
        if leak := find_leak(subsets["train"], subsets[name], words):
            print(leak.warning)
    print(f"audit: {audit.summary(findings)} (data/split/audit.csv)")


if __name__ == "__main__":
    run_stage(main)
