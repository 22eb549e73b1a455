"""Stage split: divides the photos into train, validation and test, by whole lesions or patients."""

from pathlib import Path

from lesions.common import layout
from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.params import load_params
from lesions.dataset import audit
from lesions.dataset.description import load_description
from lesions.dataset.metadata import ids_to_leave_out, join_groups, pairs_in, read_metadata
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import absent_classes, find_leak, leave_out, prove, split, summary
from stages import run_stage


def main() -> None:
    """Divide data/raw/metadata.csv into data/split/train.csv, val.csv and test.csv; audit it."""
    params = load_params()
    classes = load_description(params.dataset).classes
    metadata = read_metadata(layout.RAW_TABLE, classes)
    listed = pairs_in(metadata, Path(params.same_lesion))
    identical = audit.identical_photos(PhotoArray(layout.RESIZED), metadata)
    joined = join_groups(metadata, [*listed, *identical])
    subsets = split(
        joined, classes, params.val_share, params.test_share, params.holdout, params.split_seed
    )
    ids = ids_to_leave_out(metadata, Path(params.leave_out))
    subsets = leave_out(subsets, ids)
    given = params.holdout == "given"
    shares = {} if given else {"val": params.val_share, "test": params.test_share}
    findings = audit.audit(metadata, classes, identical, subsets, shares, ids)
    with atomic_write(layout.SPLIT, folder=True) as folder:
        for name, rows in subsets.items():
            write_csv(folder / f"{name}.csv", rows)
        write_csv(folder / "audit.csv", findings)
    print(f"split: photos of each class\n{summary(subsets, classes).T.to_string()}")
    print(f"split: {prove(joined, subsets, classes, params.split_seed)}")
    for name, missing in absent_classes(subsets, classes).items():
        print(f"split: {name} has no photo of {', '.join(missing)}: no metrics of it there")
    for name, words in (("val", "validation"), ("test", "test")):
        if leak := find_leak(subsets["train"], subsets[name], words):
            print(leak.warning)
    print(f"audit: {audit.summary(findings)} ({layout.AUDIT})")


if __name__ == "__main__":
    run_stage(main)
