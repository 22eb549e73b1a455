"""The command line `lesions`: what people type besides make and dvc.

Modules that need torch are imported by the commands that use them, after their arguments have been
checked, so that an error comes at once.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import pandas as pd
import typer

from lesions.common import layout
from lesions.common.artifacts import (
    atomic_write,
    check_file,
    note_file,
    same_file,
    write_csv,
    write_text,
)
from lesions.common.errors import LesionsError, run_cli
from lesions.common.names import count_of, escape, for_spreadsheet, safe_text
from lesions.common.params import Decision, NetworkSpec, Views, load_params
from lesions.common.progress import progress
from lesions.dataset.audit import LEFT_OUT
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import read_pairs, read_table
from lesions.scoring.guards import MIN_CASES
from lesions.serving.arguments import find_model, find_photos
from lesions.serving.outputs import check_heatmaps, check_output, heatmap_files, write_heatmap

if TYPE_CHECKING:
    from lesions.scoring.operating_points import OperatingPoint
    from lesions.serving.predictor import Prediction, Predictor

FLAGS = ("low_confidence", "out_of_distribution")
Model = Annotated[
    str,
    typer.Option(help="A network trained here, such as mobilenetv2, or the path of a model file."),
]
Rule = Annotated[
    Decision | None,
    typer.Option(help="Which class to predict; by default as params.yaml here says."),
]
ViewsOption = Annotated[
    int | None,
    typer.Option(min=1, max=4, help="1, or 4 to average mirrored photos; default as --decision."),
]


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders or patterns.")],
    model: Model = "mobilenetv2",
    csv: Annotated[
        Path | None,
        typer.Option(help="Write one row per photo to this file; - is standard output."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per photo.")
    ] = False,
    heatmap: Annotated[Path | None, typer.Option(help="Write heat maps to this folder.")] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            help="Say whom to refer: by the threshold that finds .8, .9 or .95 of --group."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="The group that --sensitivity is about; by default the last one."),
    ] = None,
    decision: Rule = None,
    views: ViewsOption = None,
) -> None:
    """Predict the classes of PHOTOS, with calibrated probabilities. Not a medical device.

    A flag marks low confidence (below that of 95 % of the validation photos), or a photo out of
    distribution (farther from the training photos than 95 % of the validation photos).
    """
    paths, unreadable = list_photos(photos)
    to_stdout = csv == Path("-")
    if to_stdout and as_json:
        raise LesionsError("--csv -: --json prints to standard output already. Choose one.")
    if csv is not None and not to_stdout:
        check_output(csv, paths)
        if heatmap is not None and csv.absolute().is_relative_to(heatmap.absolute()):
            raise LesionsError(f"{csv}: is in the folder of the heat maps. Name another file.")
    heatmaps = {} if heatmap is None else heatmap_files(heatmap, paths)
    path = find_model(model)
    from lesions.serving.predictor import Predictor

    predictor = Predictor(path, "auto", *rule(decision, views))
    if heatmaps:
        check_heatmaps(predictor)
    dataset = predictor.classifier.card.dataset
    point = None if sensitivity is None else find_point(predictor, group, sensitivity)
    refer = ["refer"] if point else []
    columns = ["photo", "predicted", *dataset.sums, *refer, *FLAGS, *dataset.classes]
    rows: list[dict[str, Any]] = []
    with (
        nullcontext() if csv is None or to_stdout else atomic_write(csv) as table,
        progress(len(paths), "photos", "predict") as bar,
    ):
        if table:
            table.touch()  # a file that cannot be written is refused now, not at the end
        for result in predictor.predict_files(paths):
            bar.update()
            if result.prediction is None:
                bar.clear()  # otherwise the line would start in the bar's line
                unreadable.append(result.error)
                print(f"error: {safe_text(result.error)}", file=sys.stderr)
                continue
            row = _as_row(result.path, result.prediction, dataset)
            if point:
                row["refer"] = result.prediction.reaches(point)
            rows.append(row)
            if as_json:
                bar.clear()
                print(json.dumps(_nested(row, dataset), ensure_ascii=False), flush=True)
            elif csv is None:
                bar.clear()
                if len(rows) == 1:
                    print(_header(dataset, point is not None))
                print(_as_line(row, dataset), flush=True)
            if result.path in heatmaps:
                write_heatmap(heatmaps[result.path], predictor, result)
        if csv is not None:
            shown = pd.DataFrame(rows, columns=columns)
            shown.to_csv(table or sys.stdout, index=False, lineterminator="\n")
    if csv is not None and table is not None:
        note_file(csv)
    if rows and not as_json and not to_stdout:
        print(_summary(rows, point))
    if unreadable:
        raise LesionsError(
            f"{count_of(len(unreadable), 'input')} could not be read; "
            f"{count_of(len(rows), 'photo')} predicted."
        )


def list_photos(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Find the photos that arguments name; say on stderr what is left out or cannot be read.

    Returns:
        The photos, and the folders that cannot be read, each with the reason.
    """
    paths, left_out, unreadable = find_photos(arguments)
    for problem in unreadable:
        print(f"error: {safe_text(problem)}", file=sys.stderr)
    if left_out:
        names = ", ".join(escape(path.name) for path in left_out[:3])
        more = " ..." if len(left_out) > 3 else ""
        files = count_of(len(left_out), "other file")
        print(f"left out {files}, not photos: {names}{more}", file=sys.stderr)
    return paths, unreadable


def rule(decision: Decision | None, views: int | None) -> tuple[Decision, Views]:
    """Choose decision and views: as asked for, or as params.yaml says, or as it is published.

    Raises:
        LesionsError: another number of views than 1 or 4.
    """
    if views not in (None, *get_args(Views)):
        raise LesionsError(f"--views {views}: must be 1 or 4.")
    params = load_params() if layout.PARAMS.exists() else None
    return (
        decision or (params.decision if params else "most-probable"),
        cast(Views, views) or (params.views if params else 1),
    )


def find_point(predictor: "Predictor", group: str | None, sensitivity: float) -> "OperatingPoint":
    """Find an operating point in the model card.

    Raises:
        LesionsError: the card does not have it.
    """
    title, fitted = predictor.classifier.card.network.title, predictor.fitted
    if not fitted.cases:
        raise LesionsError(f"--sensitivity: {title} knows no groups to be found.")
    if group is not None and group not in fitted.cases:
        raise LesionsError(f"--group {group}: {title} knows {', '.join(fitted.cases)}.")
    chosen = group or list(fitted.cases)[-1]
    points = {
        point.sensitivity: point
        for point in fitted.operating_points
        if point.group == chosen and not point.assured
    }
    if not points:
        raise LesionsError(
            f"--sensitivity: {title} has no thresholds for {chosen}, because its validation had "
            f"{fitted.cases[chosen]} cases of it; {MIN_CASES} are needed."
        )
    if sensitivity not in points:
        known = ", ".join(f"{point:g}" for point in points)
        raise LesionsError(
            f"--sensitivity {sensitivity:g}: {title} has thresholds for {chosen} with "
            f"sensitivities {known}."
        )
    return points[sensitivity]


def _as_row(path: Path, prediction: "Prediction", dataset: Description) -> dict[str, Any]:
    """Lay out a prediction as one row of the CSV file."""
    return {
        "photo": for_spreadsheet(path),
        "predicted": dataset.classes[prediction.predicted],
        **{group: round(prediction.scores[group], 6) for group in dataset.sums},
        "low_confidence": prediction.low_confidence,
        "out_of_distribution": prediction.out_of_distribution,
        **dict(zip(dataset.classes, prediction.probabilities.round(6).tolist(), strict=True)),
    }


def _nested(row: dict[str, Any], dataset: Description) -> dict[str, Any]:
    """Lay out a row as a JSON object, with the probabilities in an object of their own."""
    rest = {key: value for key, value in row.items() if key not in dataset.classes}
    return {**rest, "probabilities": {code: row[code] for code in dataset.classes}}


def _header(dataset: Description, refer: bool) -> str:
    """Name the columns of the lines that follow."""
    names = [*("predicted", "next", "next")[: len(dataset.classes)]]
    names = [name.ljust(_width(dataset)) for name in names]
    names += [group.ljust(5) for group in dataset.sums]
    return "  ".join([*names, *(["refer"] if refer else []), "flags", "photo"])


def _width(dataset: Description) -> int:
    """Compute the width of a class and its probability."""
    return max(len("predicted"), max(map(len, dataset.classes)) + 7)


def _as_line(row: dict[str, Any], dataset: Description) -> str:
    """Lay out a row under `_header`: predicted class, the next two, groups, flags, the file.

    The predicted class comes first, even if the decision `balanced` prefers a less probable one.
    """
    longest = max(map(len, dataset.classes))
    others = [code for code in dataset.classes if code != row["predicted"]]
    best = [row["predicted"], *sorted(others, key=lambda code: -row[code])][:3]
    parts = [f"{code:{longest}}  {row[code]:.3f}".ljust(_width(dataset)) for code in best]
    parts += [f"{row[group]:.3f}".ljust(len(group)) for group in dataset.sums]
    parts += [("refer" if row["refer"] else "-").ljust(5)] if "refer" in row else []
    flags = "".join(flag[0].upper() for flag in FLAGS if row[flag])
    return "  ".join([*parts, f"{flags or '-':5}", row["photo"]])


def _summary(rows: Sequence[dict[str, Any]], point: "OperatingPoint | None") -> str:
    """Count the predicted classes, the photos to refer and the flags."""
    counts = pd.Series([row["predicted"] for row in rows]).value_counts()
    found = ", ".join(f"{code} {count}" for code, count in counts.items())
    lines = [f"{count_of(len(rows), 'photo')}: {found}"]
    if point:
        refer = sum(row["refer"] for row in rows)
        lines.append(
            f"{refer} of {len(rows)} refer: {point.group} at or above the threshold of "
            f"{point.threshold:.3f}, which finds {point.sensitivity:.2f} in validation"
        )
    flagged = [
        f"{flag[0].upper()} {flag.replace('_', ' ')} ({n})"
        for flag in FLAGS
        if (n := sum(row[flag] for row in rows))
    ]
    return "\n".join([*lines, *([f"flags: {', '.join(flagged)}"] if flagged else [])])


def export(
    model: Model = "mobilenetv2",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default next to the model.")
    ] = None,
    int8: Annotated[
        bool, typer.Option(help="Also write 8-bit integers, and compare both.")
    ] = False,
    decision: Rule = None,
) -> None:
    """Write a model as ONNX, with normalisation inside, and compare it with torch."""
    source = find_model(model)
    target = out or source.with_suffix(".onnx")
    if target.suffix != ".onnx":
        raise LesionsError(f"{target}: an ONNX file ends in .onnx. Name another --out.")
    small = target.with_suffix(".int8.onnx")
    for file in (target, small) if int8 else (target,):
        check_file(file, [source])
    chosen, _ = rule(decision, None)
    from lesions.serving.onnx_export import export_int8, export_onnx

    print(export_onnx(source, target, chosen))
    note_file(target)
    if int8:
        print(export_int8(source, target, small, chosen))
        note_file(small)


def demo(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models, as for predict; by default all in params.yaml."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    decision: Rule = None,
    views: ViewsOption = None,
) -> None:
    """Serve a page, on this computer only, that shows each of MODELS' predictions for a photo."""
    try:
        import uvicorn

        from lesions.serving.demo import application
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed. `make demo`, or pip install -c constraints.txt "
            "-e '.[demo]'"
        ) from None
    names = models or list(load_params().networks)
    paths = [find_model(name) for name in names]
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise LesionsError(f"port {port}: {error.strerror}. Choose another: --port.") from None
        listening.listen()  # who opens the address early waits, and is not refused
        print(f"loading {', '.join(map(str, paths))} ...", file=sys.stderr, flush=True)
        page = application(paths, *rule(decision, views))
        print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        # Ctrl-C waits at most a second for answers under way.
        config = uvicorn.Config(page, log_level="critical", timeout_graceful_shutdown=1)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print("the demo has ended", file=sys.stderr, flush=True)
            os._exit(130)  # at once, without waiting for predictions under way


def duplicates(
    folder: Annotated[
        Path, typer.Argument(help="Photos, and perhaps their metadata table: data/raw for example.")
    ],
    model: Annotated[
        str,
        typer.Option(help="imagenet, a network trained here, or the path of a model file."),
    ] = "imagenet",
    least: Annotated[
        int, typer.Option(min=4, help="The least number of matching keypoints of a pair.")
    ] = 9,
    csv: Annotated[
        Path | None, typer.Option(help="Write the pairs to this new file, for `same_lesion`.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a page with the photos of each pair to this file.")
    ] = None,
) -> None:
    """Find photos in FOLDER that show one lesion under different ids, the most certain first.

    With a metadata table, only pairs of different lesion_ids are listed.
    """
    try:
        from lesions.curation import duplicates as search
        from lesions.curation import duplicates_report
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed: pip install -c constraints.txt -e '.[duplicates]'"
        ) from None
    from lesions.sources.folders import as_metadata, find_tables, read_folder

    # What can be refused is refused before the long work.
    if not folder.is_dir():
        raise LesionsError(f"{folder}: is not a folder. Name one with photos.")
    found_paths, unreadable = list_photos([str(folder)])
    paths = duplicates_report.drop_copies(found_paths)
    if copies := len(found_paths) - len(paths):
        print(f"left out {copies} copies with the same name and content", file=sys.stderr)
    params = load_params()
    dataset = load_description(params.dataset)
    has_table = bool(find_tables(folder, dataset.columns))
    lesions = as_metadata(read_folder(folder, dataset.columns), dataset) if has_table else None
    known = read_pairs(Path(params.same_lesion))
    for file in filter(None, (csv, sheet)):
        check_output(file, paths)
    if csv is not None and sheet is not None and same_file(csv, sheet):
        raise LesionsError(f"{csv}: is the file of the pairs and of the page. Name two files.")
    network = search.load_network(model if model == search.IMAGENET else str(find_model(model)))

    # Read and describe the photos, then compare those that look alike.
    found = search.describe(paths, *network)
    for problem in found.errors:
        print(f"error: {safe_text(problem)}", file=sys.stderr)
    if len(found.paths) < 2:
        raise LesionsError(f"{folder}: {len(found.paths)} photos could be read; two are needed.")
    pairs = search.compare(found.local, search.most_similar(found.features))

    # List the pairs.
    photos = duplicates_report.name_photos(found.paths, lesions)
    table = duplicates_report.as_table(pairs, photos, least, known)
    for row in table.itertuples():
        listed = "  listed already" if row.known else ""
        print(f"{row.image_id}  {row.same_lesion_as}  {row.points} points{listed}")
    print(duplicates_report.summary(pairs, photos, least))
    if csv is not None:
        write_csv(csv, duplicates_report.with_known(table, known, photos))
        note_file(csv)
    if sheet is not None:
        write_text(sheet, duplicates_report.build_sheet(table, photos, csv))
        note_file(sheet)
    if unreadable := [*unreadable, *found.errors]:
        raise LesionsError(
            f"{count_of(len(unreadable), 'input')} could not be read; the rest are compared."
        )


def new(
    folder: Annotated[Path, typer.Argument(help="Photos: a folder per class, or with a table.")],
    name: Annotated[
        str | None, typer.Option(help="Write datasets/NAME.yaml; by default the folder's name.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(help="Only look; with `columns` and `groups` of that file, if it exists."),
    ] = False,
) -> None:
    """Look at a FOLDER of photos, describe it in datasets/, and say what to type."""
    from lesions.curation import new_dataset

    params = load_params()
    if not folder.is_dir():
        raise LesionsError(f"{folder}: is not a folder. Name one with photos.")
    path = new_dataset.path_of(folder, name)
    if path.exists() and not check:
        raise LesionsError(f"{path}: exists. Choose another --name, or look only: --check.")
    known = load_description(str(path)) if path.exists() else None
    proposal = new_dataset.propose(folder, params, known.columns if known else {})
    print(new_dataset.report(proposal, params, has_groups=bool(known and known.groups)))
    if check:
        return
    new_dataset.write_description(path, proposal)
    print(f"\nwritten: {path}. Read it, and fill in what is not stated.", flush=True)
    if proposal.photos.unreadable or proposal.problem:
        return
    from lesions.curation.forecast import forecast

    print("measuring this machine ...", file=sys.stderr, flush=True)
    changes = {"dataset": str(path), "source": str(folder.resolve()), "holdout": proposal.holdout}
    quick = {"image_size": 96, "epochs": 4, "balance": "sqrt"}
    for title, more in (("A quick look", quick), ("The whole recipe", {})):
        chosen = params.model_copy(update={**changes, **more})
        print(f"\n{title}:\n  {new_dataset.command(path, proposal, more)}")
        print(forecast(chosen, load_description(str(path))), flush=True)


def add_network(
    name: Annotated[str, typer.Argument(help="As torchvision.models.list_models() names it.")],
    title: Annotated[
        str | None, typer.Option(help="For tables and plots; by default NAME.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="The submodule of the last feature map; found if left out.")
    ] = None,
    last_layer: Annotated[
        bool,
        typer.Option(
            "--last-layer",
            help="Fit the last layer alone, as NAME-last-layer: a baseline for training the rest.",
        ),
    ] = False,
) -> None:
    """Add a network of torchvision to params.yaml and dvc.yaml; `dvc repro` then trains it."""
    from lesions.curation import network_table

    params = load_params()
    key = f"{name.replace('_', '-')}-last-layer" if last_layer else name
    if key in params.networks:
        raise LesionsError(f"network {key}: {layout.PARAMS} has it already.")
    from lesions.networks.architectures import find_feature_map

    found = features or find_feature_map(name, params.image_size)
    spec = NetworkSpec(
        title=title or (f"Last layer of {name}" if last_layer else name),
        torchvision=name,
        features=found,
        fit="last-layer" if last_layer else "all",
    )
    network_table.add_network(key, spec)
    print(f"{key}: its last feature map is {found}. `dvc repro` trains and evaluates it.")


def remove_network(
    name: Annotated[str, typer.Argument(help="As params.yaml names it.")],
) -> None:
    """Take a network out of params.yaml and dvc.yaml; its results go with the next `dvc repro`."""
    from lesions.curation import network_table

    network_table.remove_network(name)
    print(f"{name}: taken out of {layout.PARAMS} and {layout.PIPELINE}.")


def compare(
    model: Annotated[
        str | None, typer.Argument(help="Show only this network; the best of it comes first.")
    ] = None,
) -> None:
    """List the experiments: what each one changed, and its weighted F1 on validation."""
    from lesions.reporting.experiments import list_experiments

    params = load_params()
    names = [model] if model else list(params.networks)
    print(list_experiments({name: params.network(name).title for name in names}))


def report() -> None:
    """Write report.html, report.json and photos.html to dvc_plots/; all open offline."""
    from lesions.networks.model_file import read_card
    from lesions.reporting.cases import list_cases
    from lesions.reporting.report import build_report
    from lesions.reporting.results import read_csv, read_results

    params = load_params()
    dataset = load_description(params.dataset)
    models = list(params.networks)
    results = read_results(models, list(params.external_tests), dataset)
    views = results.parameters.get("views", 1)
    cases = list_cases(
        dataset,
        {name: read_card(layout.model_file(name)) for name in models},
        read_table(layout.TEST_TABLE, "image_id", "lesion_id", "dx"),
        {name: read_csv(layout.predictions(name)) for name in models},
        views,
    )
    write_text(layout.PAGES / "report.json", results.as_json())
    write_text(layout.PAGES / "report.html", build_report(results, cases))
    print(layout.PAGES / "report.html")

    # The photo browser needs the features of all training photos, which takes longer.
    from lesions.dataset.photos import PhotoArray
    from lesions.networks import hardware
    from lesions.networks.model_file import load
    from lesions.reporting.browser import build_browser

    used = hardware.set_up(params.device, "fp32", params.deterministic)
    audit = read_csv(layout.AUDIT)
    scores = {
        name: json.loads(layout.val_metrics(name).read_text())["weighted_f1"] for name in models
    }
    browser = build_browser(
        {name: load(layout.model_file(name), used, name) for name in models},
        max(scores, key=lambda name: scores[name]),
        dataset,
        PhotoArray(layout.RESIZED),
        layout.RAW_IMAGES,
        read_table(layout.TRAIN_TABLE, "image_id", "lesion_id", "dx"),
        cases,
        views,
        list(audit.loc[audit["finding"] == LEFT_OUT, "image_id"]),
    )
    write_text(layout.PAGES / "photos.html", browser)
    print(layout.PAGES / "photos.html")


def forecast(
    source: Annotated[str, typer.Argument(help="As the parameter `source`.")],
) -> None:
    """Say what a run on SOURCE does, and how long each stage takes on this machine."""
    params = load_params().model_copy(update={"source": source})
    dataset = load_description(params.dataset)
    from lesions.curation import forecast as measure

    print("measuring this machine ...", flush=True)
    print(measure.forecast(params, dataset), flush=True)


COMMANDS = (
    *(predict, export, demo, report, compare, new, duplicates, forecast),
    *(add_network, remove_network),
)


def main() -> None:
    """Run the command line `lesions`."""
    run_cli(*COMMANDS)


if __name__ == "__main__":
    main()
