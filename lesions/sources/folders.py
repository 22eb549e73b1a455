"""Users' folders: photos, tables and folder names in any of the usual layouts, as one table.

A folder is read in this order:

1. all tables that name photos, joined: one row per photo, with the class in a column, or in one
   column of 0 and 1 per class (ISIC's *GroundTruth.csv, with or without its *Metadata.csv). A table
   named as HAM10000's (METADATA_NAMES) goes before others that have classes too;
2. folders `train`, `val`, `test`, each with a folder per class;
3. a folder per class.

Where a table has no class or subset, those of the photos' folders are taken. Zip files are read
without unpacking; hidden files and folders are ignored.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.names import shorten
from lesions.dataset.description import Description, Role, normalise
from lesions.dataset.metadata import (
    INVISIBLE,
    check_metadata,
    clean_table,
    read_header,
    read_table,
    refuse_short_rows,
)
from lesions.dataset.photos import ENDINGS
from lesions.dataset.splits import SUBSET_NAMES
from lesions.sources.catalogue import WITHOUT_PHOTO
from lesions.sources.files import PhotoFile, ending_of, is_heatmap, photos_in_folder, walk

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
        *("file", "path", "photo", "img_id", "bcn_filename"),
    ),
    "label": (
        *("dx", "label", "class", "benign_malignant", "diagnosis", "diagnosis_1", "diagnosis_2"),
        *("diagnosis_3", "diagnosis_4", "diagnosis_5", "target", "binary_label", "diagnostic"),
    ),
    "patient": ("patient_id", "patient"),
    "lesion": ("lesion_id", "lesion"),
    "split": ("split", "subset"),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "site": (
        "localization",
        "anatom_site_general",
        "anatom_site_general_challenge",
        "site",
        "region",
    ),
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
    found = list(photos_in_folder(folder))
    photos = [photo for photo in found if not is_heatmap(Path(photo.place))]
    if not photos:
        endings = Counter(path.suffix.lower() or "no ending" for path in walk(folder))
        other = [f"{count} of {ending}" for ending, count in endings.most_common(4)]
        raise LesionsError(
            f"{folder}: has no photos (files ending in {', '.join(ENDINGS)}); it has "
            f"{', '.join(other) or 'no files'}. {LAYOUTS}"
        )
    tables = find_tables(folder, columns)
    content = (
        combine(str(folder), photos, tables, columns) if tables else _by_folders(folder, photos)
    )
    if maps := len(found) - len(photos):
        content.notes.append(f"left out {maps} heat maps that `lesions predict` has written")
    # A table that is not recognised must not be missed in silence.
    unused = [path for path in walk(folder) if path.suffix.lower() in TABLES and path not in tables]
    for path in unused[:5]:
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
    if not any("dx" in one.table for one in parsed):
        # Two columns, as `male` and `female`, do not outweigh folders that name classes.
        least = 2 if _folder_names(photos)[1] is None else 3
        parsed = [_with_one_hot(one, least) for one in parsed]
    first, *others = _stack(origin, parsed)
    taken = {role: name for one in parsed[::-1] for role, name in one.columns.items()}
    notes = [note for one in parsed for note in one.notes]
    notes += [
        f"no table has the column {name}, which the dataset's file names as {role}"
        for role, name in columns.items()
        if role not in taken
    ]
    table = first.table
    for other in others:
        table = _join(table, other, first.path, notes)

    # Find the file of each photo; take from its folders what no table says.
    paths = table["image_id"]
    table["image_id"] = _stems(paths) if _are_unique(paths) else paths.map(_without_ending)
    files, used = _find_files(photos, paths, table["image_id"])
    if WITHOUT_PHOTO in set(table["image_id"]) - set(files):
        notes.append(f"left out {WITHOUT_PHOTO}, which the table lists without a photo")
        table = table[table["image_id"] != WITHOUT_PHOTO]
    _refuse_missing(origin, table["image_id"], files)
    if unnamed := sorted({photo.place for photo in photos} - used):
        notes.append(
            f"left out {len(unnamed)} photos that {first.path.name} does not name, "
            f"{unnamed[0]} the first"
        )
    named = [files[image_id] for image_id in table["image_id"]]
    subsets, labels = _folder_names(named)
    if "dx" not in table:
        _refuse_mixed(named)
        if labels is None:
            names = ", ".join(COLUMN_NAMES["label"][:5])
            raise LesionsError(
                f"{first.path}: no column names the class of a photo ({names}, ...), and the "
                "photos are not in a folder per class. Name the column: `columns: {label: ...}` in "
                f"the dataset's file.{_why_no_one_hot(first)}"
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
    names = read_header(path)
    if "image" in _recognise(names, {}):
        return "as another table names the classes of photos already"
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
    others = [
        path
        for path in walk(folder)
        if path.suffix.lower() in (".csv", ".tab") and path not in known
    ]
    roles = {path: _recognise(read_header(path), columns) for path in (*known[:1], *others)}
    tables = [path for path in roles if "image" in roles[path]]
    # HAM10000's folder also has the table of a challenge's test set, which names other photos.
    if known and "label" in roles[known[0]]:
        tables = [path for path in tables if path == known[0] or "label" not in roles[path]]
    return tables


def _recognise(names: Sequence[str], columns: Mapping[Role, str]) -> dict[Role, str]:
    """Find the column of each role: as `columns` says, or by its usual names."""
    found = {role: name for role, name in columns.items() if name in names}
    usual = {_usual(name): name for name in reversed(names) if name not in found.values()}
    for role, candidates in COLUMN_NAMES.items():
        # Tables of one folder may name the photos differently.
        is_open = role not in columns or (role == "image" and role not in found)
        if is_open and (known := [usual[name] for name in candidates if name in usual]):
            found[role] = known[0]
    return found


class _Parsed(NamedTuple):
    path: Path
    table: pd.DataFrame  # its columns are named as OWN_NAMES says
    rest: pd.DataFrame  # all other columns
    columns: dict[Role, str]
    notes: list[str]


def _read(path: Path, columns: Mapping[Role, str]) -> _Parsed:
    """Read one table."""
    raw = clean_table(path, read_table(path))
    refuse_short_rows(path)
    if raw.empty:
        raise LesionsError(f"{path}: has no rows. One row per photo is expected.")
    found = _recognise(list(raw.columns), columns)
    notes: list[str] = []
    others = [name for name in raw.columns if name not in found.values()]
    kept = {name: OWN_NAMES[role] for role, name in found.items()}
    table = raw[[name for name in raw.columns if name in kept]].rename(columns=kept)
    if "label" in found and (alternatives := [name for name in others if _is_label(name)]):
        counts = [f"{name} ({raw[name].replace('', pd.NA).nunique()})" for name in alternatives]
        notes.append(
            f"classes: the {table['dx'].replace('', pd.NA).nunique()} values of the column "
            f"{found['label']}; others are {', '.join(counts)}, which "
            f"`columns: {{label: {alternatives[0]}}}` would take"
        )
    if unused := [name for name in others if not _is_label(name)]:
        shown = ", ".join(unused[:8]) + (", ..." if len(unused) > 8 else "")
        notes.append(f"not used: the columns {shown} of {path.name}")
    return _Parsed(path, table, raw[others], found, notes)


def _usual(name: str) -> str:
    """Write the name of a column as COLUMN_NAMES does."""
    return name.casefold().replace(" ", "_").replace("-", "_")


def _is_label(name: str) -> bool:
    return _usual(name) in COLUMN_NAMES["label"]


def _binary(values: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are 0 and 1 (or false and true) in every row, as numbers.

    ISIC 2019's score_weight and validation_weight, which are too, are no classes.
    """
    classes = [name for name in values if not str(name).casefold().endswith("weight")]
    numbers = values[classes].apply(
        lambda column: pd.to_numeric(
            column.str.casefold().replace({"true": "1", "false": "0"}), errors="coerce"
        )
    )
    binary: pd.DataFrame = numbers.loc[:, numbers.isin([0, 1]).all()]
    return binary


def _with_one_hot(parsed: _Parsed, least: int) -> _Parsed:
    """Take the class from columns of 0 and 1, if at least `least` have one 1 in every row."""
    numbers = _binary(parsed.rest)
    if numbers.shape[1] < least or (numbers.sum(axis=1) != 1).any():
        return parsed
    unused = [str(name) for name in parsed.rest if name not in numbers]
    notes = [f"classes: the columns of 0 and 1 in {parsed.path.name}"]
    if unused:
        notes.append(f"not used: the columns {', '.join(unused)} of {parsed.path.name}")
    table = parsed.table.assign(dx=numbers.idxmax(axis=1))
    return parsed._replace(table=table, notes=notes)


def _why_no_one_hot(parsed: _Parsed) -> str:
    """Say which row keeps columns of 0 and 1 from being classes; nothing if there are none."""
    numbers = parsed.rest.apply(pd.to_numeric, errors="coerce")
    numbers = numbers.loc[:, numbers.isin([0, 1]).mean() >= 0.5]
    wrong = (numbers.sum(axis=1) != 1) | ~numbers.isin([0, 1]).all(axis=1)
    if numbers.shape[1] < 2 or not wrong.any():
        return ""
    return (
        f" Columns of 0 and 1, one for each class, need one 1 in every row; row "
        f"{numbers.index[wrong][0] + 2} has not, in {', '.join(map(str, numbers))}."
    )


def _stack(origin: str, parsed: list[_Parsed]) -> list[_Parsed]:
    """Put the tables that have classes below each other, as train.csv and test.csv; first of all.

    Raises:
        LesionsError: it is not clear which one has the class of a photo.
    """
    with_labels = [one for one in parsed if "dx" in one.table]
    others = [one for one in parsed if "dx" not in one.table]
    if len(with_labels) < 2:
        return [*with_labels, *others]
    tables = [one.table for one in with_labels]
    if pd.concat(tables)["image_id"].duplicated().any():
        # Names may be relative to the table's folder.
        tables = [
            table.assign(image_id=f"{one.path.parent.name}/" + table["image_id"])
            for one, table in zip(with_labels, tables, strict=True)
        ]
    stacked = pd.concat(tables, ignore_index=True)
    names = ", ".join(str(one.path) for one in with_labels)
    columns = {frozenset(table) for table in tables}
    if len(columns) > 1 or stacked["image_id"].duplicated().any():
        raise LesionsError(
            f"{origin}: several tables name the classes of photos: {names}. Keep one of them."
        )
    subsets = [_subset(one.path.stem) or _subset(one.path.parent.name) for one in with_labels]
    if "split" not in stacked and all(subsets):
        stacked["split"] = [
            subset for subset, table in zip(subsets, tables, strict=True) for _ in table.index
        ]
    return [with_labels[0]._replace(table=stacked), *others]


def _join(table: pd.DataFrame, other: _Parsed, path: Path, notes: list[str]) -> pd.DataFrame:
    """Add the columns of another table to the rows of the same photos."""
    both = (table["image_id"], other.table["image_id"])
    # One table may give paths and the other names.
    keys, others = (
        map(_stems, both)
        if all(map(_are_unique, both))
        else (names.map(_without_ending) for names in both)
    )
    more = other.table.set_index(others).drop(columns="image_id")
    if more.index.duplicated().any():
        twice = more.index[more.index.duplicated()][0]
        raise LesionsError(f"{other.path}: a second row of {twice}. Keep one row per photo.")
    if unknown := int((~more.index.isin(keys)).sum()):
        notes.append(
            f"not used: {unknown} of the {len(more)} rows of {other.path.name}, whose photos "
            f"{path.name} does not name"
        )
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


def _stems(names: "pd.Series[str]") -> "pd.Series[str]":
    """Take folders and ending from the names or paths of photos."""
    return names.map(lambda name: PurePosixPath(_without_ending(name)).name)


def _are_unique(names: "pd.Series[str]") -> bool:
    """Say whether the names tell the photos apart without their folders."""
    return _stems(names).nunique() == names.map(_without_ending).nunique()


def _find_files(
    photos: Iterable[PhotoFile], paths: Iterable[str], ids: Iterable[str]
) -> tuple[dict[str, PhotoFile], set[str]]:
    """Find the photo of each path or name in a table.

    Of several photos of one name, the one counts whose folders and ending agree best with the path.
    Copies of a photo are fine, as Kaggle has them.

    Args:
        photos: of a source.
        paths: as the table has them.
        ids: of the same photos; one with folders must be the end of the photo's path.

    Returns:
        The photo of each id, where there is one; and the places of all that were considered.

    Raises:
        LesionsError: two different photos agree equally well.
    """
    of_stem: dict[str, list[PhotoFile]] = {}
    for photo in photos:
        of_stem.setdefault(photo.name, []).append(photo)
    found, used = dict[str, PhotoFile](), set[str]()
    for path, image_id in zip(paths, ids, strict=True):
        *folders, name = _without_ending(path).split("/")
        ending = ending_of(PurePosixPath(path))

        def agreement(
            photo: PhotoFile, folders: list[str] = folders, ending: str = ending
        ) -> tuple[int, bool]:
            pairs = zip(reversed(photo.folders), reversed(folders), strict=False)
            shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            return shared, photo.ending == ending

        candidates = of_stem.get(name, [])
        if "/" in image_id:
            candidates = [photo for photo in candidates if agreement(photo)[0] == len(folders)]
        if not candidates:
            continue
        best = max(map(agreement, candidates))
        candidates = [photo for photo in candidates if agreement(photo) == best]
        found[image_id] = first = candidates[0]
        used.update(photo.place for photo in candidates)
        for photo in candidates[1:]:
            if first.size != photo.size or first.read() != photo.read():
                raise LesionsError(
                    f"{first.place} and {photo.place} have one name but different content: which "
                    "one is the photo cannot be known. Move the other one away, or write its "
                    "folder into the table."
                )
    return found, used


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
    _refuse_mixed(photos)
    if labels is None:
        raise LesionsError(
            f"{folder}: has photos, but no table that names them and no folder per class. {LAYOUTS}"
        )
    names = [photo.name.strip(INVISIBLE) for photo in photos]
    if len(set(names)) < len(names):  # in every folder a 1.jpg
        names = ["/".join((*photo.folders, photo.name)).strip(INVISIBLE) for photo in photos]
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
    folders = _own_folders(photos)
    if not all(folders):
        return None, None
    subsets = [_subset(names[0]) for names in folders]
    in_subsets = all(subsets) and all(len(names) > 1 for names in folders)
    labels = [names[1 if in_subsets else 0] for names in folders]
    return subsets if in_subsets else None, labels if len(set(labels)) > 1 else None


def _own_folders(photos: Sequence[PhotoFile]) -> list[tuple[str, ...]]:
    """List the folders of each photo, without those that all are in."""
    folders = [photo.folders for photo in photos]
    while all(len(names) > 1 for names in folders) and len({names[0] for names in folders}) == 1:
        folders = [names[1:] for names in folders]
    return folders


def _subset(name: str) -> str:
    """Find the subset that a folder or table is named after; empty if none."""
    return "" if name.isdigit() else SUBSET_NAMES.get(name.casefold(), "")


def _refuse_mixed(photos: Sequence[PhotoFile]) -> None:
    """Refuse folders of which some are subsets, as `train/nv/`, and others are not."""
    folders = _own_folders(photos)
    in_subset = [len(names) > 1 and bool(_subset(names[0])) for names in folders]
    if any(in_subset) and not all(in_subset):
        inside, outside = photos[in_subset.index(True)], photos[in_subset.index(False)]
        raise LesionsError(
            f"{inside.place} is in the folder of a subset and a class, {outside.place} is not. "
            "Either every photo is, as in train/nv/ and test/nv/, or none. Move the others away."
        )


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
        names = ", ".join(f"{shorten(label)!r} ({counts[label]} photos)" for label in unknown[:5])
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
        if column == "patient_id" and column in table:
            # The photos of a lesion are of one patient, even if only one row says of which.
            known = table[table[column] != ""].groupby("lesion_id")[column].first()
            patients = table[column].mask(table[column] == "", table["lesion_id"].map(known))
            table[column] = patients.fillna("")
        if column in table and (empty := table[column] == "").any():
            table[column] = table[column].mask(empty, table[finer])
            print(f"{place}: {empty.sum()} photos have no {column}: each counts as one of its own")
    return check_metadata(table, place, dataset.classes)
