"""Stage download: gets photos and metadata from the source into data/raw."""

from pathlib import Path

from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.errors import LesionsError
from lesions.common.params import load_params
from lesions.sources.download import download
from stages import run_stage


def main() -> None:
    """Fill data/raw with metadata.csv and images/<image_id>.jpg from the source in params.yaml."""
    params = load_params()
    # A copy of the table beside the photos tells later whether the other one is still ours.
    table, copy = Path("data/raw/metadata.csv"), Path("data/raw/images/metadata.csv")
    if table.exists() and not (copy.is_file() and copy.read_bytes() == table.read_bytes()):
        raise LesionsError(f"{table}: not written by this pipeline. Move it away, and the photos.")
    with atomic_write(Path("data/raw/images"), folder=True) as images:
        metadata = download(params.source, params.sample_seed, images)
        write_csv(images / "metadata.csv", metadata)
    write_csv(table, metadata)
    lesions = metadata["lesion_id"].nunique()
    print(f"download: {len(metadata):,} photos of {lesions:,} lesions from {params.source}")


if __name__ == "__main__":
    run_stage(main)
