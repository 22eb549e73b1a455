"""The plots of the report: DVC's Vega-Lite plots as SVG that follows light and dark, with tables.

Each is drawn twice, for wide and for narrow screens; the page's style shows one of them.
"""

import copy
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert

from lesions.common.programs import run_dvc
from lesions.reporting.plot_templates import MODELS, PAIRS, WRONG, Spec

# The section of the report for each plot of dvc.yaml, by the name of its file or its own name.
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
MAX_ROWS = 60  # of the table under a plot
# Columns that DVC adds to the rows.
ADDED = ("rev", "filename", "field", "dvc_inferred_y_value")

# Colours that the page's style knows as variables, one set for light and one for dark. Vega draws
# with the colour codes; `_follow_the_page` replaces them.
INK, DIM, LINE = "#010101", "#020202", "#030303"
VARIABLES = {
    **{INK: "--ink", DIM: "--dim", LINE: "--line", WRONG: "--wrong"},
    **{"#000000": "--ink", "#333333": "--ink", "#555555": "--dim"},
    **{colour: f"--model-{colour[1:]}" for colour in (*MODELS, *PAIRS)},
}
THEME: dict[str, dict[str, str]] = {
    "axis": {
        **{"labelColor": INK, "titleColor": INK, "domainColor": DIM},
        **{"tickColor": DIM, "gridColor": LINE},
    },
    "legend": {"labelColor": INK, "titleColor": INK},
    "header": {"labelColor": INK, "titleColor": INK},
    "view": {"stroke": LINE},
}


class Plot(NamedTuple):
    """A drawn plot."""

    name: str  # of its file or of itself, as an id
    title: str
    caption: str
    wide: str  # SVG
    narrow: str  # SVG, for screens of a phone
    columns: list[str]  # of the table under it
    rows: list[tuple[str, ...]]  # every `step`-th row of the plot's data
    step: int
    section: str  # a value of SECTIONS, OTHER, or the name of an external test set


def draw_plots(external_tests: Sequence[str]) -> list[Plot]:
    """Draw every plot of dvc.yaml with its template, in order; without data, none."""
    with tempfile.TemporaryDirectory() as unused:  # DVC copies the pictures there
        shown = run_dvc("plots", "show", "--json", "--out", unused)
    drawn: list[Plot] = []
    for name, plots in json.loads(shown)["data"].items():
        path = Path(name)
        section = SECTIONS.get(path.stem, OTHER)
        if path.parent.name in external_tests:
            section = path.parent.name
        for plot in (plot for plot in plots if plot["type"] == "vega"):
            spec = plot["content"]
            if values := spec["data"]["values"]:
                drawn.append(_draw(f"plot-{len(drawn)}", spec, values, section))
    return drawn


def _draw(name: str, spec: Spec, values: list[dict[str, Any]], section: str) -> Plot:
    """Draw one plot for both widths, and thin its data for the table."""
    title = spec.pop("title")
    columns = [key for key in values[0] if key not in ADDED]
    if "image_id" in columns:  # one row per photo has too much; the plot counts them
        columns, values = ["confidence", "photos", "wrong"], _by_confidence(values)
    rows = list(dict.fromkeys(tuple(_short(row[column]) for column in columns) for row in values))
    step = -(-len(rows) // MAX_ROWS)
    return Plot(
        name,
        title["text"],
        title.get("subtitle", ""),  # DVC's own templates have none
        _follow_the_page(vl_convert.vegalite_to_svg(_themed(spec)), f"{name}-wide", title["text"]),
        _follow_the_page(
            vl_convert.vegalite_to_svg(_themed(narrowed(spec))), f"{name}-narrow", title["text"]
        ),
        columns,
        rows[::step],
        step,
        section,
    )


def _by_confidence(photos: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Count photos, and wrong ones, in ten bins of confidence."""
    counts = [[0, 0] for _ in range(10)]
    for photo in photos:
        bin_ = counts[min(9, int(10 * float(photo["confidence"])))]
        bin_[0] += 1
        bin_[1] += photo["actual"] != photo["predicted"]
    return [
        {"confidence": f"{low / 10:.1f} to {(low + 1) / 10:.1f}", "photos": str(n), "wrong": str(k)}
        for low, (n, k) in enumerate(counts)
    ]


def _short(value: Any) -> str:
    """Write a value with three decimals if it is a fraction; a dash if it is empty."""
    text = str(value)
    if re.fullmatch(r"-?\d+\.0", text):
        return text[:-2]
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?", text):
        return f"{float(text):.3f}"
    return text or "–"


def _themed(spec: Spec) -> Spec:
    """Add THEME to the plot's own config, and leave the background to the page."""
    config = copy.deepcopy(spec.get("config", {}))
    for part, colours in THEME.items():
        config[part] = {**config.get(part, {}), **colours}
    return {**spec, "config": config, "background": None}


def narrowed(spec: Spec) -> Spec:
    """Change a plot so that it fits a screen of 390 px: legend on top, panels below each other."""
    spec = copy.deepcopy(spec)
    config = spec.setdefault("config", {})
    config["legend"] = {**config.get("legend", {}), "orient": "top", "columns": 1}
    facet = spec.get("facet", {})
    if "column" in facet:  # one panel per model, or per revision
        spec["facet"], spec["columns"] = facet["column"], 1
    inner = spec.get("spec", spec)
    if isinstance(width := inner.get("width"), (int, float)):
        small = width < 200  # panels of one class each: two per line
        inner["width"] = 115 if small else 250
        if "columns" in spec:
            spec["columns"] = 2 if small else 1
    elif width == {"step": 46}:  # the cells of confusion matrices
        inner["width"] = inner["height"] = {"step": 36}
    if isinstance(height := inner.get("height"), Mapping) and "layer" in spec:
        inner["width"] = 190  # next to the names of the rows
        inner["height"] = {"step": max(20, height["step"])}
    shortened: Spec = _with_short_labels(spec)
    return shortened


# Breaks a label into lines of at most 17 signs.
_LINES = "split(replace(datum.label, /(.{1,17})( |$)/g, '$1\\n'), '\\n')"


def _with_short_labels(part: Any) -> Any:
    """Break long names of rows into lines, wherever an axis has them."""
    if isinstance(part, list):
        return [_with_short_labels(one) for one in part]
    if not isinstance(part, dict):
        return part
    changed = {key: _with_short_labels(value) for key, value in part.items()}
    if "labelLimit" in changed:
        changed |= {"labelLimit": 130, "labelExpr": _LINES, "labelFontSize": 11}
    return changed


def _follow_the_page(svg: str, name: str, title: str) -> str:
    """Prepare an SVG for the page: its colours as variables, ids of its own, one name for all.

    Vega describes each mark to screen readers; the caption and the table say it in fewer words.
    """
    svg = re.sub(r' (aria-[a-z]+|role)="[^"]*"', "", svg)
    svg = re.sub(r'(id="|url\(#)(clip|gradient)', rf"\1{name}-\2", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(f'"{colour}"', f'"var({variable})"')
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="Plot: {label}" ', 1)
