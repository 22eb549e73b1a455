"""The split into train, validation and test: whole lesions, stratified by diagnosis, seeded."""

import numpy as np
import pandas as pd

from lesions.diagnoses import CODES
from lesions.errors import LesionsError
from lesions.metadata import join_duplicate_lesions

SIDES = ("train", "val", "test")


def split(
    table: pd.DataFrame, val_share: float, test_share: float, holdout: str, seed: int
) -> dict[str, pd.DataFrame]:
    """Divide photos so that no lesion is on two sides.

    Validation and test are stratified samples of the lesions that may be held out: the share of
    each diagnosis in them is its share among those. Everything else trains.

    Args:
        table: metadata, a row a photo.
        val_share, test_share: shares of all photos, rounded down to whole photos.
        holdout: `once-photographed`, lesions with exactly one photo may be held out, or
            `any-lesion`. A lesion whose photos disagree on the diagnosis never may.
        seed: of the draw. The order of rows in `table` does not matter.

    Returns:
        The rows of "train", "val" and "test", each sorted by image_id, their lesion_id joined
        for the published duplicate pairs.

    Raises:
        LesionsError: a diagnosis has too few lesions to be on all three sides, or too few
            photos may be held out for the shares asked for.
    """
    table = join_duplicate_lesions(table).sort_values("image_id", ignore_index=True)
    lesions = (
        table.groupby("lesion_id")
        .agg(photos=("image_id", "size"), dx=("dx", "first"), diagnoses=("dx", "nunique"))
        .sort_index()
    )
    pool = lesions[lesions["diagnoses"] == 1]
    if holdout == "once-photographed":
        pool = pool[pool["photos"] == 1]
    side_of = pd.Series("train", index=lesions.index)
    left = _shuffled(pool, seed)
    wanted = {}
    for side, share in (("test", test_share), ("val", val_share)):
        # Of what is left: so the two are alike, and never ask for more than there is.
        wanted[side] = _quotas(left.groupby("dx")["photos"].sum(), int(share * len(table) + 1e-9))
        for code, quota in wanted[side].items():
            taken = _fill(left[left["dx"] == code]["photos"], quota)
            side_of[taken] = side
            left = left.drop(taken)
    sides = {side: table[table["lesion_id"].map(side_of) == side] for side in SIDES}
    _check(sides, wanted, pool, holdout)
    return {side: rows.reset_index(drop=True) for side, rows in sides.items()}


def _shuffled(pool: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Put the lesions of each diagnosis in an order that the other diagnoses have no part in."""
    parts = []
    for number, code in enumerate(CODES):
        of_class = pool[pool["dx"] == code]
        parts.append(
            of_class.iloc[np.random.default_rng([seed, number]).permutation(len(of_class))]
        )
    return pd.concat(parts)


def _quotas(photos: "pd.Series[int]", total: int) -> dict[str, int]:
    """Divide `total` among classes in proportion (largest remainders), at least one each."""
    exact = {str(code): count * total / photos.sum() for code, count in photos.items()}
    quotas = {code: max(1, int(share)) for code, share in exact.items()}
    for code in sorted(exact, key=lambda code: quotas[code] - exact[code]):
        if sum(quotas.values()) < total:
            quotas[code] += 1
    while sum(quotas.values()) > total and max(quotas.values()) > 1:  # some were lifted to one
        quotas[max(quotas, key=lambda code: quotas[code])] -= 1
    return quotas


def _fill(photos: "pd.Series[int]", quota: int) -> list[str]:
    """Take lesions in order, whole, as long as they fit into `quota` photos."""
    taken = []
    for lesion, count in photos.items():
        if count <= quota:
            taken.append(str(lesion))
            quota -= count
    return taken


def _check(
    sides: dict[str, pd.DataFrame],
    wanted: dict[str, dict[str, int]],
    pool: pd.DataFrame,
    holdout: str,
) -> None:
    """Refuse a split in which a diagnosis is missing on a side, or a side is far too small."""
    remedy = "Add lesions of it" if holdout == "any-lesion" else "Set holdout: any-lesion"
    present = {side: set(rows["dx"]) for side, rows in sides.items()}
    for code in sorted(set.union(*present.values())):
        for side in SIDES:
            if code not in present[side]:
                raise LesionsError(
                    f"split: no photo of {code} left for {side}. {(pool['dx'] == code).sum()} "
                    f"lesions of {code} may be held out (holdout: {holdout}) and each of train, "
                    f"val and test needs one. {remedy}, or change val_share and test_share."
                )
    for side, quotas in wanted.items():
        # Whole lesions may leave a class short by less than its largest one.
        slack = sum(pool.groupby("dx")["photos"].max() - 1)
        if len(sides[side]) < sum(quotas.values()) - slack:
            raise LesionsError(
                f"split: {side} got {len(sides[side])} photos of the {sum(quotas.values())} asked "
                f"for: only {pool['photos'].sum()} may be held out (holdout: {holdout}). Lower "
                "val_share and test_share, or set holdout: any-lesion."
            )


def summary(sides: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count photos by diagnosis (rows) and side (columns)."""
    counts = {side: rows["dx"].value_counts() for side, rows in sides.items()}
    return pd.DataFrame(counts).reindex(CODES).fillna(0).astype(int)
