"""Scoring: what a model's answers on the test photos are worth."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics

from lesions import calibration, curves, intervals
from lesions.answers import Answers
from lesions.diagnoses import CODES, MALIGNANT

Floats = npt.NDArray[np.floating]

HEADLINE = (
    "accuracy",
    "balanced_accuracy",
    "weighted_f1",
    "macro_f1",
    "roc_auc",
    "melanoma_sensitivity",
)
TABLES = ("scores", "per_class", "subgroups", "thresholds", "reliability")
SMALLEST = 10  # photos that a subgroup must have to be scored
MELANOMA = CODES.index("mel")


def words(figure: str) -> str:
    """Name a figure for people."""
    text = figure.replace("_", " ").replace("specificity at ", "specificity at sensitivity .")
    text = text.replace(" before", ", before calibration")
    for small, right in (("f1", "F1"), ("auc", "AUC"), ("roc", "ROC"), ("brier", "Brier")):
        text = text.replace(small, right)
    return text


def figures(answers: Answers, weights: Floats) -> dict[str, Floats]:
    """Score the answers, each photo counted as often as its weight says.

    Balanced accuracy is the mean sensitivity of the diagnoses that occur (ISIC 2018 Task 3); ROC
    AUC is one-vs-rest, averaged over them; F1 over those that occur or are answered. Calibration
    error and Brier score are of the calibrated and of the bare probabilities.

    Args:
        answers: of n photos.
        weights: (b, n), one row a sample.

    Returns:
        Figure to its (b,) values; NaN where a diagnosis that it needs does not occur.
    """
    labels, said = answers.labels, answers.said
    cells = np.zeros((len(labels), len(CODES) ** 2))
    cells[np.arange(len(labels)), labels * len(CODES) + said] = 1
    confusion = (weights @ cells).reshape(-1, len(CODES), len(CODES))  # true by said
    hits = confusion.diagonal(axis1=1, axis2=2)
    true, told = confusion.sum(axis=2), confusion.sum(axis=1)
    sensitivity, f1 = _ratio(hits, true), _ratio(2 * hits, true + told)
    of_class = [
        curves.curve(answers.probabilities[:, index], labels == index, weights)
        for index in range(len(CODES))
    ]
    areas = np.stack([one.area() for one in of_class], axis=1)
    malignant = [CODES.index(code) for code in MALIGNANT]
    danger = answers.probabilities[:, malignant].sum(axis=1)
    return {
        "accuracy": _ratio(hits.sum(axis=1), weights.sum(axis=1)),
        "balanced_accuracy": _mean(sensitivity),
        "weighted_f1": _ratio((true * np.nan_to_num(f1)).sum(axis=1), true.sum(axis=1)),
        "macro_f1": _mean(f1),
        "roc_auc": _mean(areas),
        "melanoma_sensitivity": sensitivity[:, MELANOMA],
        "malignant_auc": curves.curve(danger, np.isin(labels, malignant), weights).area(),
        "melanoma_specificity_at_90": of_class[MELANOMA].specificity_at(0.90),
        "melanoma_specificity_at_95": of_class[MELANOMA].specificity_at(0.95),
        "calibration_error": calibration.calibration_error(answers.probabilities, labels, weights),
        "brier_score": calibration.brier_score(answers.probabilities, labels, weights),
        "calibration_error_before": calibration.calibration_error(
            answers.uncalibrated, labels, weights
        ),
        "brier_score_before": calibration.brier_score(answers.uncalibrated, labels, weights),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    undefined = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))


def _mean(values: Floats) -> Floats:
    """Average each row over what is known: (b, k) to (b,)."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def once(answers: Answers) -> dict[str, float]:
    """Score the answers as they are."""
    found = figures(answers, np.ones((1, len(answers.labels))))
    return {name: float(values[0]) for name, values in found.items()}


def resampled(answers: Answers) -> dict[str, Floats]:
    """Score resamples of the lesions, the same ones for every model.

    Returns:
        Figure to its values. Those of melanoma are NaN with fewer than 10 melanomas: resamples of
        so few hardly differ, and an interval from them would promise too much.
    """
    lesions = answers.photos["lesion_id"].to_numpy(dtype=str)
    parts = [figures(answers, weights) for weights in intervals.resamples(lesions)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if len(np.unique(lesions[answers.labels == MELANOMA])) < SMALLEST:
        for name in (name for name in found if name.startswith("melanoma")):
            found[name] = np.full(intervals.RESAMPLES, np.nan)
    return found


def commonest(answers: Answers) -> Answers:
    """Answer the test set's commonest diagnosis every time: what a model has to beat."""
    always = np.zeros_like(answers.probabilities)
    always[:, np.bincount(answers.labels).argmax()] = 1
    return Answers(answers.photos, answers.labels, always, always)


def headline(answers: Answers) -> dict[str, float]:
    """Score a model in a few figures, each between 0 and 1, rounded to 4 places.

    `baseline_accuracy` is that of always answering the commonest diagnosis. A figure of a
    diagnosis that does not occur is left out.
    """
    found = once(answers)
    chosen = {name: found[name] for name in HEADLINE}
    chosen["baseline_accuracy"] = once(commonest(answers))["accuracy"]
    return {name: round(value, 4) for name, value in chosen.items() if np.isfinite(value)}


def scores(answers: Answers, samples: dict[str, Floats]) -> pd.DataFrame:
    """Lay out every figure with its interval and what always answering the commonest reaches.

    Returns:
        Columns figure, value, low, high, baseline. Melanoma sensitivity has Wilson's interval, as
        in `per_class`; calibration error none, for resamples are biased upwards; calibration no
        baseline.
    """
    baseline = once(commonest(answers))
    melanomas = answers.photos["lesion_id"][answers.labels == MELANOMA].nunique()
    rows = []
    for name, value in once(answers).items():
        low, high = intervals.percentile(samples[name])
        if name == "melanoma_sensitivity":
            low, high = intervals.wilson(value, melanomas)
        elif name.startswith("calibration_error"):
            low = high = np.nan
        beaten = np.nan if name.startswith(("calibration", "brier")) else baseline[name]
        rows.append((name, value, low, high, beaten))
    return pd.DataFrame(rows, columns=["figure", "value", "low", "high", "baseline"])


def per_class(answers: Answers) -> pd.DataFrame:
    """Score each diagnosis against all others.

    Returns:
        A row a diagnosis, in class order: dx, photos, lesions, sensitivity with low and high
        (Wilson's interval of as many cases as there are lesions), specificity, precision, f1,
        roc_auc, average_precision. What is undefined is NaN: sensitivity, F1 and curves without a
        photo of the diagnosis, precision without an answer of it.
    """
    rows = []
    for index, code in enumerate(CODES):
        truth, said = answers.labels == index, answers.said == index
        scores = answers.probabilities[:, index]
        both = truth.any() and not truth.all()
        hits = (truth & said).sum()
        lesions = answers.photos["lesion_id"][truth].nunique()
        sensitivity = float(hits / truth.sum()) if truth.any() else np.nan
        low, high = intervals.wilson(sensitivity, lesions)
        rows.append(
            {
                "dx": code,
                "photos": int(truth.sum()),
                "lesions": lesions,
                "sensitivity": sensitivity,
                "low": low,
                "high": high,
                "specificity": (~truth & ~said).sum() / (~truth).sum() if both else np.nan,
                "precision": hits / said.sum() if said.any() else np.nan,
                "f1": 2 * hits / (truth.sum() + said.sum()) if truth.any() else np.nan,
                "roc_auc": metrics.roc_auc_score(truth, scores) if both else np.nan,
                "average_precision": metrics.average_precision_score(truth, scores)
                if both
                else np.nan,
            }
        )
    return pd.DataFrame(rows)


def subgroups(answers: Answers) -> pd.DataFrame:
    """Score the photos by sex, age, site and proof of the diagnosis; `unknown` is a group too.

    Returns:
        Columns group, photos, lesions, melanomas (lesions), accuracy with low and high (Wilson, of
        as many cases as there are lesions), balanced_accuracy, malignant_auc,
        melanoma_sensitivity. NaN with fewer than 10 photos, the last with fewer than 10 melanomas.
    """
    photos = answers.photos
    traits = pd.DataFrame(index=photos.index)
    if "sex" in photos:
        traits["sex"] = photos["sex"]
    if "age" in photos:
        age = pd.to_numeric(photos["age"], errors="coerce")
        bands = pd.cut(age, [0, 40, 60, 200], right=False, labels=["under 40", "40–59", "60 up"])
        traits["age"] = bands.astype(object).fillna("unknown")
    if "localization" in photos:
        traits["site"] = photos["localization"]
    if "dx_type" in photos:
        traits["proof"] = np.where(photos["dx_type"] == "histo", "histology", "other")
    scored = ("accuracy", "balanced_accuracy", "malignant_auc", "melanoma_sensitivity")
    rows = []
    for trait in traits:
        for group in sorted(traits[trait].dropna().unique()):
            part = answers.part((traits[trait] == group).to_numpy())
            lesion = part.photos["lesion_id"]
            count, lesions = len(part.labels), lesion.nunique()
            melanomas = lesion[part.labels == MELANOMA].nunique()
            found = once(part) if count >= SMALLEST else dict.fromkeys(scored, np.nan)
            low, high = intervals.wilson(found["accuracy"], lesions)
            sensitive = found["melanoma_sensitivity"] if melanomas >= SMALLEST else np.nan
            rows.append(
                {
                    "group": f"{trait}: {group}",
                    "photos": count,
                    "lesions": lesions,
                    "melanomas": melanomas,
                    "accuracy": found["accuracy"],
                    "low": low,
                    "high": high,
                    "balanced_accuracy": found["balanced_accuracy"],
                    "malignant_auc": found["malignant_auc"],
                    "melanoma_sensitivity": sensitive,
                }
            )
    return pd.DataFrame(rows)


def tables(answers: Answers, samples: dict[str, Floats]) -> dict[str, pd.DataFrame]:
    """Make every table of a model that plots/ shows, by name."""
    before = calibration.reliability(answers.uncalibrated, answers.labels)
    after = calibration.reliability(answers.probabilities, answers.labels)
    return {
        "scores": scores(answers, samples),
        "per_class": per_class(answers),
        "subgroups": subgroups(answers),
        "thresholds": curves.table(answers.probabilities, answers.labels),
        "reliability": pd.concat(
            [before.assign(probabilities="as trained"), after.assign(probabilities="calibrated")]
        ),
    }


def report(answers: Answers) -> str:
    """Write `per_class` for reading: undefined figures as a dash."""
    return per_class(answers).to_string(
        index=False, float_format=lambda value: f"{value:.3f}", na_rep="-"
    )
