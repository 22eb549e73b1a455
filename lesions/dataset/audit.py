"""The audit: what in the metadata or the photos deserves a look before training."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lesions.dataset.metadata import group_column, groups_of
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import absent_classes

COLUMNS = ("finding", "lesion_id", "image_id", "detail")
LEFT_OUT = "left out"
USUAL_PHOTOS = 6  # of one lesion; more are rare
FEW_GROUPS = 10  # fewer of a class give no metric with an interval
AGE_RANGE = 10  # years between photos of one lesion; tables round ages to 5


def identical_photos(photos: PhotoArray, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Find photos with the same pixels under two image_ids.

    Args:
        photos: all photos, scaled.
        table: the metadata, sorted by image_id.

    Returns:
        The first photo of each group of equal ones, with each of the others.
    """
    first: dict[bytes, str] = {}
    pairs = []
    for image_id, row in zip(table["image_id"], photos.rows(table["image_id"]), strict=True):
        digest = hashlib.blake2b(photos.images[row].tobytes(), digest_size=16).digest()
        if (earlier := first.setdefault(digest, image_id)) != image_id:
            pairs.append((earlier, image_id))
    return pairs


def audit(
    table: pd.DataFrame,
    classes: Sequence[str],
    identical: list[tuple[str, str]],
    subsets: Mapping[str, pd.DataFrame],
    shares: Mapping[str, float],
    left_out: Iterable[str] = (),
) -> pd.DataFrame:
    """List what deserves a look.

    Args:
        table: the metadata.
        classes: in their order.
        identical: from `identical_photos`.
        subsets: from `split`.
        shares: of all photos, that each subset was to have; empty if the subsets were given.
        left_out: image_ids of photos that are in no subset.

    Returns:
        One row per finding: the columns in COLUMNS; empty text where one does not apply.
    """
    found: list[tuple[str, str, str, str]] = []
    groups, word = groups_of(table), group_column(table).removesuffix("_id")
    group_of = groups.set_axis(table["image_id"])
    found += [(LEFT_OUT, group_of[name], name, "named by leave_out") for name in sorted(left_out)]
    for first, second in identical:
        same = group_of[first] == group_of[second]
        detail = f"same pixels as {second} of {f'the same {word}' if same else group_of[second]}"
        found.append(("identical photos", group_of[first], first, detail))

    # Groups that contradict themselves. A patient may have several classes, and gets older.
    for group, rows in table.groupby(groups, sort=True):
        for column in ("dx", "sex") if word == "lesion" else ("sex",):
            values = sorted(set(rows.get(column, [])) - {"", "unknown"})
            if len(values) > 1:
                found.append((f"{word} with several {column}", str(group), "", ", ".join(values)))
        age = pd.to_numeric(rows.get("age", pd.Series(dtype=float)), errors="coerce")
        if word == "lesion" and age.max() - age.min() > AGE_RANGE:
            found.append(("lesion with several ages", str(group), "", f"{age.min()}–{age.max()}"))
        if word == "lesion" and len(rows) > USUAL_PHOTOS:
            found.append(("lesion with many photos", str(group), "", str(len(rows))))

    # Groups in several subsets, which only some rules for `holdout` allow.
    subsets_of: dict[str, list[str]] = {}
    for name, rows in subsets.items():
        for group in groups_of(rows).unique():
            subsets_of.setdefault(str(group), []).append(name)
    for group, names in sorted(subsets_of.items()):
        if len(names) > 1:
            found.append((f"{word} in several subsets", group, "", ", ".join(names)))

    # Classes and subsets of unusual size.
    for code, count in groups.groupby(table["dx"]).nunique().items():
        if count < FEW_GROUPS:
            found.append((f"class with few {word}s", "", "", f"{code}: {count}"))
    for name, missing in absent_classes(subsets, classes).items():
        found += [("class that a subset lacks", "", "", f"{name}: {code}") for code in missing]
    for name, share in shares.items():
        wanted, got = share * len(table), len(subsets[name])
        if abs(got - wanted) > max(1, 0.05 * wanted):
            found.append(("subset of another size", "", "", f"{name}: {got}, not {wanted:.0f}"))
    return pd.DataFrame(found, columns=list(COLUMNS))


def summary(findings: pd.DataFrame) -> str:
    """Count the findings in one line."""
    counts = findings["finding"].value_counts(sort=False)
    return ", ".join(f"{count} × {finding}" for finding, count in counts.items()) or "no findings"
