"""The split into train, validation and test: whole groups, stratified by class, seeded."""

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.params import Holdout
from lesions.dataset.metadata import group_column, group_word, groups_of

SUBSETS = ("train", "val", "test")
# What a table or folders may call them.
SUBSET_NAMES = {
    **dict.fromkeys(("train", "training", "0"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "1"), "val"),
    **dict.fromkeys(("test", "testing", "2"), "test"),
}


def split(
    table: pd.DataFrame,
    classes: Sequence[str],
    val_share: float,
    test_share: float,
    holdout: Holdout,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Divide the photos so that no group is in two subsets, unless that is asked for.

    A group is a patient, or else a lesion (`metadata.groups_of`). Validation and test are
    stratified samples of the groups that may be held out: each class has the same share in them as
    among those groups. A group with several classes counts as its rarest. Everything else is for
    training.

    `any-photo` draws photos instead, a common mistake: groups with several photos are then in two
    subsets, and a network that has memorised a lesion is rewarded for it. It is for measuring what
    the mistake is worth; `find_leak` tells its results from honest ones.

    Args:
        table: metadata, one row per photo.
        classes: in their order.
        val_share, test_share: shares of all photos, rounded down to whole photos.
        holdout: which groups may be held out: `once-photographed` (exactly one photo) or
            `any-lesion`. Or `any-photo`; or `given`, the subsets that the column `split` names.
        seed: of the draw. The order of rows in `table` does not matter.

    Returns:
        The rows of "train", "val" and "test", each sorted by image_id. A class with too few groups
        for all three is left out of validation, then of test.

    Raises:
        LesionsError: a class has no training photo, or too few photos may be held out.

    >>> photos = [(f"lesion {n}", f"photo {n}", "abc"[n % 3]) for n in range(60)]
    >>> table = pd.DataFrame(photos, columns=["lesion_id", "image_id", "dx"])
    >>> subsets = split(table, "abc", 0.1, 0.1, "once-photographed", seed=0)
    >>> {name: len(rows) for name, rows in subsets.items()}
    {'train': 48, 'val': 6, 'test': 6}
    """
    table = table.sort_values("image_id", ignore_index=True)
    if holdout == "given":
        subset_of_photo = _given(table, classes, val_share, seed)
    else:
        unit = "image_id" if holdout == "any-photo" else group_column(table)
        subset_of_unit = _draw(
            table, unit, classes, {"test": test_share, "val": val_share}, holdout, seed
        )
        subset_of_photo = table[unit].map(subset_of_unit)
    subsets = {name: table[subset_of_photo == name].reset_index(drop=True) for name in SUBSETS}
    _check(subsets)
    return subsets


def _draw(
    table: pd.DataFrame,
    unit: str,
    classes: Sequence[str],
    shares: Mapping[str, float],
    holdout: Holdout,
    seed: int,
) -> "pd.Series[str]":
    """Draw a subset for each group in the column `unit`: a series from group to subset."""
    # One row per group, with its rarest class.
    rarity = table["dx"].map(table["dx"].value_counts()).rename("rarity")
    order = table["dx"].map({code: number for number, code in enumerate(classes)}).rename("order")
    rarest_first = table.join([rarity, order]).sort_values(["rarity", "order"], kind="stable")
    by_group = rarest_first.groupby(unit)
    groups = by_group.agg(photos=("image_id", "size"), dx=("dx", "first")).sort_index()

    # The groups that validation and test may use, in random order.
    candidates = groups[groups["photos"] == 1] if holdout == "once-photographed" else groups
    remaining = _shuffle(candidates, classes, seed)
    trained = set(groups["dx"][~groups.index.isin(candidates.index)])

    # Take the test set from them, then the validation set from what remains.
    subset_of = pd.Series("train", index=groups.index)
    for subset, share in shares.items():
        total = int(share * len(table) + 1e-9)  # 0.1 × 30 can be 2.9999 in floating point
        if total == 0:
            raise LesionsError(
                f"split: {subset}_share {share:g} of {len(table)} photos is less than one photo. "
                "Raise it, or add photos."
            )
        if len(remaining) == 0:
            raise LesionsError(_too_few(subset, 0, total, candidates, holdout))
        quotas = _stratify(remaining.groupby("dx")["photos"].sum(), total)
        count = 0
        for code, quota in quotas.items():
            of_class = remaining[remaining["dx"] == code]["photos"]
            # Training needs a group of each class, before the others.
            spare = of_class if code in trained else of_class.iloc[:-1]
            taken = _take_groups(spare, quota)
            count += int(spare[taken].sum())
            subset_of[taken] = subset
            remaining = remaining.drop(taken)
        # Because groups stay whole, a class can miss its quota by less than its largest group.
        tolerance = sum(candidates.groupby("dx")["photos"].max() - 1) + len(quotas)
        if count == 0 or count < sum(quotas.values()) - tolerance:
            raise LesionsError(_too_few(subset, count, total, candidates, holdout))
    return subset_of


def _shuffle(candidates: pd.DataFrame, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """Shuffle the groups of each class with a separate random generator.

    So the order within one class does not depend on how many groups the others have.
    """
    parts = []
    for number, code in enumerate(classes):
        of_class = candidates[candidates["dx"] == code]
        order = np.random.default_rng([seed, number]).permutation(len(of_class))
        parts.append(of_class.iloc[order])
    return pd.concat(parts)


def _stratify(photos: "pd.Series[int]", total: int) -> dict[str, int]:
    """Divide `total` among classes in proportion (largest remainders), at least one each."""
    exact = {str(code): count * total / photos.sum() for code, count in photos.items()}
    quotas = {code: max(1, int(share)) for code, share in exact.items()}
    for code in sorted(exact, key=lambda code: quotas[code] - exact[code]):
        if sum(quotas.values()) < total:
            quotas[code] += 1
    # The minimum of one can have made the sum too large.
    while sum(quotas.values()) > total and max(quotas.values()) > 1:
        quotas[max(quotas, key=lambda code: quotas[code])] -= 1
    return quotas


def _take_groups(photos: "pd.Series[int]", quota: int) -> list[str]:
    """Take whole groups in order; skip one whose photos do not fit into the rest of the quota.

    If none fits, take the smallest, unless it is the last.
    """
    taken = []
    for group, count in photos.items():
        if count <= quota:
            taken.append(str(group))
            quota -= count
    return taken or ([str(photos.idxmin())] if len(photos) > 1 else [])


def _given(
    table: pd.DataFrame, classes: Sequence[str], val_share: float, seed: int
) -> "pd.Series[str]":
    """Read the subset of each photo from the column `split`; draw validation if it names none."""
    if "split" not in table:
        raise LesionsError(
            "holdout: given: the source names no subsets. It needs a column split (train, val, "
            "test) or folders of these names; or set holdout: any-lesion."
        )
    subset_of = table["split"].str.casefold().map(SUBSET_NAMES)
    if subset_of.isna().any():
        wrong = table[subset_of.isna()].iloc[0]
        raise LesionsError(
            f"holdout: given: split is {wrong['split']!r} for {wrong['image_id']} "
            f"({subset_of.isna().sum()} photos in all); allowed are {', '.join(SUBSET_NAMES)}."
        )
    if (subset_of == "val").any():
        return subset_of
    print("split: the source names no validation photos; they are drawn from its training photos")
    train = table[subset_of == "train"]
    if train.empty:
        raise LesionsError("holdout: given: the source names no training photos.")
    unit = group_column(table)
    drawn = _draw(train, unit, classes, {"val": val_share}, "any-lesion", seed)
    return subset_of.mask(subset_of == "train", table[unit].map(drawn))


def _too_few(
    subset: str, found: int, total: int, candidates: pd.DataFrame, holdout: Holdout
) -> str:
    once = holdout == "once-photographed"
    counts = candidates.groupby("dx").size()
    few = [str(code) for code, count in counts.items() if count < len(SUBSETS)]
    needed = f" 3 are needed of each class, but {', '.join(few)} have fewer." if few else ""
    return (
        f"split: {subset} has {found} photos instead of {total}: {candidates['photos'].sum()} in "
        f"{len(candidates)} groups may be held out (holdout: {holdout}).{needed} Change val_share "
        f"and test_share{', set holdout: any-lesion' if once else ''}, or add photos."
    )


def _check(subsets: Mapping[str, pd.DataFrame]) -> None:
    """Refuse an empty subset, and a class that no network could learn."""
    for name, rows in subsets.items():
        if rows.empty:
            raise LesionsError(
                f"split: no photo is left for {name}. Change val_share, test_share or leave_out."
            )
    held_out = pd.concat([subsets["val"], subsets["test"]])["dx"]
    missing = set(held_out) - set(subsets["train"]["dx"])
    if missing:
        raise LesionsError(
            f"split: no photo of {min(missing)} is left for training. Add photos of it, or take "
            "it out of the dataset's classes."
        )


def leave_out(subsets: Mapping[str, pd.DataFrame], ids: Set[str]) -> dict[str, pd.DataFrame]:
    """Take photos out of the subsets; the others stay where they are.

    Raises:
        LesionsError: a subset would be empty, or a class without training photos.
    """
    kept = {
        name: rows[~rows["image_id"].isin(ids)].reset_index(drop=True)
        for name, rows in subsets.items()
    }
    _check(kept)
    return kept


def absent_classes(
    subsets: Mapping[str, pd.DataFrame], classes: Sequence[str]
) -> dict[str, list[str]]:
    """List the classes that a subset lacks; their metrics on it cannot be computed."""
    return {
        name: missing
        for name, rows in subsets.items()
        if (missing := [code for code in classes if not (rows["dx"] == code).any()])
    }


class Leak(NamedTuple):
    """How many held-out photos are of a lesion or patient that training photos show too."""

    leaking: int
    photos: int
    subset: str  # "validation" or "test"
    word: str  # lesion or patient; photo if the source names neither

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return self.leaking > 0

    @property
    def metric(self) -> dict[str, float]:
        """What marks the key metrics; nothing if no photo leaks."""
        return {"leaking_photos": self.leaking} if self else {}

    @property
    def verdict(self) -> str:
        """One sentence for people: the warning, or what is known to be kept apart."""
        if not self and self.word == "photo":
            return (
                "The source names no lesions or patients: training photos may show the same ones, "
                "and then all metrics are too good."
            )
        return self.warning or f"No {self.word} is in both training and {self.subset}."

    @property
    def warning(self) -> str:
        """One sentence for people; empty if no photo leaks."""
        if not self:
            return ""
        return (
            f"LEAKING: {self.leaking:,} of {self.photos:,} {self.subset} photos show a "
            f"{self.word} that training photos show too. All metrics on them are too good."
        )


def find_leak(train: pd.DataFrame, held_out: pd.DataFrame, subset: str) -> Leak:
    """Count the held-out photos whose group is in training; none for the honest rules.

    >>> train, test = pd.DataFrame({"lesion_id": ["a", "b"]}), pd.DataFrame({"lesion_id": ["b"]})
    >>> find_leak(train.assign(image_id="x"), test.assign(image_id="y"), "test").leaking
    1
    """
    leaking = int(groups_of(held_out).isin(groups_of(train)).sum())
    return Leak(leaking, len(held_out), subset, group_word(pd.concat([train, held_out])))


def prove(
    table: pd.DataFrame, subsets: Mapping[str, pd.DataFrame], classes: Sequence[str], seed: int
) -> str:
    """Say in one line how many groups are in two subsets, and what a split by photo would do.

    Args:
        table: the metadata, with the groups that were kept together.
        subsets: from `split`.
        classes: in their order.
        seed: of the split by photo that is compared.
    """
    word, total = group_word(table), len(table)
    subset_count = pd.concat(
        [groups_of(rows).drop_duplicates() for rows in subsets.values()]
    ).value_counts()
    proof = f"{(subset_count > 1).sum():,} of {len(subset_count):,} {word}s are in two subsets"
    if word == "photo":
        return f"{proof}; the table names no lesions or patients, so they may be: add their ids"
    shares = {name: len(subsets[name]) / total for name in ("test", "val")}
    by_photo = _draw(table, "image_id", classes, shares, "any-photo", seed)
    subset_of = table["image_id"].map(by_photo)
    leak = find_leak(table[subset_of == "train"], table[subset_of == "test"], "test")
    return (
        f"{proof}; a split by photo would have put {leak.leaking:,} of {leak.photos:,} test photos "
        f"next to training photos of their {word}"
    )


def summary(subsets: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Count photos by class (rows) and subset (columns)."""
    counts = {name: rows["dx"].value_counts() for name, rows in subsets.items()}
    return pd.DataFrame(counts).reindex(list(classes)).fillna(0).astype(int)


def photo_weights(groups: "pd.Series[str]") -> npt.NDArray[np.float64]:
    """Weigh photos so that those of each group sum to 1.

    >>> photo_weights(pd.Series(["a", "a", "b"])).tolist()
    [0.5, 0.5, 1.0]
    """
    return np.asarray(1 / groups.groupby(groups).transform("size"), dtype=np.float64)
