"""The metadata table: one row per photo, checked, all values as text.

Its columns have the same names whatever the source calls them: image_id, lesion_id (the photo's own
id where the source names no lesions), dx (the class), and where they are known patient_id, dx_type
(how the class was confirmed), age, sex, localization and split.
"""

import csv
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesions.common.errors import LesionsError
from lesions.common.names import shorten

REQUIRED = ("image_id", "lesion_id", "dx")  # dx is the class
OPTIONAL = ("patient_id", "dx_type", "age", "sex", "localization", "split", "dataset")
GROUP_COLUMNS = ("lesion_id", "patient_id")  # from fine to coarse
ID_RULE = "up to 200 bytes of printable characters are allowed, and no = + - @ at the start"
SAVE_AS = "From a spreadsheet, save the table as CSV, UTF-8, separated by commas"
# Spaces of all kinds, zero-width characters and the byte order mark.
INVISIBLE = "".join(map(chr, (*range(33), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010)))) + (
    "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
PLACEHOLDERS = ("unknown", "nan", "none", "null", "na", "n.a.", "-", "--", "0", ".", "id", "lesion")
MAX_HEADER = 1_000_000  # bytes of the first line
MAX_COLUMNS = 1000
HALVES = 5  # pairs of which only one photo is here are named, at most
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
    separator = separator_of(path)
    try:
        names = read_header(path)
        if len(names) > MAX_COLUMNS:
            raise LesionsError(
                f"{path}: {len(names):,} columns; at most {MAX_COLUMNS} are allowed."
            )
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise LesionsError(f"{path}: has the column {twice[0]} more than once. Keep one.")
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


def separator_of(path: Path) -> str:
    """Say what separates the columns of a table: tabs if it ends in .tab, otherwise commas."""
    return "\t" if path.suffix.lower() == ".tab" else ","


def read_header(path: Path) -> list[str]:
    """Read the names of a table's columns, without reading the table."""
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER).partition(b"\r")[0].decode("utf-8-sig", "replace")
    try:
        names = next(csv.reader([line], delimiter=separator_of(path)), [])
    except csv.Error:  # a name of over 128 kB, for example
        return []
    return [name.strip(INVISIBLE) for name in names]


def read_metadata(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read the table that the stage download writes.

    Returns:
        The columns of REQUIRED and OPTIONAL as text, one row per photo, sorted by image_id.

    Raises:
        LesionsError: as `check_metadata`.
    """
    table = clean_table(path, read_table(path, *REQUIRED, only=(*REQUIRED, *OPTIONAL)))
    refuse_short_rows(path)
    return check_metadata(table, str(path), classes)


def check_metadata(table: pd.DataFrame, place: str, classes: Sequence[str]) -> pd.DataFrame:
    """Refuse what is not a table of photos, or could put one lesion into two subsets.

    Ids that differ only in case or spaces, and placeholders for ids, are refused, with their row.

    Args:
        table: the columns of REQUIRED, and some of OPTIONAL; its index is the number of the row.
        place: its file, for messages.
        classes: what `dx` may be.

    Returns:
        The table, sorted by image_id.

    Raises:
        LesionsError: names the file, a row and what is allowed.
    """
    if table.empty:
        raise LesionsError(f"{place}: has no rows. One row per photo is expected.")

    def refuse(wrong: "pd.Series[bool]", what: str, allowed: str) -> None:
        if wrong.any():
            row = table.index[wrong][0]  # the header is row 1
            values = {name: shorten(value) for name, value in table.loc[row].items()}
            raise LesionsError(
                f"{place}: {what.format(**values)} in row {row + 2} ({wrong.sum()} rows in all); "
                f"{allowed}."
            )

    # Every value alone.
    ids = [column for column in ("image_id", *GROUP_COLUMNS) if column in table]
    for column in ids:
        refuse(table[column] == "", f"empty {column}", "every photo needs one")
        refuse(~table[column].map(_is_id), f"{column} {{{column}!r}}", ID_RULE)
    known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    refuse(~table["dx"].isin(classes), "class {dx!r} of {image_id}", f"known are {known}")
    for column in {"sex", "localization", "dx_type"} & set(table):
        valid = table[column].str.fullmatch(r"[-?]|(?![+-])[\w ,/().+&-]{0,80}")
        allowed = "letters, digits and , / ( ) . + & - are allowed, + and - not at the start"
        refuse(~valid, f"{column} {{{column}!r}}", allowed)
    if "age" in table:
        age = pd.to_numeric(table["age"], errors="coerce")
        valid = age.between(0, 120) | table["age"].str.casefold().isin(("", *PLACEHOLDERS))
        refuse(~valid, "age {age!r}", "years from 0 to 120, or nothing, are allowed")

    # Values that must differ, or must not.
    refuse(table["image_id"].duplicated(), "a second {image_id}", "keep one row per photo")
    for column in ids:
        key = table[column].str.casefold()
        variants = table.groupby(key)[column].nunique()
        wrong = key.isin(variants.index[variants > 1])
        refuse(wrong, f"{column} {{{column}}}", "another one differs from it only in case")
    for column in ids[1:]:
        photos = table.groupby(column)["image_id"].transform("size")
        # In a column of numbers, 0 is a number like the others.
        numbers = {"0"} if table[column].str.isdigit().all() else set()
        placeholder = table[column].str.casefold().isin(set(PLACEHOLDERS) - numbers)
        allowed = f"give every {column.removesuffix('_id')} its own id, or leave the cell empty"
        refuse(placeholder & (photos > 1), f"{column} {{{column}}}", allowed)
    if "patient_id" in table:
        patients = table.groupby("lesion_id")["patient_id"].transform("nunique")
        refuse(
            patients > 1,
            "lesion_id {lesion_id} of patient_id {patient_id} and of another",
            "a lesion is of one patient",
        )
    return table.sort_values("image_id", ignore_index=True)


def _is_id(text: str) -> bool:
    """Say whether a text may be an id: printable, and no formula of a spreadsheet."""
    return (
        len(text.encode()) <= 200
        and text.isprintable()
        and not text.startswith(("=", "+", "-", "@"))
    )


def group_column(table: pd.DataFrame) -> str:
    """Name the column of the coarsest group: photos of one group must not be split up."""
    return "patient_id" if "patient_id" in table else "lesion_id"


def groups_of(table: pd.DataFrame) -> "pd.Series[str]":
    """Return the group of each photo: its patient, or else its lesion, or else itself."""
    return table[group_column(table)]


def group_word(table: pd.DataFrame) -> str:
    """Say what the groups are: patient, lesion, or photo if each photo is a group."""
    if group_column(table) == "patient_id":
        return "patient"
    named = table["lesion_id"][table["lesion_id"] == table["image_id"]]
    return "photo" if table["lesion_id"].isin(named).all() else "lesion"


def refuse_short_rows(path: Path) -> None:
    """Refuse rows with fewer values than the header, which pandas would fill up."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator_of(path))
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
            f"{', '.join(PAIR_COLUMNS)}."
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
    """Find the listed pairs of photos whose photos are in a table, and say how many.

    Args:
        table: the metadata.
        path: of the list, as the parameter `same_lesion`.

    Raises:
        LesionsError: as `read_pairs`.
    """
    listed, ids = read_pairs(path), set(table["image_id"])
    found = [pair for pair in listed if ids.issuperset(pair)]
    # A list can be of more photos than these. But half a pair may be a typing error.
    halves = [pair for pair in listed if len(ids.intersection(pair)) == 1]
    for pair in halves[:HALVES]:
        absent = next(name for name in pair if name not in ids)
        print(f"{path}: {pair[0]} and {pair[1]} are not joined, because photo {absent} is missing")
    if len(halves) > HALVES:
        print(f"{path}: {len(halves) - HALVES} more pairs of which only one photo is here")
    if listed:
        print(
            f"{len(found)} of the {len(listed)} listed pairs of photos of one lesion are here "
            f"({path})"
        )
    return found


def ids_to_leave_out(table: pd.DataFrame, path: Path) -> set[str]:
    """Read which photos of a table to leave out, and say how many.

    Args:
        table: the metadata.
        path: of the list, as the parameter `leave_out`: a table with the column image_id.

    Raises:
        LesionsError: the file is missing or has no such column.
    """
    if not path.is_file():
        raise LesionsError(
            f"leave_out: {path}: not found. Name a table of photos with the column image_id."
        )
    listed = set(clean_table(path, read_table(path, "image_id"))["image_id"])
    found = listed & set(table["image_id"])
    if listed:
        print(f"{len(found)} of the {len(listed)} photos to leave out are here ({path})")
    return found


def join_groups(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Give the two groups of each pair of photos one id.

    Args:
        table: one row per photo.
        pairs: image_ids of photos of one lesion. A pair of which the table lacks a photo is
            ignored.
    """
    column = group_column(table)
    # The groups are the nodes of a graph, and the pairs its edges. All that are connected get the
    # name of the first in order.
    nodes, names = pd.factorize(table[column], sort=True)
    node_of = dict(zip(table["image_id"], nodes, strict=True))
    edges = [
        (node_of[first], node_of[second])
        for first, second in pairs
        if first in node_of and second in node_of
    ]
    firsts, seconds = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (firsts, seconds)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    _, first_of = np.unique(component, return_index=True)
    return table.assign(**{column: np.asarray(names)[first_of[component]][nodes]})
