"""The summary that evaluation prints: all models side by side, and the verdict."""

import textwrap
from pathlib import Path

import pandas as pd

from lesions.evaluation.metrics import TITLES
from lesions.evaluation.test_set import Evaluation
from lesions.networks.key_metrics import NAMES
from lesions.reporting.templates import duration

SENSITIVITY = 0.90  # of the operating points that are shown
NEXT = """
Look at it:  dvc plots show   (all plots)      make report   (everything on one page)
Compare it:  dvc exp diff     (with the last commit)
Keep it:     git add params.yaml dvc.lock metrics plots && git commit"""


def summarise(evaluation: Evaluation, test_set: str) -> str:
    """Write the key metrics of all models, their training times and the verdict as text.

    Args:
        evaluation: of all models.
        test_set: its name.
    """
    metrics = evaluation.key_metrics()
    columns = {**evaluation.titles, "baseline": "baseline"}
    table = pd.DataFrame(metrics).loc[list(NAMES)].rename(index=TITLES, columns=columns)
    text = table.map("{:.3f}".format)
    text.loc["training time"] = [_training_time(name) for name in metrics]
    heading = (
        f"{test_set}: {evaluation.photos:,} photos; baseline: always the most common diagnosis"
    )
    lines = [line.rstrip() for line in text.to_string().splitlines()]
    lines += ["", *_referrals(evaluation)]
    verdicts = [textwrap.fill(sentence, 100) for sentence in evaluation.verdicts()]
    leak = [textwrap.fill(evaluation.leak.warning, 100), ""] if evaluation.leak else []
    return "\n".join(["", *leak, heading, *lines, "", *verdicts, NEXT])


def _referrals(evaluation: Evaluation) -> list[str]:
    """Say what the thresholds for a sensitivity of .90 find, one line per model and target."""
    lines = []
    for model, title in evaluation.titles.items():
        table = evaluation.tables[model]["operating_points"]
        for row in table[table["aim"] == SENSITIVITY].to_dict("records"):
            lines.append(
                f"{title}, threshold for {row['target']} at sensitivity .90 on validation: finds "
                f"{row['found']} of {row['cases']}, {row['false_alarms']} false alarms among "
                f"{row['others']:,} others"
            )
    return lines


def _training_time(model: str) -> str:
    """Read how long a training took; only shown, because times differ from run to run."""
    history = Path(f"plots/{model}/history.csv")
    return duration(pd.read_csv(history)["seconds"].sum()) if history.exists() else ""
