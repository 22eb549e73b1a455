"""Stage split: divides the photos into train, validation and test, by whole lesions."""

from pathlib import Path

from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.errors import LesionsError
from lesions.common.params import load_params
from lesions.dataset import audit
from lesions.dataset.metadata import PUBLISHED_PAIRS, join_lesions, read_metadata, read_pairs
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import find_leak, split, summary
from stages import run_stage


def main() -> None:
    """Divide data/raw/metadata.csv into data/split/train.csv, val.csv and test.csv; audit it."""
    params = load_params()
    metadata = read_metadata(Path("data/raw/metadata.csv"))
    published, own = read_pairs(PUBLISHED_PAIRS), read_pairs(Path(params.same_lesion))
    listed = dict.fromkeys([*published, *own])
    ids = set(metadata["image_id"])
    here = [pair for pair in listed if ids.issuperset(pair)]
    if own and not set(own) & set(here) and set(own) != set(published):
        raise LesionsError(
            f"same_lesion: {params.same_lesion}: no pair is of two photos of the metadata, for "
            f"example {own[0]}; image_ids such as {metadata['image_id'].iloc[0]} are expected."
        )
    identical = audit.identical_photos(PhotoArray(Path("data/resized")), metadata)
    subsets = split(
        join_lesions(metadata, [*here, *identical]),
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
    print(f"split: {len(here)} of {len(listed)} listed pairs of photos of one lesion are here")
    print(f"split: photos of each diagnosis\n{summary(subsets).T.to_string()}")
    for name, words in (("val", "validation"), ("test", "test")):
        if leak := find_leak(subsets["train"], subsets[name], words):
            print(leak.warning)
    print(f"audit: {audit.summary(findings)} (data/split/audit.csv)")


if __name__ == "__main__":
    run_stage(main)
