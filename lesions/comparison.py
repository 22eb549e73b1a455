"""Comparison: what the same test photos say of one model beside another."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from lesions.answers import Answers
from lesions.errors import LesionsError
from lesions.intervals import Floats, percentile
from lesions.networks import ARCHITECTURES
from lesions.scoring import MELANOMA, SMALLEST, once, words

FIGURES = ("weighted_f1", "balanced_accuracy", "accuracy", "melanoma_sensitivity")


def differences(answers: dict[str, Answers], samples: dict[str, dict[str, Floats]]) -> pd.DataFrame:
    """Compare every two models on the same photos.

    Args:
        answers: of each model, all to the same photos in the same order.
        samples: of each model, `scoring.resampled`: the same resamples, so that the intervals are
            those of paired differences.

    Returns:
        A row a figure and pair: first, second, figure, difference (first - second), low, high,
        told, and, of accuracy, only_first, only_second and p from `mcnemar`. Told is whether 0 lies
        outside the interval that allows for the number of figures compared (Bonferroni: 98.75 %
        for each of four). Low and high are NaN where the two differ on fewer than 10 of the lesions
        that count: resamples of a handful agree with each other, whatever is true.
    """
    rows = []
    for first, second in combinations(answers, 2):
        one, other = answers[first], answers[second]
        if list(one.photos["image_id"]) != list(other.photos["image_id"]):
            raise LesionsError(f"{first} and {second} answered different photos: no comparison.")
        ours, theirs = once(one), once(other)
        melanomas = one.labels == MELANOMA
        for name in FIGURES:
            part = melanomas if name == "melanoma_sensitivity" else np.ones_like(melanomas)
            drawn = samples[first][name] - samples[second][name]
            low, high = percentile(drawn)
            least, most = percentile(drawn, 1 - 0.05 / len(FIGURES))
            if sum(votes(one, other, part)) < SMALLEST:
                low = high = least = most = np.nan
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "figure": name,
                    "difference": ours[name] - theirs[name],
                    "low": low,
                    "high": high,
                    "told": least > 0 or most < 0,
                    **(mcnemar(one, other) if name == "accuracy" else {}),
                }
            )
    columns = ["first", "second", "figure", "difference", "low", "high", "told"]
    return pd.DataFrame(rows, columns=[*columns, "only_first", "only_second", "p"])


def votes(one: Answers, other: Answers, part: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Count the lesions of some photos, (n,) bool, of which one model gets more right."""
    ahead = (one.said == one.labels).astype(int) - (other.said == other.labels).astype(int)
    by_lesion = pd.Series(ahead[part]).groupby(one.photos["lesion_id"].to_numpy()[part]).sum()
    return int((by_lesion > 0).sum()), int((by_lesion < 0).sum())


def mcnemar(one: Answers, other: Answers) -> dict[str, float]:
    """Test whether the lesions that one model alone gets right are as many on either side.

    McNemar's test, exact (1947, doi 10.1007/BF02295996), with a vote a lesion: photos of one
    lesion are no independent witnesses.
    """
    only_first, only_second = votes(one, other, np.ones(len(one.labels), dtype=bool))
    disagreed = only_first + only_second
    p = float(binomtest(only_first, disagreed).pvalue) if disagreed else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def conclude(table: pd.DataFrame, photos: int) -> list[str]:
    """Say in a sentence a pair what the differences allow to conclude.

    Args:
        table: from `differences`.
        photos: how many were answered.
    """
    sentences = []
    for (first, second), pair in table.groupby(["first", "second"], sort=False):
        one, other = ARCHITECTURES[str(first)].title, ARCHITECTURES[str(second)].title
        known, unknown = pair[pair["low"].notna()], pair[pair["low"].isna()]
        parts = []
        for better, sign in ((one, 1), (other, -1)):
            won = known[known["told"] & (sign * known["difference"] > 0)]
            each = [
                f"{words(name)} (by {by:.3f}, 95 % interval {near:.3f} to {far:.3f})"
                for name, by, near, far in zip(
                    won["figure"],
                    won["difference"].abs(),
                    won[["low", "high"]].abs().min(axis=1),
                    won[["low", "high"]].abs().max(axis=1),
                    strict=True,
                )
            ]
            if each:
                parts.append(f"{better} has the higher {_and(each)}")
        open_ = [words(name) for name in known["figure"][~known["told"]]]
        if open_:
            do = "does" if len(open_) == 1 else "do"
            parts.append(f"{_and(open_)} {do} not tell {one} and {other} apart")
        if len(unknown):
            few = _and([words(name) for name in unknown["figure"]])
            parts.append(f"{one} and {other} differ on too few lesions to compare {few}")
        sentences.append(f"On these {photos:,} test photos, {'; '.join(parts)}.")
    return sentences


def _and(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
