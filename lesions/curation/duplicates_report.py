"""What `lesions duplicates` writes: the table of pairs, its summary, and a page to look at."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from lesions.common.names import for_spreadsheet
from lesions.curation.duplicates import Pair
from lesions.dataset.metadata import PAIR_COLUMNS
from lesions.dataset.photos import decode_in_proportion, read_file
from lesions.reporting.render import environment, image_uri

COLUMNS = (*PAIR_COLUMNS, "points")
PIXELS = 320  # of the photos on the page: the longer side


def name_photos(paths: Sequence[Path], metadata: pd.DataFrame | None) -> pd.DataFrame:
    """Name the photos that are compared.

    Args:
        paths: of the photos.
        metadata: from `as_metadata`, if there is a table.

    Returns:
        One row per photo: path, image_id (the file's name without ending, or the whole path if
        two files have that name), lesion_id and dx (empty where the table lacks the photo or there
        is none).
    """
    stems = pd.Series([path.stem for path in paths], dtype=str)
    ids = [
        for_spreadsheet(path if repeated else path.stem)
        for path, repeated in zip(paths, stems.duplicated(keep=False), strict=True)
    ]
    photos = pd.DataFrame({"path": paths, "image_id": ids})
    if metadata is None:
        return photos.assign(lesion_id="", dx="")
    table = metadata.set_index("image_id")[["lesion_id", "dx"]]
    return photos.join(table, on="image_id").fillna("")


def drop_copies(paths: Sequence[Path]) -> list[Path]:
    """Keep the first of all files with one name and one content: Kaggle has each photo twice."""
    kept: dict[str, list[Path]] = {}
    for path in paths:
        same_name = kept.setdefault(path.stem, [])
        if not any(filecmp.cmp(path, other, shallow=False) for other in same_name):
            same_name.append(path)
    chosen = {path for same_name in kept.values() for path in same_name}
    return [path for path in paths if path in chosen]


def as_table(
    pairs: Sequence[Pair], photos: pd.DataFrame, least: int, known: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """List the pairs of different lesions.

    Args:
        pairs: the most certain first.
        photos: from `name_photos`.
        least: so many points must agree.
        known: pairs of image_ids that are listed already.

    Returns:
        One row per pair: COLUMNS, known (whether it is listed already), first and second
        (the photos' rows).
    """
    listed = {frozenset(pair) for pair in known}
    ids = photos["image_id"]
    rows = [
        {
            "image_id": ids[pair.first],
            "same_lesion_as": ids[pair.second],
            "points": pair.points,
            "known": frozenset((ids[pair.first], ids[pair.second])) in listed,
            "first": pair.first,
            "second": pair.second,
        }
        for pair in pairs
        if pair.points >= least and not _one_lesion(pair, photos)
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "known", "first", "second"])


def with_known(
    table: pd.DataFrame, known: Sequence[tuple[str, str]], photos: pd.DataFrame
) -> pd.DataFrame:
    """Add the listed pairs that were not found again, so that the file replaces the list.

    Returns:
        COLUMNS; pairs that were not found have no points.
    """
    found = {
        frozenset(pair) for pair in zip(table["image_id"], table["same_lesion_as"], strict=True)
    }
    ids = set(photos["image_id"])
    missed = [pair for pair in known if ids.issuperset(pair) and frozenset(pair) not in found]
    return pd.concat(
        [table[list(COLUMNS)], pd.DataFrame(missed, columns=list(PAIR_COLUMNS))], ignore_index=True
    ).astype({"points": "Int64"})


def _one_lesion(pair: Pair, photos: pd.DataFrame) -> bool:
    first, second = photos["lesion_id"][pair.first], photos["lesion_id"][pair.second]
    return bool(first != "" and first == second)


def summary(pairs: Sequence[Pair], photos: pd.DataFrame, least: int) -> str:
    """Count the pairs of different lesions, and the known pairs of one lesion that were found."""
    found = [pair for pair in pairs if pair.points >= least]
    within = sum(_one_lesion(pair, photos) for pair in found)
    across = len(found) - within
    sizes = photos.loc[photos["lesion_id"] != "", "lesion_id"].value_counts()
    text = (
        f"{len(photos):,} photos: {across:,} pairs {'of different lesions ' * bool(len(sizes))}"
        f"agree in {least} points or more ({across / len(photos) * 1000:.1f} per 1,000 photos)"
    )
    if known := int((sizes * (sizes - 1) // 2).sum()):
        text += f"; so do {within:,} of the {known:,} pairs of one lesion ({within / known:.0%})"
    return text


def build_sheet(table: pd.DataFrame, photos: pd.DataFrame, csv: Path | None) -> str:
    """Fill duplicates.html: the two photos of each pair next to each other.

    Args:
        table: from `as_table`.
        photos: from `name_photos`.
        csv: the file of the same pairs, if it is written.
    """

    def photo(index: int) -> str:
        path = photos["path"][index]
        pixels = decode_in_proportion(read_file(path), PIXELS, str(path))
        return image_uri(Image.fromarray(pixels), "JPEG", quality=85)

    cases = [
        {
            "points": row["points"],
            "known": row["known"],
            "photos": [
                {**photos.loc[index], "image": photo(index)}
                for index in (row["first"], row["second"])
            ],
        }
        for row in table.to_dict("records")
    ]
    template = environment(Path(__file__).parent, autoescape=True).get_template("duplicates.html")
    return template.render(cases=cases, csv=csv) + "\n"
