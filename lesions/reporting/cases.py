"""The cases: every test photo with what each model makes of it, for counts and for the browser."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesions.common.params import Decision
from lesions.common.types import Bools, Floats
from lesions.dataset.description import Description
from lesions.evaluation.referrals import shown_points
from lesions.evaluation.subgroups import traits_of
from lesions.networks.model_card import ModelCard
from lesions.scoring.guards import enough_groups
from lesions.scoring.operating_points import score
from lesions.scoring.rules import DECISIONS

MAX_CASES = 400  # on one page, unless more than these need a look


class Judged(NamedTuple):
    """What one model makes of one photo."""

    predicted: str  # by the decision of the run
    decisions: dict[Decision, str]  # the class by each decision
    probabilities: dict[str, float]  # of each class
    missed: tuple[str, ...]  # groups that the photo is of, without reaching their threshold
    false_alarms: tuple[str, ...]  # groups whose threshold it reaches without being of them


class Case(NamedTuple):
    """A test photo."""

    image_id: str
    actual: str
    traits: dict[str, str]  # such as sex: female
    suspect: bool  # its label is doubtful, by confident learning
    judged: dict[str, Judged]  # by each model

    @property
    def wrong(self) -> list[str]:
        """The models that predict another class."""
        return [name for name, one in self.judged.items() if one.predicted != self.actual]

    @property
    def needs_a_look(self) -> bool:
        """Whether a model is wrong, misses it or raises a false alarm, or its label is suspect."""
        at_threshold = any(one.missed or one.false_alarms for one in self.judged.values())
        return bool(self.wrong) or at_threshold or self.suspect

    @property
    def confidence_of_mistake(self) -> float:
        """The highest probability that a wrong model gives to its class; 0 if all are right."""
        judged = (self.judged[name] for name in self.wrong)
        return max((one.probabilities[one.predicted] for one in judged), default=0.0)


def list_cases(
    dataset: Description,
    cards: Mapping[str, ModelCard],
    test: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    views: int,
) -> list[Case]:
    """Join the predictions of all models, one case per test photo.

    Args:
        dataset: its description.
        cards: of the models, by name.
        test: the table of the test photos.
        predictions: predictions.csv of each model.
        views: as in params.yaml of the run.

    Returns:
        Those that need a look first, the most confident mistakes before the others; then those
        that are the least certain.
    """
    test = test.set_index("image_id", drop=False)
    actual = test["dx"].to_numpy(dtype=str)
    aligned = {
        name: table.set_index("image_id").loc[test.index] for name, table in predictions.items()
    }
    shares = {name: table[list(dataset.classes)].to_numpy(float) for name, table in aligned.items()}
    judged = {
        name: _judge(dataset, cards[name], actual, aligned[name], shares[name], views)
        for name in predictions
    }
    suspect = find_suspects(dataset, test, np.mean(list(shares.values()), axis=0))
    traits = pd.DataFrame(traits_of(test), index=test.index).to_dict("records")
    found = [
        Case(
            str(image_id),
            actual[row],
            {str(trait): str(value) for trait, value in traits[row].items()} if traits else {},
            suspect is not None and bool(suspect[row]),
            {name: ones[row] for name, ones in judged.items()},
        )
        for row, image_id in enumerate(test.index)
    ]
    return sorted(
        found,
        key=lambda case: (
            not case.needs_a_look,
            -case.confidence_of_mistake,
            min(one.probabilities[case.actual] for one in case.judged.values()),
        ),
    )


def on_page(cases: Sequence[Case]) -> list[Case]:
    """Choose the cases of the photo browser: all that need a look, and others up to MAX_CASES."""
    needed = sum(case.needs_a_look for case in cases)
    return list(cases[: max(needed, MAX_CASES)])


def is_complete(cases: Sequence[Case]) -> bool:
    """Say whether the photo browser has all test photos."""
    return len(on_page(cases)) == len(cases)


def _judge(
    dataset: Description,
    card: ModelCard,
    actual: "np.typing.NDArray[np.str_]",
    predictions: pd.DataFrame,
    probabilities: Floats,
    views: int,
) -> list[Judged]:
    """Say what one model makes of each photo, in the order of its rows."""
    fitted, codes = card.use(views), np.array(dataset.classes)
    decided = {one: codes[fitted.decide(probabilities, one)] for one in DECISIONS}
    missed: list[list[str]] = [[] for _ in actual]
    false_alarms: list[list[str]] = [[] for _ in actual]
    for group, point in shown_points(fitted).items():
        members = np.isin(actual, dataset.groups[group])
        reached = score(probabilities, dataset.indices(group)) >= point.threshold
        for row in np.flatnonzero(members & ~reached):
            missed[row].append(group)
        for row in np.flatnonzero(~members & reached):
            false_alarms[row].append(group)
    return [
        Judged(
            str(predicted),
            {one: str(classes[row]) for one, classes in decided.items()},
            dict(zip(dataset.classes, probabilities[row].tolist(), strict=True)),
            tuple(missed[row]),
            tuple(false_alarms[row]),
        )
        for row, predicted in enumerate(predictions["predicted"])
    ]


def groups_with_thresholds(
    dataset: Description, cards: Iterable[ModelCard], views: int
) -> list[str]:
    """List the groups for which a model has a threshold that the pages show."""
    known = {group for card in cards for group in shown_points(card.use(views))}
    return [group for group in dataset.groups if group in known]


def can_find_suspects() -> bool:
    """Whether cleanlab, the extra `labels`, is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def find_suspects(dataset: Description, test: pd.DataFrame, probabilities: Floats) -> Bools | None:
    """Find photos whose label may be wrong, by confident learning.

    Northcutt et al. 2021 (arXiv 1911.00068), by cleanlab. The models have not seen the photos.

    Args:
        dataset: its description.
        test: the table of the n test photos.
        probabilities: (n, classes), the mean of all models.

    Returns:
        (n,), or None if cleanlab is not installed or there are too few photos to tell.
    """
    if not can_find_suspects() or not enough_groups(test["image_id"]):
        return None
    from cleanlab.filter import find_label_issues

    # It needs each class to be present; those that are not cannot be confused here either.
    labels = dataset.labels_of(test["dx"])
    present, labels = np.unique(labels, return_inverse=True)
    shares = probabilities[:, present]
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    found: Bools = np.asarray(find_label_issues(labels, shares, n_jobs=1), dtype=bool)
    return found
