"""Scoring: what a model's answers on the test photos are worth."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics

from lesions.diagnoses import CODES, ISIC_COLUMNS, Labels
from lesions.errors import LesionsError

Probabilities = npt.NDArray[np.floating]  # (n, 7), rows sum to 1, columns in class order


def check(probabilities: Probabilities, labels: Labels) -> None:
    """Refuse what cannot be scored: no photos, or probabilities that are none."""
    if len(labels) == 0:
        raise LesionsError("the test set has no photos; lower val_share or add photos.")
    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise LesionsError(
            f"probabilities of test photo {row} are {probabilities[row].tolist()}: the model is "
            "broken. Train it again with a lower lr, or precision: fp32."
        )


def headline(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """Score a model in a few figures, each between 0 and 1, rounded to 4 places.

    Balanced accuracy is the mean sensitivity of the diagnoses that occur (ISIC 2018 Task 3);
    ROC AUC is one-vs-rest, averaged over them; F1 over those that occur or are answered. The
    answer is the most probable diagnosis. `baseline_accuracy` is that of always answering the
    commonest diagnosis. A figure of a diagnosis that does not occur is left out.
    """
    answers = probabilities.argmax(axis=1)
    table = per_class(probabilities, labels).set_index("dx")
    found = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": table["sensitivity"].mean(),
        "weighted_f1": metrics.f1_score(labels, answers, average="weighted"),
        "macro_f1": metrics.f1_score(labels, answers, average="macro"),
        "roc_auc": table["roc_auc"].mean(),
        "melanoma_sensitivity": table["sensitivity"]["mel"],
        "baseline_accuracy": np.bincount(labels).max() / len(labels),
    }
    return {name: round(float(value), 4) for name, value in found.items() if np.isfinite(value)}


def per_class(probabilities: Probabilities, labels: Labels) -> pd.DataFrame:
    """Score each diagnosis against all others.

    Returns:
        A row a diagnosis, in class order: dx, support (photos), sensitivity, specificity,
        precision, f1, roc_auc, average_precision. What is undefined is NaN: sensitivity, F1 and
        curves without a photo of the diagnosis, precision without an answer of it.
    """
    check(probabilities, labels)
    answers = probabilities.argmax(axis=1)
    rows = []
    for index, code in enumerate(CODES):
        truth, said = labels == index, answers == index
        hits = int((truth & said).sum())
        rejected = int((~truth & ~said).sum())
        both = truth.any() and not truth.all()
        rows.append(
            {
                "dx": code,
                "support": int(truth.sum()),
                "sensitivity": _ratio(hits, truth.sum()),
                "specificity": _ratio(rejected, (~truth).sum()),
                "precision": _ratio(hits, said.sum()),
                "f1": _ratio(2 * hits, truth.sum() + said.sum()) if truth.any() else np.nan,
                "roc_auc": metrics.roc_auc_score(truth, probabilities[:, index])
                if both
                else np.nan,
                "average_precision": metrics.average_precision_score(truth, probabilities[:, index])
                if both
                else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def predictions(test: pd.DataFrame, probabilities: Probabilities, labels: Labels) -> pd.DataFrame:
    """Lay out the answers: image_id, lesion_id, actual, predicted, a probability a diagnosis."""
    answers = [CODES[index] for index in probabilities.argmax(axis=1)]
    table = pd.DataFrame(
        {
            "image_id": test["image_id"].to_numpy(),
            "lesion_id": test["lesion_id"].to_numpy(),
            "actual": [CODES[index] for index in labels],
            "predicted": answers,
        }
    )
    return pd.concat([table, pd.DataFrame(probabilities.round(6), columns=list(CODES))], axis=1)


def submission(table: pd.DataFrame, probabilities: Probabilities) -> pd.DataFrame:
    """Lay out the answers in ISIC's form: image and a probability a diagnosis, in its order."""
    ids = pd.DataFrame({"image": table["image_id"].to_numpy()})
    columns = pd.DataFrame(probabilities, columns=[code.upper() for code in CODES])
    return pd.concat([ids, columns[list(ISIC_COLUMNS)].round(6)], axis=1)


def report(table: pd.DataFrame) -> str:
    """Write `per_class` for reading: undefined figures as a dash."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="-")
