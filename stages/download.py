"""Stage download: brings photos and metadata from the source to data/raw."""

from pathlib import Path

from lesions.common.artifacts import atomic_write
from lesions.common.params import load_params
from lesions.dataset.metadata import read_metadata
from lesions.sources.download import download
from stages import run_stage


def main() -> None:
    """Fill data/raw with metadata.csv and images/<image_id>.jpg from the source in params.yaml."""
    params = load_params()
    with atomic_write(Path("data/raw"), folder=True) as raw:
        download(params.source, params.sample_seed, raw)
        metadata = read_metadata(raw / "metadata.csv")
    lesions = metadata["lesion_id"].nunique()
    print(f"download: {len(metadata):,} photos of {lesions:,} lesions from {params.source}")


if __name__ == "__main__":
    run_stage(main)
