"""The templates of DVC's plots: Vega-Lite specifications for .dvc/plots, made from shared parts.

`make templates` writes them; a test compares the files with this module.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesions.common.artifacts import write_text

FOLDER = Path(".dvc/plots")
Spec = dict[str, Any]

MODELS = ["#1b6ca8", "#c8553d", "#3a7d44", "#6a4c93", "#8a6d1d", "#4d4d4d"]  # one colour per model
WRONG = "#b23a48"  # the bar of wrong predictions
PAIRS = ["#4d4d4d", "#8a6d1d", "#6a4c93", "#3a7d44"]  # one colour per pair of models
X, Y = "<DVC_METRIC_X>", "<DVC_METRIC_Y>"
X_LABEL, Y_LABEL = "<DVC_METRIC_X_LABEL>", "<DVC_METRIC_Y_LABEL>"
UNIT = {"domain": [0, 1]}
# Several revisions, as in `dvc plots diff`, get a panel or a shape each; one revision gets none.
REVISIONS: list[Spec] = [
    {"joinaggregate": [{"op": "distinct", "field": "rev", "as": "revisions"}]},
    {"calculate": "datum.revisions > 1 ? datum.rev : ''", "as": "revision"},
]
# Without it, the last line of panels has an x axis below the place of a panel that is not there.
OWN_AXES: Spec = {"resolve": {"axis": {"x": "independent"}}}
# Of epochs: two of them would be marked 1.0, 1.5 and 2.0.
WHOLE = {"tickMinStep": 1, "format": "d", "labelExpr": "datum.value % 1 ? '' : datum.label"}
DIAGONAL: Spec = {
    "data": {"values": [{"at": 0}, {"at": 1}]},
    "mark": {"type": "line", "color": "#999999", "strokeDash": [4, 4], "strokeWidth": 1},
    "encoding": {
        "x": {"field": "at", "type": "quantitative"},
        "y": {"field": "at", "type": "quantitative"},
    },
}


def template(caption: str, **parts: Any) -> Spec:
    """Start a template: data, title and caption, fonts; `parts` is the plot itself."""
    fonts = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": "<DVC_METRIC_DATA>"},
        "title": {
            "text": "<DVC_METRIC_TITLE>",
            "subtitle": caption,
            "anchor": "start",
            "fontSize": 16,
            "subtitleFontSize": 12,
            "subtitleColor": "#555555",
            "offset": 14,
        },
        "config": {
            "axis": fonts,
            "legend": fonts,
            "header": {"labelFontSize": 13, "labelFontWeight": "bold", "title": None},
            "view": {"continuousWidth": 320, "continuousHeight": 260},
        },
        **parts,
    }


def nominal(field: str, **more: Any) -> Spec:
    """Encode names in the order in which they come."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def number(field: str, title: str | None = None, **more: Any) -> Spec:
    """Encode numbers."""
    shown = {} if title is None else {"title": title}
    return {"field": field, "type": "quantitative", **shown, **more}


def colour(field: str = "model", title: str = "model", colours: Sequence[str] = MODELS) -> Spec:
    """Give each model, or pair of models, its colour."""
    return nominal(field, scale={"range": list(colours)}) | {"title": title}


def by_revision(channel: str) -> Spec:
    """Mark revisions by a channel, with a legend only if there are several."""
    legend = {
        "title": None,
        "labelExpr": f"length(domain('{channel}')) > 1 ? datum.label : ''",
        "symbolOpacity": {"expr": f"length(domain('{channel}')) > 1 ? 1 : 0"},
    }
    return {channel: nominal("rev", legend=legend)}


def known(field: str) -> list[Spec]:
    """Keep the rows that have a value."""
    return [{"filter": f"isValid(datum['{field}']) && datum['{field}'] !== ''"}]


def interval_layers(
    y: str, colours: Spec, tick: str | None, tooltip: Sequence[str], domain: Spec | None = UNIT
) -> list[Spec]:
    """Draw a point and its interval for each row, and perhaps a black tick.

    Args:
        y: the field that names the row.
        colours: the encoding of the colour.
        tick: the field that the tick is drawn at.
        tooltip: the fields that the tooltip shows.
        domain: of the x axis; None for what the data need.
    """
    scale = {} if domain is None else {"scale": domain}
    rows = {
        "y": nominal(y, axis={"labelLimit": 300, "grid": True}),
        "yOffset": {"field": "row", "sort": None},
    }
    shape = by_revision("shape")
    layers: list[Spec] = [
        {  # an invisible point, so that a row without numbers has its place
            "mark": {"type": "point", "filled": True, "size": 0, "opacity": 1},
            "encoding": {"x": {"value": 0}, **rows, "color": colours, **shape},
        },
        {
            "transform": known("low"),
            "mark": {"type": "rule", "strokeWidth": 2.5},
            "encoding": {
                "x": number("low", X_LABEL, **scale),
                "x2": {"field": "high"},
                **rows,
                "color": colours,
            },
        },
        {
            "transform": known(X),
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {
                "x": number(X, X_LABEL, **scale),
                **rows,
                "color": colours,
                **shape,
                "tooltip": [{"field": field} for field in tooltip],
            },
        },
    ]
    if tick is not None:
        layers.append(
            {
                "transform": known(tick),
                "mark": {"type": "tick", "thickness": 2, "color": "#000000", "size": 11},
                "encoding": {"x": number(tick), **rows},
            }
        )
    return layers


def row_of(*fields: str) -> Spec:
    """Name the place of a row within its group: one per model and revision."""
    return {"calculate": " + ' ' + ".join(f"datum.{field}" for field in fields), "as": "row"}


def lines(y_scale: Spec, x_scale: Spec | None = None, **more: Any) -> Spec:
    """Draw one line per model and revision."""
    width = more.pop("width", 2)
    x = {} if x_scale is None else {"scale": x_scale}
    return {
        "mark": {"type": "line", "strokeWidth": width, **more.pop("mark", {})},
        "encoding": {
            "x": number(X, X_LABEL, **x),
            "y": number(Y, Y_LABEL, scale=y_scale),
            **more.pop("encoding", {}),
            "color": colour(),
            **by_revision("strokeDash"),
        },
        **more,
    }


def panels(field: str, columns: int, size: tuple[int, int], layer: list[Spec], **more: Any) -> Spec:
    """Draw one panel per value of a field."""
    return {
        "facet": nominal(field, **more),
        "columns": columns,
        "spec": {"width": size[0], "height": size[1], "layer": layer},
    }


def confusion() -> Spec:
    """Draw confusion matrices: one per model, and below each other per revision."""
    text_colour = {
        "condition": {"test": "toNumber(datum.share) > 0.55", "value": "white"},
        "value": "#222222",
    }
    index: Spec = {"window": [{"op": "row_number", "as": "index"}]}
    percent = "datum.photos == 0 ? '' : format(toNumber(datum.share), '.0%')"
    return template(
        "Each cell: share of the photos of that actual class, and their number. The framed "
        "diagonal is correct.",
        transform=[
            *REVISIONS,
            index,
            {"calculate": percent, "as": "percent"},
            {"calculate": "datum.photos == 0 ? '' : datum.photos", "as": "count"},
        ],
        facet={
            "column": nominal("model") | {"sort": {"field": "index", "op": "min"}},
            "row": nominal("revision"),
        },
        spec={
            "width": {"step": 46},
            "height": {"step": 46},
            "encoding": {
                "x": nominal(X, axis={"labelAngle": 0, "orient": "bottom"})
                | {"title": "predicted"},
                "y": nominal(Y) | {"title": "actual"},
            },
            "layer": [
                {
                    "mark": {"type": "rect"},
                    "encoding": {
                        "color": number(
                            "share",
                            "share",
                            scale={**UNIT, "range": ["#ffffff", "#08519c"], "interpolate": "rgb"},
                            legend={"format": ".0%"},
                        )
                    },
                },
                {
                    "transform": [{"filter": "datum.actual == datum.predicted"}],
                    "mark": {"type": "rect", "fill": None, "stroke": "#222222", "strokeWidth": 1.2},
                },
                *(
                    {
                        "mark": {"type": "text", "dy": dy, "fontSize": size},
                        "encoding": {"text": {"field": field}, "color": text_colour},
                    }
                    for field, dy, size in (("percent", -6, 12), ("count", 9, 11))
                ),
            ],
        },
    )


def net_benefit() -> Spec:
    """Draw decision curves: one panel per group of classes."""
    axes = {
        "x": number(X, X_LABEL),
        "y": number(Y, Y_LABEL, scale={"domainMin": -0.05}),
    }
    all_or_none = "datum.strategy !== 'model'"
    at = "toNumber(datum.risk) === (datum.strategy === 'refer all' ? 0.01 : 0.6)"

    def choose(all_: str, none: str) -> Spec:
        return {"expr": f"datum.strategy === 'refer all' ? {all_} : {none}"}

    layer: list[Spec] = [
        {
            "transform": [{"filter": all_or_none}],
            "mark": {"type": "line", "color": "#888888", "strokeWidth": 1.5, "clip": True},
            "encoding": {**axes, "detail": {"field": "strategy"}},
        },
        {
            "transform": [{"filter": f"{all_or_none} && {at}"}],
            "mark": {
                "type": "text",
                "color": "#555555",
                "align": choose("'left'", "'right'"),
                "dx": choose("8", "0"),
                "dy": choose("4", "-7"),
                "fontSize": 12,
            },
            "encoding": {**axes, "text": {"field": "strategy"}},
        },
        {
            "transform": [{"filter": "datum.strategy === 'model'"}, *known("low")],
            "mark": {"type": "area", "opacity": 0.15, "clip": True},
            "encoding": {
                **axes,
                "y": number("low", Y_LABEL, scale={"domainMin": -0.05}),
                "y2": {"field": "high"},
                "color": colour(),
                "detail": {"field": "rev"},
            },
        },
        lines(
            {"domainMin": -0.05},
            transform=[{"filter": "datum.strategy === 'model'"}],
            mark={"clip": True},
        ),
    ]
    return template(
        "A model is of use at a risk if its line is above both grey ones. Net benefit: share "
        "rightly referred, minus the wrongly referred times the odds of the risk. Band: 95 % "
        "interval.",
        **panels("group", 2, (360, 260), layer),
    )


def learning_curve() -> Spec:
    """Draw a value after each epoch, on training and on validation photos."""
    axes = {
        "x": number(X, X_LABEL, axis=WHOLE),
        "y": number(Y, Y_LABEL, scale={"zero": False}),
    }
    which = "indexof(datum.field, 'train') == 0 ? 'training' : 'validation'"
    return template(
        "One colour per model. Solid line: validation photos. Dashed line: training photos. Point: "
        "the epoch whose weights are used.",
        transform=[*REVISIONS, {"calculate": which, "as": "photos"}],
        facet={"column": nominal("revision")},
        spec={
            "width": 420,
            "height": 260,
            "layer": [
                {
                    "mark": {"type": "line", "strokeWidth": 2},
                    "encoding": {**axes, "color": colour(), "strokeDash": _kinds()},
                },
                {
                    **_used_epoch(),
                    "encoding": {
                        **axes,
                        "color": colour(),
                        "tooltip": [{"field": "model"}, {"field": X}, {"field": Y}],
                    },
                },
            ],
        },
    )


def epochs() -> Spec:
    """Draw the weighted F1 of one model after each epoch."""
    kind = "datum.kind == 'val_weighted_f1' ? 'validation' : 'training'"
    return template(
        "Weighted F1 after each epoch. Solid line: validation photos. Dashed line: training "
        "photos. Point: the epoch whose weights are used.",
        transform=[
            *REVISIONS,
            {"fold": ["val_weighted_f1", "train_weighted_f1"], "as": ["kind", "f1"]},
            {"calculate": kind, "as": "photos"},
            {"calculate": "toNumber(datum.f1)", "as": "f1"},
        ],
        facet={"column": nominal("revision")},
        spec={
            "width": 420,
            "height": 200,
            "encoding": {
                "x": number(X, X_LABEL, axis=WHOLE),
                "y": number("f1", "weighted F1"),
            },
            "layer": [
                {
                    "mark": {"type": "line", "strokeWidth": 2, "color": "#333333"},
                    "encoding": {"strokeDash": _kinds()},
                },
                _used_epoch("#333333"),
            ],
        },
    )


def _kinds() -> Spec:
    """Dash the line of the training photos."""
    scale = {"domain": ["validation", "training"], "range": [[1, 0], [5, 4]]}
    return {"field": "photos", "type": "nominal", "title": "photos", "scale": scale}


def _used_epoch(ink: str | None = None) -> Spec:
    """Draw a point at the epoch whose weights are used."""
    mark = {"type": "point", "filled": True, "size": 90, "opacity": 1}
    return {
        "transform": [{"filter": "toNumber(datum.best) == 1 && datum.photos == 'validation'"}],
        "mark": mark if ink is None else {**mark, "color": ink},
    }


def templates() -> dict[str, Spec]:
    """Make every template, by the name that dvc.yaml uses."""
    curve = {
        "transform": [
            {
                "calculate": "toNumber(datum.sensitivity) + toNumber(datum.false_positive_rate)",
                "as": "rank",
            }
        ]
    }
    ordered = lines(UNIT, UNIT, width=1.8, encoding={"order": number("rank")})
    shown = ("model", "rev", Y, X, "low", "high")
    calibration = {"calculate": "datum.calibration + ' calibration'", "as": "panel"}
    correct = "datum.actual == datum.predicted ? 'correct' : 'wrong'"
    return {
        "intervals": template(
            "Point: value on the test photos. Line: its 95 % interval. Black tick, if any: always "
            "predicting the most common class. No line or point: too few photos.",
            width=420,
            height={"step": 15},
            # Metrics of calibration, of which less is better, have no place on this axis.
            transform=[
                {"filter": "!test(/true/i, '' + datum.less_is_better)"},
                row_of("model", "rev"),
            ],
            layer=interval_layers(Y, colour(), "baseline", shown),
        ),
        "calibration": template(
            "Right probabilities have a slope of 1, an intercept of 0, and expect as many cases as "
            "were observed. Line: 95 % interval.",
            width=420,
            height={"step": 15},
            transform=[row_of("model", "rev")],
            layer=interval_layers(Y, colour(), None, shown, None),
        ),
        "decisions": template(
            "The same probabilities under both rules for the predicted class. Line: 95 % interval. "
            "The rule balanced finds more of the rare classes, and is less often right.",
            transform=[row_of("model", "rev")],
            facet={
                "row": nominal(
                    "decision",
                    header={
                        "labelAngle": 0,
                        "labelAlign": "left",
                        "labelOrient": "top",
                        "labelAnchor": "start",
                    },
                )
            },
            spec={
                "width": 420,
                "height": {"step": 15},
                "layer": interval_layers(Y, colour(), None, shown),
            },
        ),
        "differences": template(
            "First model minus second, on the same photos. Right of 0: the first is better. Line: "
            "paired interval, wider than 95 % because several metrics are compared. No line: the "
            "models differ on too few lesions.",
            width=420,
            height={"step": 18},
            transform=[
                {"calculate": "datum.first + ' \u2212 ' + datum.second", "as": "pair"},
                row_of("pair", "rev"),
                {"calculate": "datum.pair", "as": "model"},
            ],
            layer=[
                {
                    "mark": {"type": "rule", "color": "#000000", "strokeWidth": 1},
                    "encoding": {"x": {"datum": 0, "type": "quantitative"}},
                },
                *interval_layers(Y, colour("pair", "difference", PAIRS), None, shown, None),
            ],
        ),
        "operating_points": template(
            "Thresholds chosen on validation to find .80, .90 and .95 of a group (black tick), and "
            "what they find on the test photos. Line: 95 % interval. Assured: so low that it finds "
            "its aim on new photos with 95 % confidence.",
            width=420,
            height={"step": 15},
            transform=[
                {
                    "calculate": "datum.group + ', aim ' + format(toNumber(datum.aim), '.2f') + "
                    "(test(/true/i, '' + datum.assured) ? ', assured' : '')",
                    "as": "point",
                },
                row_of("model", "rev"),
            ],
            layer=interval_layers(
                "point",
                colour(),
                "aim",
                (
                    *("model", "rev", "point", "threshold", "sensitivity", "specificity"),
                    *("found", "cases", "false_alarms"),
                ),
            ),
        ),
        "confusion": confusion(),
        "net_benefit": net_benefit(),
        "confidence": template(
            "Test photos by the probability of the predicted class. A good model is wrong only "
            "where it is not confident.",
            transform=[*REVISIONS, {"calculate": correct, "as": "prediction"}],
            facet={"column": nominal("revision")},
            spec={
                "width": 420,
                "height": 200,
                "mark": "bar",
                "encoding": {
                    "x": number("confidence", "confidence", bin={"extent": [0, 1], "step": 0.1}),
                    "y": {
                        "aggregate": "count",
                        "type": "quantitative",
                        "title": "photos",
                        "axis": {"tickMinStep": 1},
                    },
                    "color": {
                        "field": "prediction",
                        "type": "nominal",
                        "title": "prediction",
                        "scale": {"domain": ["correct", "wrong"], "range": ["#9db4c0", WRONG]},
                    },
                },
            },
        ),
        "reliability": template(
            "On the grey diagonal, predictions are right as often as their confidence says. Below "
            "it they are overconfident.",
            transform=[calibration],
            **panels(
                "panel",
                2,
                (260, 260),
                [
                    DIAGONAL,
                    lines(
                        UNIT,
                        UNIT,
                        width=1.8,
                        mark={"point": {"size": 45}},
                        encoding={
                            "tooltip": [{"field": name} for name in ("model", X, Y, "photos")]
                        },
                    ),
                ],
            )
            | {"facet": nominal("panel") | {"sort": ["before calibration", "after calibration"]}},
        ),
        "roc": template(
            "One panel per class, against all others. The nearer to the upper left corner, the "
            "better; the grey diagonal is chance.",
            **curve,
            **panels("dx", 4, (170, 170), [DIAGONAL, ordered]),
            **OWN_AXES,
        ),
        "precision_recall": template(
            "One panel per class, against all others. The nearer to the upper right corner, the "
            "better.",
            **curve,
            **panels("dx", 4, (170, 170), [ordered]),
            **OWN_AXES,
        ),
        "selective": template(
            "How accurate the model is on the photos that it is surest of: the most confident "
            "ones, or those nearest to the training photos. A line that falls to the right means "
            "that the criterion knows the hard photos.",
            **panels("by", 2, (300, 240), [lines({"zero": False})]),
        ),
        "learning_curve": learning_curve(),
        "epochs": epochs(),
    }


def as_text(spec: Spec) -> str:
    """Write a template as it is stored: one line."""
    return json.dumps(spec, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all templates."""
    for name, spec in templates().items():
        write_text(FOLDER / f"{name}.json", as_text(spec))


if __name__ == "__main__":
    main()
