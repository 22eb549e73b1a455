"""Stage download: photos and metadata of the source to data/raw."""

from pathlib import Path

from lesions.artifacts import replacing
from lesions.errors import run
from lesions.params import load_params
from lesions.sources import fetch


def main() -> None:
    """Fill data/raw with metadata.csv and images/<image_id>.jpg from the source in params.yaml."""
    params = load_params()
    with replacing(Path("data/raw"), folder=True) as raw:
        fetch(params.source, params.sample_seed, raw)


if __name__ == "__main__":
    run(main)
