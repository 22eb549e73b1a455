"""The summary that evaluation prints: all models side by side, and the verdict."""

import textwrap

import pandas as pd

from lesions.common import layout
from lesions.evaluation.evaluation import BASELINE, Evaluation
from lesions.evaluation.referrals import is_shown
from lesions.reporting.render import duration
from lesions.scoring.guards import MIN_CASES
from lesions.scoring.metrics import metrics_of

VERIFIED = ("accuracy", "balanced_accuracy")  # and the AUC of each group: for histology alone
NEXT = """
Look at it:  lesions report   (everything on one page)     dvc plots show   (all plots)
Compare it:  dvc exp diff     (with the last commit)
Keep it:     git add params.yaml dvc.lock metrics plots && git commit"""


def summarise(evaluation: Evaluation, test_set: str) -> str:
    """Write the key metrics of all models, their training times and the verdict as text.

    Args:
        evaluation: of all models.
        test_set: its name.
    """
    metrics = evaluation.key_metrics()
    titles = {key: one.title for key, one in metrics_of(evaluation.dataset).items() if one.is_key}
    table = pd.DataFrame(metrics).reindex(list(titles)).rename(index=titles)
    text = table.map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    text = text.rename(columns={**evaluation.titles, BASELINE: "baseline"})
    text.loc["training time"] = [_training_time(name) for name in metrics]
    heading = f"{test_set}: {evaluation.photos:,} photos; baseline: always the most common class"
    lines = [line.rstrip() for line in text.to_string().splitlines()]
    lines += ["", *_referrals(evaluation)]
    if verified := _verified(evaluation):
        lines += ["", *(textwrap.fill(line, 100) for line in verified)]
    verdicts = [textwrap.fill(sentence, 100) for sentence in evaluation.verdicts()]
    leak = [textwrap.fill(evaluation.leak.warning, 100), ""] if evaluation.leak else []
    return "\n".join(["", *leak, heading, *lines, "", *verdicts, NEXT])


def _verified(evaluation: Evaluation) -> list[str]:
    """Say how good the models are on the photos confirmed by histology, one line per model."""
    lines = []
    for model, title in evaluation.titles.items():
        table = evaluation.tables[model]["verified"].set_index("metric")
        if len(table):
            known = [
                f"{metric.title} {table['value'][key]:.3f}"
                for key, metric in metrics_of(evaluation.dataset).items()
                if key in VERIFIED or (metric.group and not metric.is_key)
            ]
            lines.append(
                f"{title}, only on the {table['photos'].iloc[0]} photos confirmed by histology: "
                f"{', '.join(known)}"
            )
    return lines


def _referrals(evaluation: Evaluation) -> list[str]:
    """Say what the thresholds for a sensitivity of .90 find, one line per model and group."""
    if not any(len(tables["operating_points"]) for tables in evaluation.tables.values()):
        return [f"no thresholds: validation has fewer than {MIN_CASES} cases of each group"]
    lines = []
    for model, title in evaluation.titles.items():
        table = evaluation.tables[model]["operating_points"]
        for row in table.to_dict("records"):
            if not is_shown(row):
                continue
            lines.append(
                f"{title}, threshold for {row['group']} at sensitivity .90 on validation: finds "
                f"{row['found']} of {row['cases']}; false alarms: {row['false_alarms']} of "
                f"{row['others']:,} others"
            )
    return lines


def _training_time(model: str) -> str:
    """Read how long a training took; only shown, because times differ from run to run."""
    history = layout.history(model)
    return duration(pd.read_csv(history)["seconds"].sum()) if history.exists() else ""
