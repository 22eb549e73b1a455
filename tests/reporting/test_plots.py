"""The plots of the report: colours of the page, narrow screens, tables."""

import json
import re
from typing import Any

import pytest

from lesions.reporting import plots
from lesions.reporting.plot_templates import MODELS, templates

CURVE = [
    {"model": model, "epoch": str(n), "best": "0", "val_loss": f"{1 / n}", "rev": "workspace"}
    for model in ("A & B", "C")
    for n in range(1, 41)
]


def filled(name: str, values: list[dict[str, Any]], x: str, y: str, title: str) -> dict[str, Any]:
    """Fill a template as DVC does."""
    text = json.dumps(templates()[name]).replace('"<DVC_METRIC_DATA>"', json.dumps(values))
    for anchor, value in {"X": x, "Y": y, "X_LABEL": x, "Y_LABEL": y, "TITLE": title}.items():
        text = text.replace(f"<DVC_METRIC_{anchor}>", value)
    spec: dict[str, Any] = json.loads(text)
    return spec


@pytest.fixture(scope="module")
def drawn() -> plots.Plot:
    values = [{**row, "field": "val_loss"} for row in CURVE]
    spec = filled("learning_curve", values, "epoch", "val_loss", "Loss <of> two")
    return plots._draw("plot-3", spec, values, "training")


def test_colours_are_those_of_the_page(drawn: plots.Plot) -> None:
    for svg in (drawn.wide, drawn.narrow):
        for variable in ("--ink", "--line", f"--model-{MODELS[0][1:]}", f"--model-{MODELS[1][1:]}"):
            assert f"var({variable})" in svg
        assert not re.search(r'(fill|stroke)="(#000000|#000|black|white|#fff)"', svg)
        assert svg.startswith('<svg role="img" aria-label="Plot: Loss &lt;of> two"')
        assert svg.count("aria-") == 1


def test_ids_differ_between_plots_and_widths(drawn: plots.Plot) -> None:
    ids = re.findall(r'id="([^"]+)"', drawn.wide + drawn.narrow)
    assert len(ids) == len(set(ids))
    assert all(one.startswith("plot-3-") for one in ids)


def test_the_narrow_variant_fits_a_phone(drawn: plots.Plot) -> None:
    width = re.search(r' width="([\d.]+)"', drawn.narrow)
    assert width
    assert float(width[1]) <= 330
    values = [
        {"model": "A", "dx": dx, "sensitivity": ".5", "false_positive_rate": ".5", "rev": "w"}
        for dx in "abcdefg"
    ]
    roc = filled("roc", values, "false_positive_rate", "sensitivity", "ROC")
    found = plots._draw("plot-1", roc, values, "curves")
    width = re.search(r' width="([\d.]+)"', found.narrow)
    assert width
    assert float(width[1]) <= 330
    # Seven panels have seven axes, not an eighth below an empty place.
    assert found.wide.count(">false_positive_rate<") == 7


def test_the_table_has_at_most_sixty_rows_without_what_dvc_adds(drawn: plots.Plot) -> None:
    assert drawn.columns == ["model", "epoch", "best", "val_loss"]
    assert (drawn.step, len(drawn.rows)) == (2, 40)
    assert drawn.rows[1] == ("A & B", "3", "0", "0.333")


def test_photos_are_counted_by_confidence() -> None:
    rows = [
        {"image_id": "a", "actual": "x", "predicted": "x", "confidence": "0.95"},
        {"image_id": "b", "actual": "x", "predicted": "y", "confidence": "1.0"},
    ]
    found = plots._by_confidence(rows)
    assert len(found) == 10
    assert found[-1] == {"confidence": "0.9 to 1.0", "photos": "2", "wrong": "1"}
    assert sum(int(row["photos"]) for row in found) == 2


def test_two_epochs_are_marked_by_whole_numbers() -> None:
    values = [row for row in CURVE if row["epoch"] in ("1", "2")]
    spec = filled("learning_curve", values, "epoch", "val_loss", "Loss")
    svg = plots._draw("plot-1", spec, values, "training").wide
    assert re.findall(r">(1\.0|1\.5|2\.0)</text>", svg) == []
