"""The audit: what in the metadata or the photos deserves a look before training."""

import hashlib
from collections.abc import Mapping

import pandas as pd

from lesions.dataset.photos import PhotoArray

COLUMNS = ("finding", "lesion_id", "image_id", "detail")
USUAL_PHOTOS = 6  # the most photos of one lesion in HAM10000
FEW_LESIONS = 10  # fewer of a diagnosis give no metric with an interval
AGE_RANGE = 10  # years between photos of one lesion; HAM10000 rounds ages to 5


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
    identical: list[tuple[str, str]],
    subsets: Mapping[str, pd.DataFrame],
    shares: Mapping[str, float],
) -> pd.DataFrame:
    """List what deserves a look.

    Args:
        table: the metadata.
        identical: from `identical_photos`.
        subsets: from `split`.
        shares: of all photos, that each subset was to have.

    Returns:
        One row per finding: the columns in COLUMNS; empty text where one does not apply.
    """
    found: list[tuple[str, str, str, str]] = []
    lesion_of = table.set_index("image_id")["lesion_id"]
    for first, second in identical:
        other = "the same lesion" if lesion_of[first] == lesion_of[second] else lesion_of[second]
        detail = f"same pixels as {second} of {other}"
        found.append(("identical photos", lesion_of[first], first, detail))

    # Lesions that contradict themselves.
    for lesion, rows in table.groupby("lesion_id", sort=True):
        for column in ("dx", "sex"):
            values = sorted(set(rows[column]) - {"", "unknown"})
            if len(values) > 1:
                found.append((f"lesion with several {column}", str(lesion), "", ", ".join(values)))
        age = pd.to_numeric(rows["age"], errors="coerce")
        if age.max() - age.min() > AGE_RANGE:
            found.append(("lesion with several ages", str(lesion), "", f"{age.min()}–{age.max()}"))
        if len(rows) > USUAL_PHOTOS:
            found.append(("lesion with many photos", str(lesion), "", str(len(rows))))

    # Lesions in several subsets, which only `holdout: any-photo` allows.
    subsets_of: dict[str, list[str]] = {}
    for name, rows in subsets.items():
        for lesion in rows["lesion_id"].unique():
            subsets_of.setdefault(str(lesion), []).append(name)
    for lesion, names in sorted(subsets_of.items()):
        if len(names) > 1:
            found.append(("lesion in several subsets", lesion, "", ", ".join(names)))

    # Diagnoses and subsets of unusual size.
    for code, count in table.groupby("dx")["lesion_id"].nunique().items():
        if count < FEW_LESIONS:
            found.append(("diagnosis with few lesions", "", "", f"{code}: {count}"))
    for name, share in shares.items():
        wanted, got = share * len(table), len(subsets[name])
        if abs(got - wanted) > max(1, 0.05 * wanted):
            found.append(("subset of another size", "", "", f"{name}: {got}, not {wanted:.0f}"))
    return pd.DataFrame(found, columns=list(COLUMNS))


def summary(findings: pd.DataFrame) -> str:
    """Count the findings in one line."""
    counts = findings["finding"].value_counts(sort=False)
    return ", ".join(f"{count} × {finding}" for finding, count in counts.items()) or "no findings"
