"""The metadata table: one row per photo, in HAM10000's columns, checked, all values as text."""

import csv
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import CODES

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
OPTIONAL = ("dataset",)  # only Dataverse's table has it
SAVE_AS = "From a spreadsheet, save the table as CSV, UTF-8, separated by commas"
# Spaces of all kinds, zero-width characters and the byte order mark.
INVISIBLE = "".join(map(chr, (*range(33), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010)))) + (
    "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
PLACEHOLDERS = ("unknown", "nan", "none", "null", "na", "n.a.", "-", "--", "0", ".", "id", "lesion")
MAX_HEADER = 1_000_000  # bytes of the first line
MAX_COLUMNS = 1000
MAX_PHOTOS = 30  # of one lesion; HAM10000 has at most 6
MAX_DIAGNOSES = 2  # of one lesion; HAM10000 has one

# Pairs of photos that show one lesion under two lesion_ids. Published with the corrected
# DermaMNIST: Abhishek et al. 2025, doi 10.1038/s41597-025-04382-5.
PUBLISHED_PAIRS = Path(__file__).parent / "same_lesion.csv"
PAIR_COLUMNS = ("image_id", "same_lesion_as")


def read_table(path: Path, *columns: str, only: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV file (tab-separated if it ends in .tab) as text, empty cells as empty text.

    Args:
        path: the file.
        columns: that it must have.
        only: the columns to read, if they are there; by default all.

    Raises:
        LesionsError: the file is missing, is not such a table or lacks a column.
    """
    separator = "\t" if path.suffix == ".tab" else ","
    try:
        with path.open("rb") as file:
            header = file.readline(MAX_HEADER).partition(b"\r")[0]
        if (count := header.count(separator.encode()) + 1) > MAX_COLUMNS:
            raise LesionsError(f"{path}: {count:,} columns; at most {MAX_COLUMNS} are allowed.")
        names = [name.strip(b"\"' ") for name in header.strip().split(separator.encode())]
        if twice := [name for name in names if name and names.count(name) > 1]:
            column = twice[0].decode("utf-8", "replace")
            raise LesionsError(f"{path}: has the column {column} more than once. Keep one.")
        with warnings.catch_warnings():
            # Rows longer than the header are an error, not a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,  # so that the numbers of rows are those of lines
                index_col=False,  # else one comma too many at the end of rows shifts all columns
            )
    except FileNotFoundError:
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.") from None
    except UnicodeDecodeError:
        raise LesionsError(f"{path}: not UTF-8 text. {SAVE_AS}") from None
    except (ValueError, OSError, OverflowError, pd.errors.ParserWarning) as error:
        # The errors of pandas' parser are ValueErrors.
        why = " ".join(str(error).split())
        raise LesionsError(f"{path}: not a readable table ({why}). {SAVE_AS}") from None
    table.columns = table.columns.str.strip(INVISIBLE)
    # A quote that is not closed swallows lines.
    ends = table.apply(lambda column: column.str.contains("[\r\n]", na=False)).any(axis=1)
    if ends.any():
        row = table.index[ends][0] + 2
        raise LesionsError(f"{path}: a line end in a value in row {row}. {SAVE_AS}.")
    table = table.fillna("")
    if missing := [column for column in columns if column not in table.columns]:
        found = ", ".join(table.columns[:20]) or "none of them"
        raise LesionsError(
            f"{path}: lacks the column {', '.join(missing)}; found {found}; expected "
            f"{', '.join(columns)}. {SAVE_AS}"
        )
    return table if only is None else table[[name for name in table.columns if name in only]]


def read_metadata(path: Path) -> pd.DataFrame:
    """Read the metadata, clean it, and refuse what could put one lesion into two subsets.

    Empty rows, and invisible characters at the ends of values, are removed and counted. All else
    that is doubtful is refused, with its row: ids that differ only in case or spaces, placeholders
    for ids, lesions of implausibly many photos or diagnoses.

    Returns:
        The columns in COLUMNS and OPTIONAL as text, one row per photo, sorted by image_id.

    Raises:
        LesionsError: names the file, a row and what is allowed.
    """
    table = clean_table(path, read_table(path, *COLUMNS, only=(*COLUMNS, *OPTIONAL)))
    _refuse_short_rows(path)
    if table.empty:
        raise LesionsError(f"{path}: has no rows. One row per photo is expected.")

    def refuse(wrong: "pd.Series[bool]", what: str, allowed: str) -> None:
        if wrong.any():
            row = table.index[wrong][0]  # the header is row 1
            raise LesionsError(
                f"{path}: {what.format(**table.loc[row])} in row {row + 2} ({wrong.sum()} rows in "
                f"all); {allowed}."
            )

    # Every value alone.
    for column in ("image_id", "lesion_id"):
        valid = table[column].str.fullmatch(r"[A-Za-z0-9_.:-]{1,100}")
        refuse(table[column] == "", f"empty {column}", "every photo needs one")
        refuse(~valid, f"{column} {{{column}!r}}", "letters, digits and _ . : - are allowed")
    unusable = ~table["image_id"].str.fullmatch(r"[A-Za-z0-9_-]{1,100}")
    refuse(unusable, "image_id {image_id!r}", "letters, digits, _ and - are allowed")
    refuse(~table["dx"].isin(CODES), "dx {dx!r} of {image_id}", f"known are {', '.join(CODES)}")
    for column in ("sex", "localization", "dx_type"):
        valid = table[column].str.fullmatch(r"[\w ,/().+-]{0,60}")
        refuse(~valid, f"{column} {{{column}!r}}", "letters, digits and , / ( ) . + - are allowed")
    age = pd.to_numeric(table["age"], errors="coerce")
    valid = age.between(0, 120) | table["age"].str.casefold().isin(("", "unknown", "nan"))
    refuse(~valid, "age {age!r}", "years from 0 to 120, or nothing, are allowed")

    # Values that must differ, or must not.
    refuse(table["image_id"].duplicated(), "a second {image_id}", "keep one row per photo")
    for column in ("image_id", "lesion_id"):
        key = table[column].str.casefold()
        variants = table.groupby(key)[column].nunique()
        wrong = key.isin(variants.index[variants > 1])
        refuse(wrong, f"{column} {{{column}}}", "another one differs from it only in case")
    photos = table.groupby("lesion_id")["image_id"].transform("size")
    placeholder = table["lesion_id"].str.casefold().isin(PLACEHOLDERS)
    refuse(placeholder & (photos > 1), "lesion_id {lesion_id}", "give every lesion its own id")
    many = f"a lesion has at most {MAX_PHOTOS} photos and {MAX_DIAGNOSES} diagnoses"
    diagnoses = table.groupby("lesion_id")["dx"].transform("nunique")
    wrong = (photos > MAX_PHOTOS) | (diagnoses > MAX_DIAGNOSES)
    refuse(wrong, "lesion_id {lesion_id} of very many photos or diagnoses", many)
    return table.sort_values("image_id", ignore_index=True)


def _refuse_short_rows(path: Path) -> None:
    """Refuse rows with fewer values than the header, which pandas would fill up."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix == ".tab" else ",")
        try:
            count = len(next(rows, []))
            for number, row in enumerate(rows, start=2):
                if row and len(row) < count:
                    raise LesionsError(
                        f"{path}: {len(row)} values in row {number}; {count} are expected. "
                        f"{SAVE_AS}."
                    )
        except csv.Error as error:  # a value of over 128 kB, for example
            raise LesionsError(f"{path}: not a readable table ({error}). {SAVE_AS}.") from None


def clean_table(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Remove invisible characters at the ends of values, and rows without any value."""
    stripped = table.apply(lambda column: column.str.strip(INVISIBLE))
    if changed := int((stripped != table).any(axis=1).sum()):
        print(f"{path}: removed spaces or invisible characters around values in {changed} rows")
    empty = (stripped == "").all(axis=1)
    if empty.any():
        print(f"{path}: left out {empty.sum()} empty rows")
    cleaned: pd.DataFrame = stripped[~empty]
    return cleaned


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read pairs of photos that show one lesion: the columns in PAIR_COLUMNS.

    Returns:
        The image_ids of each pair, sorted, each pair once.

    Raises:
        LesionsError: the file is not such a table, or a pair is not of two photos.
    """
    if not path.is_file():
        raise LesionsError(
            f"same_lesion: {path}: not found. Name a table of pairs of photos, with the columns "
            f"{', '.join(PAIR_COLUMNS)}; {PUBLISHED_PAIRS.name} in lesions/dataset is one."
        )
    table = clean_table(path, read_table(path, *PAIR_COLUMNS, only=PAIR_COLUMNS))
    firsts, seconds = (table[column] for column in PAIR_COLUMNS)
    wrong = (firsts == "") | (seconds == "") | (firsts == seconds)
    if wrong.any():
        row = table.index[wrong][0]
        raise LesionsError(
            f"{path}: row {row + 2} is {firsts[row]!r}, {seconds[row]!r}; the image_ids of two "
            "photos are expected."
        )
    pairs = (sorted(pair) for pair in zip(firsts, seconds, strict=True))
    return list(dict.fromkeys((first, second) for first, second in pairs))


def pairs_in(table: pd.DataFrame, path: Path) -> list[tuple[str, str]]:
    """Find the listed pairs whose photos are in a table: the published ones and those of a file.

    Args:
        table: the metadata.
        path: of the file, as the parameter `same_lesion`.

    Raises:
        LesionsError: the file is not a table of pairs, or it is the user's and none is found.
    """
    published, own, ids = read_pairs(PUBLISHED_PAIRS), read_pairs(path), set(table["image_id"])
    found = [pair for pair in dict.fromkeys([*published, *own]) if ids.issuperset(pair)]
    if own and own != published and not set(own) & set(found):
        raise LesionsError(
            f"same_lesion: {path}: no pair is of two photos of the metadata, for example {own[0]}; "
            f"image_ids such as {table['image_id'].iloc[0]} are expected."
        )
    return found


def join_lesions(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Give the two lesions of each pair of photos one lesion_id.

    Args:
        table: one row per photo.
        pairs: image_ids of photos of one lesion. A pair of which the table lacks a photo is
            ignored.
    """
    lesion = table.set_index("image_id")["lesion_id"]
    for first, second in pairs:
        if first in lesion.index and second in lesion.index:
            joined, other = sorted((lesion[first], lesion[second]))
            lesion = lesion.mask(lesion == other, joined)
    return table.assign(lesion_id=lesion.to_numpy())
