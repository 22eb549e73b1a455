"""The metadata table: one row per photo, in HAM10000's columns, checked, all values as text."""

import warnings
from pathlib import Path

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import CODES

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")

# Each pair shows one lesion under two lesion_ids. Published with the corrected DermaMNIST:
# Abhishek et al. 2025, doi 10.1038/s41597-025-04382-5.
DUPLICATE_PAIRS = (
    ("ISIC_0033481", "ISIC_0033421"),
    ("ISIC_0033556", "ISIC_0032634"),
    ("ISIC_0029152", "ISIC_0033173"),
    ("ISIC_0029036", "ISIC_0027027"),
    ("ISIC_0027820", "ISIC_0028209"),
    ("ISIC_0027689", "ISIC_0032647"),
    ("ISIC_0030906", "ISIC_0024879"),
    ("ISIC_0033391", "ISIC_0034186"),
    ("ISIC_0025226", "ISIC_0030074"),
    ("ISIC_0026087", "ISIC_0025664"),
    ("ISIC_0024736", "ISIC_0029748"),
    ("ISIC_0024770", "ISIC_0027811"),
    ("ISIC_0027162", "ISIC_0029061"),
    ("ISIC_0024602", "ISIC_0032283"),
    ("ISIC_0029625", "ISIC_0024629"),
    ("ISIC_0030000", "ISIC_0031392"),
    ("ISIC_0024437", "ISIC_0031299"),
    ("ISIC_0033374", "ISIC_0033417"),
)


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """Read a CSV file (tab-separated if it ends in .tab) as text, empty cells as empty text.

    Args:
        path: the file.
        columns: that it must have.

    Raises:
        LesionsError: the file is missing, is not such a table or lacks a column.
    """
    try:
        with warnings.catch_warnings():
            # Rows longer than the header are an error, not a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if path.suffix == ".tab" else ",",
                dtype=str,
                keep_default_na=False,
                index_col=False,  # else one comma too many at the end of rows shifts all columns
            )
    except FileNotFoundError:
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.") from None
    except (ValueError, OSError, OverflowError, pd.errors.ParserWarning) as error:
        # The errors of pandas' parser are ValueErrors.
        why = " ".join(str(error).split())
        raise LesionsError(f"{path}: not a readable table ({why}).") from None
    if missing := [column for column in columns if column not in table.columns]:
        raise LesionsError(
            f"{path}: lacks the column {', '.join(missing)}; found {', '.join(table.columns)}, "
            f"expected {', '.join(columns)}."
        )
    return table


def read_metadata(path: Path) -> pd.DataFrame:
    """Read the metadata and check columns, ids and diagnoses.

    Returns:
        All columns as text, one row per photo, sorted by image_id.

    Raises:
        LesionsError: a column is missing, an image_id is empty, unusable as a file name or
            repeated, a lesion_id is empty, or a dx is unknown.
    """
    table = read_table(path, *COLUMNS)
    if table.empty:
        raise LesionsError(f"{path}: has no rows. One row per photo is expected.")
    unusable = table[~table["image_id"].str.fullmatch(r"[A-Za-z0-9_-]{1,100}")]
    if len(unusable):
        raise LesionsError(
            f"{path}: image_id {unusable['image_id'].iloc[0]!r} in row {unusable.index[0] + 2}; "
            "letters, digits, _ and - are allowed."
        )
    if len(repeated := table[table["image_id"].duplicated()]):
        raise LesionsError(
            f"{path}: image_id {repeated['image_id'].iloc[0]} is in more than one row "
            f"({len(repeated)} rows too many in all). Keep one row per photo."
        )
    if (blank := table["lesion_id"].str.strip() == "").any():
        row = table.index[blank][0]
        raise LesionsError(f"{path}: empty lesion_id in row {row + 2}; every photo needs one.")
    unknown = table[~table["dx"].isin(CODES)]
    if len(unknown):
        raise LesionsError(
            f"{path}: dx {unknown['dx'].iloc[0]!r} of {unknown['image_id'].iloc[0]}; "
            f"known diagnoses are {', '.join(CODES)}."
        )
    return table.sort_values("image_id", ignore_index=True)


def join_duplicate_lesions(table: pd.DataFrame) -> pd.DataFrame:
    """Give the two lesions of each published duplicate pair one lesion_id.

    A pair of which the table lacks a photo is ignored.
    """
    lesion = table.set_index("image_id")["lesion_id"]
    for first, second in DUPLICATE_PAIRS:
        if first in lesion.index and second in lesion.index:
            joined, other = sorted((lesion[first], lesion[second]))
            lesion = lesion.mask(lesion == other, joined)
    return table.assign(lesion_id=lesion.to_numpy())
