"""Stage download: gets photos and metadata from the source into data/raw."""

from lesions.common import layout
from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.errors import LesionsError
from lesions.common.params import load_params
from lesions.dataset.description import load_description
from lesions.dataset.metadata import group_word, groups_of
from lesions.sources.download import download
from stages import run_stage


def main() -> None:
    """Fill data/raw with metadata.csv and images/<image_id>.jpg from the source in params.yaml."""
    params = load_params()
    dataset = load_description(params.dataset)
    # A copy of the table beside the photos tells later whether the other one is still ours.
    table, copy = layout.RAW_TABLE, layout.RAW_IMAGES / "metadata.csv"
    if table.exists() and not (copy.is_file() and copy.read_bytes() == table.read_bytes()):
        raise LesionsError(f"{table}: not written by this pipeline. Move it away, and the photos.")
    with atomic_write(layout.RAW_IMAGES, folder=True) as images:
        metadata = download(params.source, params.sample_seed, params.sample_size, dataset, images)
        write_csv(images / "metadata.csv", metadata)
    write_csv(table, metadata)
    count, word = groups_of(metadata).nunique(), group_word(metadata)
    of_groups = "" if word == "photo" else f" of {count:,} {word}s"
    found = metadata["dx"].nunique()
    print(
        f"download: found {len(metadata):,} photos{of_groups} in {found} classes, from "
        f"{params.source}"
    )


if __name__ == "__main__":
    run_stage(main)
