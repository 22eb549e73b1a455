"""The report: all results of the last run on one page that opens offline."""

import json
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import vl_convert
from PIL import Image

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.programs import run_dvc
from lesions.reporting.render import data_uri, environment, image_uri
from lesions.reporting.results import Results
from lesions.scoring.guards import MIN_CASES

# The section of the page for each plot of dvc.yaml, by the name of its file or its own name.
SECTIONS = {
    "metrics": "results",
    "comparison": "comparison",
    "per_class": "classes",
    "confusion": "classes",
    "decisions": "referral",
    "operating_points": "referral",
    "net_benefit": "referral",
    "verified": "results",
    "verified_operating_points": "referral",
    "reliability": "confidence",
    "group_calibration": "confidence",
    "predictions": "confidence",
    "selective": "confidence",
    "thresholds": "curves",
    "Precision and recall": "curves",
    "subgroups": "subgroups",
    "history": "training",
    "Loss": "training",
    "Accuracy": "training",
}
OTHER = "other"  # the section of a plot that the user has added
WIDE = 700  # px; a wider plot has a line of its own
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
        "Blue regions support the prediction (Grad-CAM). Blue outside the lesion is suspicious.",
        layout.PLOTS / "heatmaps.png",
    ),
)


class Plot(NamedTuple):
    """A drawn plot."""

    title: str
    caption: str
    source: str  # data URI
    width: int  # px
    section: str  # a value of SECTIONS, OTHER, or the name of an external test set


def build_report(results: Results) -> str:
    """Fill templates/report.html.

    Raises:
        LesionsError: DVC cannot show the plots, or a picture is missing.
    """
    test = results.test
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
            test_sets=[test, *results.external_tests],
            min_cases=MIN_CASES,
            plots=draw_plots([one.name for one in results.external_tests]),
            wide=WIDE,
            pictures=[(*texts, _as_webp(path)) for *texts, path in PICTURES],
        )
    )


def draw_plots(external_tests: list[str]) -> list[Plot]:
    """Draw every plot of dvc.yaml with its template, in order."""
    with tempfile.TemporaryDirectory() as unused:  # DVC copies the pictures there
        shown = run_dvc("plots", "show", "--json", "--out", unused)
    drawn = []
    for name, plots in json.loads(shown)["data"].items():
        path = Path(name)
        section = SECTIONS.get(path.stem, OTHER)
        if path.parent.name in external_tests:
            section = path.parent.name
        for plot in (plot for plot in plots if plot["type"] == "vega"):
            specification = plot["content"]
            title = specification.pop("title")
            svg = vl_convert.vegalite_to_svg(specification)
            width = re.search(r'<svg[^>]* width="([\d.]+)"', svg)
            drawn.append(
                Plot(
                    title["text"],
                    title.get("subtitle", ""),  # DVC's own templates have none
                    data_uri("svg+xml", svg.encode()),
                    round(float(width[1])) if width else WIDE,
                    section,
                )
            )
    return drawn


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
