"""Users' folders: photos, tables and folder names in any of the usual layouts, as one table.

A folder is read in this order:

1. a table named as HAM10000's (METADATA_NAMES);
2. all other tables that name photos, joined: one row per photo, with the class in a column, or in
   one column of 0 and 1 per class (ISIC's *GroundTruth.csv, with or without its *Metadata.csv);
3. folders `train`, `val`, `test`, each with a folder per class;
4. a folder per class.

Where a table has no class or subset, those of the photos' folders are taken. Zip files are read
without unpacking; hidden files and folders are ignored.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.dataset.description import Description, Role, normalise
from lesions.dataset.metadata import (
    MAX_HEADER,
    check_metadata,
    clean_table,
    read_table,
    refuse_short_rows,
)
from lesions.dataset.photos import ENDINGS
from lesions.dataset.splits import SUBSET_NAMES
from lesions.sources.catalogue import WITHOUT_PHOTO
from lesions.sources.files import PhotoFile, by_name, photos_in_folder, walk

TABLES = (".csv", ".tab", ".tsv", ".xls", ".xlsx", ".ods")
METADATA_NAMES = (
    *("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab"),
    "metadata.csv",
)
LAYOUTS = (
    "A folder may have a table (CSV) with a column that names the photos (image_id, image, "
    "isic_id, file_name, ...) and one with their class, or a folder of photos for each class. "
    "datasets/README.md shows all layouts."
)
# What tables call the columns, the likeliest first, and what they are called here.
COLUMN_NAMES: dict[Role, tuple[str, ...]] = {
    "image": (
        *("image_id", "image", "isic_id", "image_name", "file_name", "filename", "image_path"),
        *("file", "path", "photo"),
    ),
    "label": (
        *("dx", "label", "class", "benign_malignant", "diagnosis", "diagnosis_1", "diagnosis_2"),
        *("diagnosis_3", "diagnosis_4", "diagnosis_5", "target", "binary_label"),
    ),
    "patient": ("patient_id", "patient"),
    "lesion": ("lesion_id", "lesion"),
    "split": ("split", "subset"),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "site": ("localization", "anatom_site_general", "anatom_site_general_challenge", "site"),
    "confirmed_by": ("dx_type", "diagnosis_confirm_type"),
    "collection": ("dataset",),
}
OWN_NAMES: dict[Role, str] = {
    "image": "image_id",
    "label": "dx",
    "patient": "patient_id",
    "lesion": "lesion_id",
    "split": "split",
    "age": "age",
    "sex": "sex",
    "site": "localization",
    "confirmed_by": "dx_type",
    "collection": "dataset",
}


class Content(NamedTuple):
    """What a folder has."""

    table: pd.DataFrame  # one row per photo: image_id, dx (the label as found) and what is known
    files: dict[str, PhotoFile]  # of each image_id
    place: str  # the table or folder that names the classes
    columns: dict[Role, str]  # the tables' columns that were taken
    notes: list[str]  # what was assumed or left out, a sentence each


def read_folder(folder: Path, columns: Mapping[Role, str]) -> Content:
    """Find the photos of a folder, and what its tables and folders say of them.

    Args:
        folder: of a person; nothing in it is changed.
        columns: what the tables call some columns; others are recognised by COLUMN_NAMES.

    Raises:
        LesionsError: it has no photos, or it is not clear what belongs to which photo.
    """
    photos = list(photos_in_folder(folder))
    if not photos:
        raise LesionsError(
            f"{folder}: has no photos (files ending in {', '.join(ENDINGS)}). {LAYOUTS}"
        )
    tables = find_tables(folder, columns)
    content = (
        combine(str(folder), photos, tables, columns) if tables else _by_folders(folder, photos)
    )
    # A table that is not recognised must not be missed in silence.
    others = [path for path in walk(folder) if path.suffix.lower() in TABLES and path not in tables]
    for path in others[:5]:
        content.notes.append(f"not used: {path}, {_why_not(path)}")
    return content


def combine(
    origin: str, photos: Sequence[PhotoFile], tables: Sequence[Path], columns: Mapping[Role, str]
) -> Content:
    """Find the photos that some tables name, and what they say of them; see `read_folder`.

    Args:
        origin: where the photos are from, for messages.
        photos: all that there are.
        tables: with a column that names photos.
        columns: as for `read_folder`.
    """
    # Join the tables; the first has the classes.
    parsed = [_read(path, columns) for path in tables]
    with_labels = [one for one in parsed if "dx" in one.table]
    first, *others = sorted(parsed, key=lambda one: "dx" not in one.table)
    if len(with_labels) > 1:
        names = ", ".join(str(one.path) for one in with_labels)
        raise LesionsError(
            f"{origin}: several tables name the classes of photos: {names}. Keep one of them."
        )
    taken = {role: name for one in parsed[::-1] for role, name in one.columns.items()}
    notes = [note for one in parsed for note in one.notes]
    notes += [
        f"no table has the column {name}, which the dataset's file names as {role}"
        for role, name in columns.items()
        if role not in taken
    ]
    table = first.table
    for other in others:
        table = _join(table, other, first.path)

    # Find the file of each photo; take from its folders what no table says.
    keys = table["image_id"].map(_without_ending)
    stems = keys.map(lambda key: PurePosixPath(key).name)
    unique = not stems.duplicated().any() or keys.duplicated().any()
    table["image_id"] = stems if unique else keys
    files = by_name(photos, stems) if unique else _by_path(photos, keys)
    if WITHOUT_PHOTO in set(table["image_id"]) - set(files):
        notes.append(f"left out {WITHOUT_PHOTO}, which the table lists without a photo")
        table = table[table["image_id"] != WITHOUT_PHOTO]
    _refuse_missing(origin, table["image_id"], files)
    if unnamed := sorted(
        {photo.name for photo in photos} - {photo.name for photo in files.values()}
    ):
        notes.append(f"left out {len(unnamed)} photos that no table names, {unnamed[0]} the first")
    subsets, labels = _folder_names([files[image_id] for image_id in table["image_id"]])
    if "dx" not in table:
        if labels is None:
            names = ", ".join(COLUMN_NAMES["label"][:5])
            raise LesionsError(
                f"{first.path}: no column names the class of a photo ({names}, ...), and the "
                "photos are not in a folder per class. Name the column: `columns: {label: ...}` in "
                "the dataset's file."
            )
        table["dx"] = labels
        notes.append("classes: the names of the photos' folders")
    if "split" not in table and subsets is not None:
        table["split"] = subsets
        notes.append("subsets: the names of the photos' folders")
    return Content(table, files, str(first.path), taken, notes)


def _why_not(path: Path) -> str:
    """Say why a table is not used."""
    if path.suffix.lower() not in (".csv", ".tab"):
        return "which is not CSV. Save it as CSV, UTF-8, separated by commas"
    names = _header(path)
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        return "whose columns are not separated by commas. Save it as CSV, separated by commas"
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return (
        f"none of whose columns ({shown}) is known to name photos; `columns: {{image: NAME}}` does"
    )


def find_tables(folder: Path, columns: Mapping[Role, str]) -> list[Path]:
    """Find the tables of a folder that name photos.

    Raises:
        LesionsError: it has several of METADATA_NAMES that differ.
    """
    known = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len({path.read_bytes() for path in known}) > 1:
        names = ", ".join(path.name for path in known)
        raise LesionsError(f"{folder}: {names} differ. Keep the right one.")
    if known:
        return known[:1]
    tables = [path for path in walk(folder) if path.suffix.lower() in (".csv", ".tab")]
    return [path for path in tables if "image" in _recognise(_header(path), columns)]


def _header(path: Path) -> list[str]:
    """Read the names of a table's columns, without reading the table."""
    separator = "\t" if path.suffix.lower() == ".tab" else ","
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER).partition(b"\r")[0].decode("utf-8-sig", "replace")
    return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]


def _recognise(names: Sequence[str], columns: Mapping[Role, str]) -> dict[Role, str]:
    """Find the column of each role: as `columns` says, or by its usual names."""
    usual = {name.casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    found: dict[Role, str] = {}
    for role, candidates in COLUMN_NAMES.items():
        if role in columns:
            if columns[role] in names:
                found[role] = columns[role]
        elif known := [usual[name] for name in candidates if name in usual]:
            found[role] = known[0]
    return found


class _Parsed(NamedTuple):
    path: Path
    table: pd.DataFrame  # its columns are named as OWN_NAMES says
    columns: dict[Role, str]
    notes: list[str]


def _read(path: Path, columns: Mapping[Role, str]) -> _Parsed:
    """Read one table; its classes may be in one column, or in one column of 0 and 1 each."""
    raw = clean_table(path, read_table(path))
    refuse_short_rows(path)
    if raw.empty:
        raise LesionsError(f"{path}: has no rows. One row per photo is expected.")
    found = _recognise(list(raw.columns), columns)
    notes: list[str] = []
    classes: set[str] = set()  # the columns of 0 and 1
    others = [name for name in raw.columns if name not in found.values()]
    kept = {name: OWN_NAMES[role] for role, name in found.items()}
    table = raw[[name for name in raw.columns if name in kept]].rename(columns=kept)
    if "label" in found:
        if alternatives := [name for name in others if _is_label(name)]:
            counts = [f"{name} ({raw[name].replace('', pd.NA).nunique()})" for name in alternatives]
            notes.append(
                f"classes: the {table['dx'].replace('', pd.NA).nunique()} values of the column "
                f"{found['label']}; others are {', '.join(counts)}, which "
                f"`columns: {{label: {alternatives[0]}}}` would take"
            )
    elif one_hot := _one_hot(path, raw[others]):
        table["dx"], classes = one_hot, set(others)
        notes.append(f"classes: the columns of 0 and 1 in {path.name}")
    unused = [name for name in others if name not in classes and not _is_label(name)]
    if unused:
        shown = ", ".join(unused[:8]) + (", ..." if len(unused) > 8 else "")
        notes.append(f"not used: the columns {shown} of {path.name}")
    return _Parsed(path, table, found, notes)


def _is_label(name: str) -> bool:
    return name.casefold().replace(" ", "_") in COLUMN_NAMES["label"]


def _one_hot(path: Path, values: pd.DataFrame) -> list[str]:
    """Name the column that has the 1 of each row; empty if these are not columns of 0 and 1."""
    names = [name for name in values.columns if not name.casefold().endswith("weight")]
    numbers = values[names].apply(pd.to_numeric, errors="coerce")
    is_binary = numbers.isin([0, 1])
    binary = [name for name in names if is_binary[name].any()]
    if len(binary) < 2:
        return []
    for name in binary:
        if not is_binary[name].all():
            row = values.index[~is_binary[name]][0]
            raise LesionsError(
                f"{path}: row {row + 2}: {name} is {values.loc[row, name]!r}; 0 or 1 is expected."
            )
    wrong = numbers[binary].sum(axis=1) != 1
    if wrong.any():
        row = numbers.index[wrong][0]
        raise LesionsError(
            f"{path}: row {row + 2}: one 1 and otherwise 0 are expected in {', '.join(binary)}."
        )
    return [binary[index] for index in numbers[binary].to_numpy().argmax(axis=1)]


def _join(table: pd.DataFrame, other: _Parsed, path: Path) -> pd.DataFrame:
    """Add the columns of another table to the rows of the same photos."""
    keys, more = table["image_id"].map(_without_ending), other.table
    more = more.set_index(more["image_id"].map(_without_ending)).drop(columns="image_id")
    if more.index.duplicated().any():
        twice = more.index[more.index.duplicated()][0]
        raise LesionsError(f"{other.path}: a second row of {twice}. Keep one row per photo.")
    for column in more.columns:
        added = keys.map(more[column]).fillna("")
        if column not in table:
            table[column] = added
        elif (differ := (added != "") & (added != table[column])).any():
            raise LesionsError(
                f"{path} and {other.path} differ in {column} of {keys[differ].iloc[0]}. Keep one."
            )
    return table


def _without_ending(name: str) -> str:
    """Take the ending of a photo from a name or path."""
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in ENDINGS else path)


def _by_path(photos: Iterable[PhotoFile], keys: "pd.Series[str]") -> dict[str, PhotoFile]:
    """Find the photos of some paths: as long as a path is, it must be the end of the photo's.

    Raises:
        LesionsError: a path is the end of those of two photos.
    """
    wanted, found = set(keys), dict[str, PhotoFile]()
    lengths = {len(PurePosixPath(key).parts) for key in keys}
    for photo in photos:
        for length in lengths:
            key = "/".join((*photo.folders, photo.name)[-length:])
            if key in wanted and found.setdefault(key, photo) is not photo:
                raise LesionsError(
                    f"{found[key].place} and {photo.place} are both {key} of the table. Write "
                    "longer paths into the table."
                )
    return found


def _refuse_missing(origin: str, ids: "pd.Series[str]", files: Mapping[str, PhotoFile]) -> None:
    missing = [image_id for image_id in ids if image_id not in files]
    if missing:
        raise LesionsError(
            f"{origin}: {len(missing)} of the {len(ids)} photos in the table are missing; the "
            f"first is {missing[0]}.jpg. {LAYOUTS}"
        )


def _by_folders(folder: Path, photos: list[PhotoFile]) -> Content:
    """Take classes, and perhaps subsets, from the names of the folders alone."""
    subsets, labels = _folder_names(photos)
    if labels is None:
        raise LesionsError(
            f"{folder}: has photos, but no table that names them and no folder per class. {LAYOUTS}"
        )
    names = [photo.name for photo in photos]
    if len(set(names)) < len(names):  # in every folder a 1.jpg
        names = ["/".join((*photo.folders, photo.name)) for photo in photos]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise LesionsError(f"{folder}: two photos have the name {twice[0]}. Rename one.")
    table = pd.DataFrame({"image_id": names, "dx": labels})
    notes = ["classes: the names of the folders"]
    if subsets is not None:
        table["split"] = subsets
        notes.append("subsets: the names of the folders")
    return Content(table, dict(zip(names, photos, strict=True)), str(folder), {}, notes)


def _folder_names(photos: Sequence[PhotoFile]) -> tuple[list[str] | None, list[str] | None]:
    """Read the subset and the class of each photo from its folders; None where they name none."""
    folders = [photo.folders for photo in photos]
    while all(len(names) > 1 for names in folders) and len({names[0] for names in folders}) == 1:
        folders = [names[1:] for names in folders]
    if not all(folders):
        return None, None
    subsets = None
    if all(names[0].casefold() in SUBSET_NAMES and len(names) > 1 for names in folders):
        subsets = [SUBSET_NAMES[names[0].casefold()] for names in folders]
        folders = [names[1:] for names in folders]
    labels = [names[0] for names in folders]
    return subsets, labels if len(set(labels)) > 1 else None


def as_metadata(content: Content, dataset: Description) -> pd.DataFrame:
    """Turn a folder's table into metadata: classes instead of labels, every photo in a group.

    Photos without a class, or with one that the dataset leaves out, are left out and counted.

    Raises:
        LesionsError: a label is not a class of the dataset, or as `check_metadata`.
    """
    table, place = content.table, content.place
    counts = table["dx"].value_counts()
    class_of = {label: dataset.class_of(label) for label in counts.index}
    left_out = {normalise(label) for label in ("", *dataset.left_out)}
    out = [label for label in class_of if class_of[label] is None and normalise(label) in left_out]
    if unknown := [label for label in class_of if class_of[label] is None and label not in out]:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        names = ", ".join(f"{label!r} ({counts[label]} photos)" for label in unknown[:5])
        raise LesionsError(
            f"{place}: the classes {names}{more} are unknown; {dataset.title} has "
            f"{', '.join(dataset.classes[:12])}. Name the dataset of these photos with `-S "
            "dataset=datasets/NAME.yaml` (`lesions new FOLDER` writes it), or list them in its "
            "`classes` or `left_out`."
        )
    for label in out:
        print(f"{place}: left out {counts[label]} photos whose class is {label or 'empty'}")
    table = table[~table["dx"].isin(out)].assign(dx=lambda rows: rows["dx"].map(class_of))

    # The group of each photo: where no id is known, the photo itself.
    if "lesion_id" not in table:
        table["lesion_id"] = table["image_id"]
        if "patient_id" not in table:
            print(f"{place}: names no lesions or patients: each photo counts as one of its own")
    for column, finer in (("lesion_id", "image_id"), ("patient_id", "lesion_id")):
        if column in table and (empty := table[column] == "").any():
            table[column] = table[column].mask(empty, table[finer])
            print(f"{place}: {empty.sum()} photos have no {column}: each counts as one of its own")
    return check_metadata(table, place, dataset.classes)
