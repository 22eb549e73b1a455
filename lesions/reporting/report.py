"""The report: all results of the last run on one page that opens offline."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.dataset.audit import LEFT_OUT
from lesions.reporting.cases import Case, is_complete
from lesions.reporting.overview import (
    next_steps,
    not_above_baseline,
    overview,
    short_verdicts,
    trained_on,
)
from lesions.reporting.plots import draw_plots
from lesions.reporting.render import environment, image_uri
from lesions.reporting.results import Results
from lesions.scoring.guards import MIN_CASES

PICTURES = (
    (
        "Training photos after augmentation",
        "What the networks were trained on. The class must still be visible.",
        layout.PLOTS / "augmented.png",
    ),
    (
        "Most confident wrong, least confident correct predictions",
        "Above: where a model was sure and wrong. Below: where it was right by a narrow margin.",
        layout.PLOTS / "extreme_cases.png",
    ),
    (
        "Heat maps",
        "Blue regions support the prediction (Grad-CAM). Blue outside the lesion is suspicious. "
        "Photos that are too small for heat maps are shown without.",
        layout.PLOTS / "heatmaps.png",
    ),
)


def build_report(results: Results, cases: Sequence[Case]) -> str:
    """Fill templates/report.html.

    Args:
        results: of the last run.
        cases: its test photos, from `list_cases`.

    Raises:
        LesionsError: DVC cannot show the plots, or a picture is missing.
    """
    test = results.test
    plots = draw_plots([one.name for one in results.external_tests])
    judged = {row["group"] for row in test.subgroups if row["accuracy"] is not None}
    return (
        environment(autoescape=True)
        .get_template("report.html")
        .render(
            **vars(results),
            synthetic=results.synthetic,
            metric_of=test.of("metrics", "metric", "model"),
            class_of=test.of("per_class", "dx", "model"),
            subgroups=test.of("subgroups", "group", "model"),
            verified=test.of("verified", "model", "metric"),
            missed=_missed(results),
            confusion=_confusion(results),
            overview=overview(results),
            short_verdicts=short_verdicts(results),
            not_above_baseline=not_above_baseline(results),
            next_steps=next_steps(results, cases),
            trained_on=trained_on(results),
            small_subgroups=_small_subgroups(results),
            test_sets=[test, *results.external_tests],
            min_cases=MIN_CASES,
            plots=[plot for plot in plots if plot.section != "subgroups" or judged],
            judged_subgroups=len(judged),
            complete=is_complete(cases),
            left_out=LEFT_OUT,
            pictures=[(*texts, _as_webp(path)) for *texts, path in PICTURES],
        )
    )


def _confusion(results: Results) -> dict[str, dict[str, dict[str, int]]]:
    """Nest the confusion matrices: {model: {actual: {predicted: photos}}}."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in results.test.confusion:
        by_class = found.setdefault(row["model"], {}).setdefault(row["actual"], {})
        by_class[row["predicted"]] = int(row["photos"])
    return found


def _small_subgroups(results: Results) -> list[str]:
    """Name the subgroups without metrics, each once, with its photos."""
    rows = [row for row in results.test.subgroups if row["accuracy"] is None]
    return list(dict.fromkeys(f"{row['group']} ({row['photos']})" for row in rows))


def _missed(results: Results) -> dict[str, dict[str, list[tuple[str, int]]]]:
    """List, by class and model, what its wrong photos were predicted as: the most first."""
    found: dict[str, dict[str, list[tuple[str, int]]]]
    found = {code: {} for code in results.dataset.classes}
    for row in sorted(results.test.confusion, key=lambda row: -row["photos"]):
        if row["actual"] != row["predicted"] and row["photos"]:
            of_model = found[row["actual"]].setdefault(row["model"], [])
            of_model.append((row["predicted"], int(row["photos"])))
    return found


def _as_webp(path: Path) -> str:
    """Encode a picture, several times smaller than PNG."""
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
    with Image.open(path) as picture:
        return image_uri(picture.convert("RGB"), "WEBP", quality=90)
