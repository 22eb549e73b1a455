"""The demo's answers in words: what a prediction means, and what such ones meant in the test."""

from pathlib import Path
from typing import Any, NamedTuple

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.params import Decision, Views, load_params
from lesions.dataset.description import Description
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import image_id_of
from lesions.evaluation.referrals import SENSITIVITY, is_shown, shown_points
from lesions.reporting.render import interval, number
from lesions.reporting.results import Row, read_results
from lesions.scoring.fitted import Fitted
from lesions.scoring.guards import MIN_CASES
from lesions.serving.predictor import Prediction

EXAMPLES = 8  # test photos on the page, at most, one per class


class Evidence(NamedTuple):
    """What the last run's test set says about the models; empty for models of other runs."""

    sentences: list[str]  # how good each model is, and how they compare
    referrals: dict[tuple[str, str], Row]  # of each model and group, at its threshold
    examples: dict[str, Path]  # of each class, a test photo; none of the synthetic sample


def read_evidence(
    paths: list[Path], titles: list[str], dataset: Description, decision: Decision, views: Views
) -> Evidence:
    """Read the results of the last run, if the models are its own: those in models/ here.

    Args:
        paths, titles: of the models, which may be some of the run's.
        dataset: its description.
        decision, views: how the page predicts; results of another rule are none of it.
    """
    names = [path.stem for path in paths]
    nothing = Evidence([], {}, {})
    if paths != [layout.model_file(name) for name in names]:
        return nothing
    try:
        results = read_results(list(load_params().networks), [], dataset)
        test = read_table(layout.TEST_TABLE, "image_id", "dx")
    except LesionsError:  # never evaluated, or with other models
        return nothing
    used = {"decision": "most-probable", "views": 1} | results.parameters
    known = {model["title"] for model in results.models}
    if (used["decision"], used["views"]) != (decision, views) or not known.issuperset(titles):
        return nothing
    metrics = results.test.of("metrics", "model", "metric")

    def value(title: str, name: str) -> str:
        row = metrics[title][name]
        known = f" (95 % interval {interval(row)})" if row["low"] is not None else ""
        return f"{row['title']} {number(row['value'])}{known}"

    sentences = [
        f"{title}, on {results.test.photos:,} test photos: {value(title, 'accuracy')}, "
        f"{value(title, 'balanced_accuracy')}."
        for title in titles
    ]
    points = [row for row in results.test.operating_points if is_shown(row)]
    if known == set(titles):  # they compare all models
        sentences += results.verdicts
    return Evidence(
        sentences,
        {(row["model"], row["group"]): row for row in points},
        {}
        if results.synthetic
        else _examples(dict(zip(test["image_id"], test["dx"], strict=True))),
    )


def _examples(diagnoses: dict[str, str]) -> dict[str, Path]:
    """Find the first test photo of each class that is still in data/raw."""
    found: dict[str, Path] = {}
    for path in sorted(layout.RAW_IMAGES.glob("*")):
        dx = diagnoses.get(image_id_of(path))
        if dx is not None and dx not in found:
            found[dx] = path
    return dict(sorted(found.items())[:EXAMPLES])


def percent(share: float) -> str:
    """Write a probability in percent, without claiming certainty.

    >>> percent(0.284), percent(0.999), percent(0.001)
    ('28 %', 'over 99 %', 'under 1 %')
    """
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def answer(prediction: Prediction, fitted: Fitted, dataset: Description) -> str:
    """Say in words whether a model refers a photo, and what it thinks most probable."""
    points = list(shown_points(fitted).values())
    reached = [point for point in points if prediction.reaches(point)]
    aim = f"finds {SENSITIVITY:.0%} in validation".replace("%", " %")
    if reached:
        parts = [
            f"{point.group} {percent(prediction.scores[point.group])}, above the limit of "
            f"{percent(point.threshold)}"
            for point in reached
        ]
        first = f"Refer: {'; '.join(parts)}, which {aim}."
    elif points:
        parts = [
            f"{point.group} {percent(prediction.scores[point.group])} (limit "
            f"{percent(point.threshold)})"
            for point in points
        ]
        first = f"Below the limit, which {aim}: {'; '.join(parts)}."
    elif fitted.cases:
        few = " and ".join(f"{n} of {group}" for group, n in fitted.cases.items())
        first = f"No limit for referral: of {MIN_CASES} cases needed, validation had {few}."
    else:
        first = ""
    having = {point.group for point in points}
    if points and (lacking := [group for group in fitted.cases if group not in having]):
        few = " and ".join(f"{group} ({fitted.cases[group]} validation cases)" for group in lacking)
        first += f" No limit for {few}."
    best = int(prediction.probabilities.argmax())
    words = dataset.meaning[dataset.classes[best]]
    second = f"Most probable: {words}, {percent(prediction.probabilities[best])}."
    if prediction.predicted != best:
        chosen = dataset.classes[prediction.predicted]
        second += (
            f" Predicted by the decision `balanced`: {dataset.meaning[chosen]}, "
            f"{percent(prediction.probabilities[prediction.predicted])}."
        )
    return f"{first} {second}".strip()


def tested(row: dict[str, Any], refers: bool) -> str:
    """Say what such a referral, or none, meant in the test set.

    Args:
        row: of operating_points.csv.
        refers: whether the photo reaches the threshold.

    >>> row = {"group": "urgent", "found": 38, "cases": 42, "false_alarms": 121, "others": 959}
    >>> tested(row, True)
    'Of the 159 test photos above this limit for urgent, 38 were urgent.'
    >>> tested(row, False)
    'Of the 842 test photos below the limit for urgent, 4 were urgent.'
    """
    group = row["group"]
    if refers:
        return (
            f"Of the {row['found'] + row['false_alarms']:,} test photos above this limit for "
            f"{group}, {row['found']:,} were {group}."
        )
    missed = row["cases"] - row["found"]
    below = row["others"] - row["false_alarms"] + missed
    return f"Of the {below:,} test photos below the limit for {group}, {missed:,} were {group}."
