"""The split into train, validation and test: whole lesions, stratified by diagnosis, seeded."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import CODES

SUBSETS = ("train", "val", "test")


def split(
    table: pd.DataFrame, val_share: float, test_share: float, holdout: str, seed: int
) -> dict[str, pd.DataFrame]:
    """Divide the photos so that no lesion is in two subsets, unless `any-photo` is asked for.

    Validation and test are stratified samples of the lesions that may be held out: each diagnosis
    has the same share in them as among those lesions. Everything else is for training.

    `any-photo` draws photos instead, a common mistake: lesions with several photos are then in two
    subsets, and a network that has memorised a lesion is rewarded for it. It is for measuring what
    the mistake is worth; `find_leak` tells its results from honest ones.

    Args:
        table: metadata, one row per photo; photos of one lesion have one lesion_id.
        val_share, test_share: shares of all photos, rounded down to whole photos.
        holdout: which lesions may be held out: `once-photographed` (exactly one photo) or
            `any-lesion`; a lesion whose photos have different diagnoses is never held out. Or
            `any-photo`.
        seed: of the draw. The order of rows in `table` does not matter.

    Returns:
        The rows of "train", "val" and "test", each sorted by image_id.

    Raises:
        LesionsError: a diagnosis has too few lesions for all three subsets, or too few photos may
            be held out for the shares.

    >>> photos = [(f"lesion {n}", f"photo {n}", code) for n, code in enumerate(CODES * 10)]
    >>> table = pd.DataFrame(photos, columns=["lesion_id", "image_id", "dx"])
    >>> subsets = split(table, 0.1, 0.1, "once-photographed", seed=0)
    >>> {name: len(rows) for name, rows in subsets.items()}
    {'train': 56, 'val': 7, 'test': 7}
    """
    # One row per lesion, or per photo for the common mistake.
    table = table.sort_values("image_id", ignore_index=True)
    unit = "image_id" if holdout == "any-photo" else "lesion_id"
    lesions = (
        table.groupby(unit)
        .agg(photos=("image_id", "size"), dx=("dx", "first"), diagnoses=("dx", "nunique"))
        .sort_index()
    )
    # The lesions that validation and test may use, in random order.
    candidates = lesions[lesions["diagnoses"] == 1]
    if holdout == "once-photographed":
        candidates = candidates[candidates["photos"] == 1]
    remaining = _shuffle(candidates, seed)

    # Take the test set from them, then the validation set from what remains.
    subset_of = pd.Series("train", index=lesions.index)
    quotas = {}
    for subset, share in (("test", test_share), ("val", val_share)):
        total = int(share * len(table) + 1e-9)  # 0.1 × 30 can be 2.9999 in floating point
        quotas[subset] = _stratify(remaining.groupby("dx")["photos"].sum(), total)
        for code, quota in quotas[subset].items():
            taken = _take_lesions(remaining[remaining["dx"] == code]["photos"], quota)
            subset_of[taken] = subset
            remaining = remaining.drop(taken)

    subsets = {name: table[table[unit].map(subset_of) == name] for name in SUBSETS}
    _check(subsets, quotas, candidates, holdout)
    return {name: rows.reset_index(drop=True) for name, rows in subsets.items()}


def _shuffle(candidates: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Shuffle the lesions of each diagnosis with a separate random generator.

    So the order within one diagnosis does not depend on how many lesions the others have.
    """
    parts = []
    for number, code in enumerate(CODES):
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


def _take_lesions(photos: "pd.Series[int]", quota: int) -> list[str]:
    """Take whole lesions in order; skip one whose photos do not fit into the rest of the quota."""
    taken = []
    for lesion, count in photos.items():
        if count <= quota:
            taken.append(str(lesion))
            quota -= count
    return taken


def _check(
    subsets: dict[str, pd.DataFrame],
    quotas: dict[str, dict[str, int]],
    candidates: pd.DataFrame,
    holdout: str,
) -> None:
    """Refuse a split that lacks a diagnosis in a subset, or has far too few photos in one."""
    once = holdout == "once-photographed"
    remedy = "Set holdout: any-lesion" if once else "Add lesions of it"
    present = {name: set(rows["dx"]) for name, rows in subsets.items()}
    for code in sorted(set.union(*present.values())):
        for name in SUBSETS:
            if code not in present[name]:
                raise LesionsError(
                    f"split: no photo of {code} is left for {name}. "
                    f"{(candidates['dx'] == code).sum()} lesions of {code} may be held out "
                    f"(holdout: {holdout}), and each of train, val and test needs one. {remedy}, "
                    "or change val_share and test_share."
                )
    # Because lesions stay whole, a class can miss its quota by less than its largest lesion.
    tolerance = sum(candidates.groupby("dx")["photos"].max() - 1)
    for name, quota in quotas.items():
        if len(subsets[name]) < sum(quota.values()) - tolerance:
            raise LesionsError(
                f"split: {name} has {len(subsets[name])} photos instead of {sum(quota.values())}: "
                f"only {candidates['photos'].sum()} may be held out (holdout: {holdout}). Lower "
                f"val_share and test_share{', or set holdout: any-lesion' if once else ''}."
            )


class Leak(NamedTuple):
    """How many held-out photos show a lesion that training photos show too."""

    leaking: int
    photos: int
    subset: str  # "validation" or "test"

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return self.leaking > 0

    @property
    def metric(self) -> dict[str, float]:
        """What marks the key metrics; nothing if no photo leaks."""
        return {"leaking_photos": self.leaking} if self else {}

    @property
    def warning(self) -> str:
        """One sentence for people; empty if no photo leaks."""
        if not self:
            return ""
        return (
            f"LEAKING (holdout: any-photo): {self.leaking:,} of {self.photos:,} {self.subset} "
            "photos show lesions that training photos show too. All metrics on them are too good."
        )


def find_leak(train: pd.DataFrame, held_out: pd.DataFrame, subset: str) -> Leak:
    """Count the held-out photos whose lesion is in training; none for the honest rules.

    >>> train, test = pd.DataFrame({"lesion_id": ["a", "b"]}), pd.DataFrame({"lesion_id": ["b"]})
    >>> find_leak(train, test, "test").leaking
    1
    """
    leaking = int(held_out["lesion_id"].isin(train["lesion_id"]).sum())
    return Leak(leaking, len(held_out), subset)


def summary(subsets: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count photos by diagnosis (rows) and subset (columns)."""
    counts = {name: rows["dx"].value_counts() for name, rows in subsets.items()}
    return pd.DataFrame(counts).reindex(CODES).fillna(0).astype(int)


def lesion_weights(lesions: "pd.Series[str]") -> npt.NDArray[np.float64]:
    """Weigh photos so that those of each lesion sum to 1.

    >>> lesion_weights(pd.Series(["a", "a", "b"])).tolist()
    [0.5, 0.5, 1.0]
    """
    return np.asarray(1 / lesions.groupby(lesions).transform("size"), dtype=np.float64)
