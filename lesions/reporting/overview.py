"""The overview: the report's first table, with all that a choice between the models needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lesions.common.names import count_of
from lesions.evaluation.referrals import SENSITIVITY, is_shown
from lesions.reporting.cases import Case
from lesions.reporting.render import interval, number
from lesions.reporting.results import Results, Row, TestSet
from lesions.scoring.guards import MIN_CASES


class Value(NamedTuple):
    """One value of a cell."""

    text: str
    interval: str = ""  # 95 %, without brackets
    filters: str = ""  # of the photo browser, for the photos behind it
    after: str = ""  # words that follow
    ends: bool = False  # its line: the next value starts one


class Line(NamedTuple):
    """One line of the table."""

    title: str
    cells: list[list[Value]]  # of each model
    differences: list[str]  # of the only pair of models; empty if it is not compared


class Step(NamedTuple):
    """Where to look next."""

    text: str
    filters: str


def overview(results: Results) -> list[Line]:
    """Make the lines: what is found, how good the ranking is, how often the class is right.

    Then the same for the photos confirmed by histology alone, and for each external test set.
    """
    dataset, test = results.dataset, results.test
    # The watched group first.
    groups = sorted(dataset.groups, key=lambda group: group != dataset.watched)
    metrics = test.of("metrics", "metric", "model")
    lines = [_referral(results, test, group) for group in groups]
    keys = [*(f"{group}_auc" for group in groups), "balanced_accuracy", "accuracy"]
    for key in keys:
        by_model = metrics[key]
        baseline = next(iter(by_model.values()))["baseline"]
        known = f" (always the most common class: {number(baseline)})" if key == "accuracy" else ""
        lines.append(
            Line(
                _title(by_model) + known,
                [[_value(by_model[model["title"]])] for model in results.models],
                _differences(results, key),
            )
        )
    if test.verified:
        verified, count = test.of("verified", "metric", "model"), test.verified[0]["photos"]
        for key in ("accuracy", *(f"{group}_auc" for group in groups)):
            baseline = next(iter(verified[key].values()))["baseline"]
            known = f" (most common: {number(baseline)})" if key == "accuracy" else ""
            title = f"{_title(verified[key])}, only the {count} confirmed by histology{known}"
            cells = [[_value(verified[key][model["title"]])] for model in results.models]
            lines.append(Line(title, cells, []))
    for one in results.external_tests:
        lines += [_referral(results, one, group) for group in groups]
        external = one.of("metrics", "metric", "model")
        for key in ("balanced_accuracy", "accuracy"):
            cells = [[_value(external[key][model["title"]])] for model in results.models]
            lines.append(Line(f"{one.name}: {_title(external[key])}", cells, []))
    return lines


def _title(by_model: dict[str, Row]) -> str:
    return str(next(iter(by_model.values()))["title"])


def _value(row: Row) -> Value:
    return Value(number(row["value"]), interval(row) if row["low"] is not None else "")


def _referral(results: Results, test: TestSet, group: str) -> Line:
    """Say how many of a group a threshold finds, and how many others it refers."""
    own = test is results.test
    cells = []
    for model in results.models:
        rows = [
            row
            for row in test.operating_points
            if row["model"] == model["title"] and row["group"] == group and is_shown(row)
        ]
        if not rows:
            cells.append([Value("no threshold", after=f" (under {MIN_CASES} validation cases)")])
            continue
        (row,) = rows
        linked = own and model["weights"]  # the mean of all models has no predictions of its own
        few = ", too few to judge" if row["cases"] < MIN_CASES else ""
        below = f", below its aim of {SENSITIVITY:.2f}" if (row["high"] or 1) < SENSITIVITY else ""
        cells.append(
            [
                Value(f"found {row['found']:,} of {row['cases']:,}, "),
                Value(
                    f"missed {row['cases'] - row['found']:,}",
                    f"sensitivity {interval(row)}" if row["low"] is not None else "",
                    f"show=missed:{group}&model={model['name']}" if linked else "",
                    few or below,
                    ends=True,
                ),
                Value(
                    f"false alarms: {row['false_alarms']:,} of {row['others']:,} others",
                    filters=f"show=alarm:{group}&model={model['name']}" if linked else "",
                ),
            ]
        )
    differences = []
    for measure in ("sensitivity", "specificity") if own else ():
        found = _differences(results, f"{group}_threshold_{measure}")
        differences += [f"{measure}: {one}" for one in found]
    aim = f"{SENSITIVITY:.0%}".replace("%", "\u00a0%")
    title = f"{group} at the threshold for {aim}"
    return Line(title if own else f"{test.name}: {title}", cells, differences)


def _differences(results: Results, metric: str) -> list[str]:
    """Write the paired difference of a metric; none if there are more than two models."""
    if len(results.models) > 2:
        return []
    return [
        f"{row['difference']:+.3f}".replace("-", "−")
        + (f" ({interval(row)})" if row["low"] is not None else " (too few differ)")
        for row in results.test.comparison
        if row["metric"] == metric
    ]


def short_verdicts(results: Results) -> list[str]:
    """Say in a few words which model is better in what, one sentence per pair of models.

    A threshold counts as one thing: who has fewer false alarms, but finds fewer, is not better.
    """
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in results.test.comparison:
        pairs.setdefault((row["first"], row["second"]), []).append(row)
    sentences = []
    for (first, second), rows in pairs.items():
        if all(row["low"] is None for row in rows):
            sentences.append(f"{first} and {second} differ on too few photos to be compared.")
            continue
        by_metric = {row["metric"]: row for row in rows}
        parts = []
        for better, other, sign in ((first, second, 1), (second, first, -1)):
            won = [
                _thing(row)
                for row in rows
                if row["significant"]
                and sign * row["difference"] > 0
                and sign * by_metric.get(_counterpart(row), row)["difference"] >= 0
            ]
            if won:
                things = ", ".join(dict.fromkeys(won))
                parts.append(f"{better} is better than {other} in {things}")
        if not parts:
            parts.append(f"{first} and {second}: neither is shown to be better")
        sentences.append(f"{'; '.join(parts)} ({len(rows)} comparisons, corrected for that).")
    if sentences and len({m["weights"] for m in results.models if m["weights"]}) > 1:
        sentences.append(
            "They did not all start from the same weights, so this says little about the networks."
        )
    return sentences


def _thing(row: Row) -> str:
    """Name what a comparison is about."""
    group, threshold, _ = str(row["metric"]).partition("_threshold_")
    return f"the {group} threshold" if threshold else str(row["title"])


def _counterpart(row: Row) -> str:
    """Name the other metric at the same threshold: specificity for sensitivity."""
    group, threshold, measure = str(row["metric"]).partition("_threshold_")
    other = {"sensitivity": "specificity", "specificity": "sensitivity"}
    return f"{group}{threshold}{other[measure]}" if threshold else ""


def not_above_baseline(results: Results) -> str:
    """Name the models that are not shown to beat always predicting the most common class."""
    found = []
    for row in results.test.metrics:
        if row["metric"] != "accuracy" or row["baseline"] is None:
            continue
        least = row["value"] if row["low"] is None else row["low"]
        if least <= row["baseline"]:
            found.append(f"{row['model']} ({number(row['value'])})")
            baseline = number(row["baseline"])
    if not found:
        return ""
    return (
        f"Not shown to have a higher accuracy than always predicting the most common class "
        f"({baseline}): {', '.join(found)}."
    )


def next_steps(results: Results, cases: Sequence[Case]) -> list[Step]:
    """Name the views of the photo browser to look at first, the most telling before the others."""
    steps = []
    networks = [model for model in results.models if model["weights"]]
    together = sum(len(case.wrong) == len(networks) for case in cases)
    words, show = ("wrong in all models", "wrong-in-all") if networks[1:] else ("wrong", "wrong")
    if together:
        steps.append(Step(f"{count_of(together, 'photo')} {words}", f"show={show}"))
    group = results.dataset.watched or next(iter(results.dataset.groups), None)
    missed = sum(any(group in one.missed for one in case.judged.values()) for case in cases)
    if missed:
        words = f"{count_of(missed, 'photo')} of {group} below a threshold"
        steps.append(Step(words, f"show=missed:{group}"))
    if suspects := sum(case.suspect for case in cases):
        steps.append(Step(f"{count_of(suspects, 'suspect label')}", "show=suspect"))
    sure = sum(case.confidence_of_mistake >= 0.9 for case in cases)
    if sure:
        words = f"{count_of(sure, 'mistake')} of 90 % confidence or more"
        steps.append(Step(words, "show=wrong&confidence=0.9"))
    return steps[:3] or [Step("the test photos, one by one", "")]


def trained_on(results: Results) -> str:
    """Say what was trained on what, in one sentence."""
    counts: dict[str, Any] = {
        name: sum(row[f"{name}_photos"] for row in results.photos)
        for name in ("train", "val", "test")
    }
    networks = [model for model in results.models if model["weights"]]
    known = not results.leaking and results.groups != "photo"
    apart = f" No {results.groups} is in two of these." if known else ""
    starts = ", ".join(f"{model['title']} from {model['weights']} weights" for model in networks)
    return (
        f"{starts}; trained on {counts['train']:,} photos, chosen and calibrated on "
        f"{counts['val']:,}, tested here on {counts['test']:,}.{apart}"
    )
