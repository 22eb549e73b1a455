"""The layout: where each file of the pipeline is, from the project's root.

`external` names an external test set; without it, a path is that of the project's own test set.
"""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")

RAW_TABLE = Path("data/raw/metadata.csv")
RAW_IMAGES = Path("data/raw/images")
RESIZED = Path("data/resized")
SPLIT = Path("data/split")
TRAIN_TABLE = Path("data/split/train.csv")
VAL_TABLE = Path("data/split/val.csv")
TEST_TABLE = Path("data/split/test.csv")
AUDIT = Path("data/split/audit.csv")
BALANCED = Path("data/balanced")
BALANCED_TABLE = Path("data/balanced/train.csv")
EXTERNAL = Path("data/external")
EXTERNAL_PREDICTIONS = Path("data/predictions")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = Path("plots")
PAGES = Path("dvc_plots")  # what `dvc plots show` and `lesions report` write

# What the pipeline writes; a source may not be in it.
OUTPUTS = (
    *(Path("data/raw"), RESIZED, SPLIT, BALANCED, EXTERNAL, EXTERNAL_PREDICTIONS),
    *(MODELS, METRICS, PLOTS, PAGES),
)


def model_file(model: str) -> Path:
    """Weights and card of a trained network."""
    return MODELS / f"{model}.safetensors"


def card_page(model: str) -> Path:
    """The model card, for people."""
    return MODELS / f"{model}.md"


def validation(model: str) -> Path:
    """The predictions of the validation photos, one row per photo."""
    return MODELS / f"{model}.validation.csv"


def history(model: str) -> Path:
    """One row per epoch."""
    return PLOTS / model / "history.csv"


def predictions(model: str) -> Path:
    """One row per test photo."""
    return PLOTS / model / "predictions.csv"


def val_metrics(model: str) -> Path:
    """The key metrics on validation."""
    return METRICS / "val" / f"{model}.json"


def metrics(model: str, external: str | None = None) -> Path:
    """The key metrics on a test set; `baseline` is a model too."""
    return METRICS / (external or "test") / f"{model}.json"


def plots(external: str | None = None) -> Path:
    """The folder of the tables and pictures of a test set."""
    return PLOTS / external if external else PLOTS


def external_folder(external: str) -> Path:
    """Photos and table of an external test set."""
    return EXTERNAL / external


def external_predictions(external: str) -> Path:
    """The predictions of all networks for an external test set."""
    return EXTERNAL_PREDICTIONS / external
