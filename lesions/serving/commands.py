"""The command line `lesions`: predict, export, demo and duplicates."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lesions.common.artifacts import atomic_write, write_csv, write_text
from lesions.common.errors import LesionsError, run_cli
from lesions.common.names import escape, for_spreadsheet, safe_text
from lesions.common.params import PATH, load_params
from lesions.common.progress import progress
from lesions.dataset.diagnoses import CODES
from lesions.dataset.metadata import read_metadata
from lesions.dataset.photos import ENDINGS
from lesions.networks.decision import Decision
from lesions.networks.operating_points import OperatingPoint, Target
from lesions.reporting.heatmaps import grad_cam, overlay
from lesions.serving.onnx_export import export_int8, export_onnx
from lesions.serving.predictor import (
    PhotoResult,
    Prediction,
    Predictor,
    find_model,
    find_photos,
)

COLUMNS = ["photo", "predicted", "malignant", "low_confidence", "out_of_distribution", *CODES]
SOFTWARE = "lesions predict"  # in the pictures that it writes
Model = Annotated[
    str,
    typer.Option(help="A network trained here, such as mobilenetv2, or the path of a model file."),
]
Rule = Annotated[
    Decision | None,
    typer.Option(help="Which diagnosis to predict; by default as params.yaml here says."),
]
Views = Annotated[
    int | None,
    typer.Option(min=1, max=4, help="1, or 4 to average mirrored photos; default as --decision."),
]


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders or patterns.")],
    model: Model = "mobilenetv2",
    csv: Annotated[Path | None, typer.Option(help="Write one row per photo to this file.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per photo.")
    ] = False,
    heatmap: Annotated[Path | None, typer.Option(help="Write heat maps to this folder.")] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            help="Say whom to refer: by the threshold that finds .8, .9 or .95 of --target."
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option(help="The lesions that --sensitivity is about.")
    ] = "malignant",
    decision: Rule = None,
    views: Views = None,
) -> None:
    """Predict the diagnoses of PHOTOS, with calibrated probabilities. Not a medical device.

    A flag marks low confidence (below that of 95 % of the validation photos), or a photo out of
    distribution (farther from the training photos than 95 % of the validation photos).
    """
    paths = list_photos(photos)
    if csv is not None:
        check_output(csv, paths, ",".join(COLUMNS[:3]))
        if heatmap is not None and csv.absolute().is_relative_to(heatmap.absolute()):
            raise LesionsError(f"{csv}: is in the folder of the heat maps. Name another file.")
    heatmaps = {} if heatmap is None else heatmap_files(heatmap, paths)
    predictor = Predictor(find_model(model), "auto", *rule(decision, views))
    point = None if sensitivity is None else find_point(predictor, target, sensitivity)
    columns = [*COLUMNS[:3], "refer", *COLUMNS[3:]] if point else COLUMNS
    rows: list[dict[str, Any]] = []
    with (
        nullcontext() if csv is None else atomic_write(csv) as table,
        progress(len(paths), "photos", "predict") as bar,
    ):
        if table:
            table.touch()  # a file that cannot be written is refused now, not at the end
        for result in predictor.predict_files(paths):
            bar.update()
            if result.prediction is None:
                bar.clear()  # otherwise the line would start in the bar's line
                print(f"error: {safe_text(result.error)}", file=sys.stderr)
                continue
            row = _as_row(result.path, result.prediction)
            if point:
                row["refer"] = result.prediction.reaches(point)
            rows.append(row)
            if as_json:
                bar.clear()
                print(json.dumps(_nested(row), ensure_ascii=False), flush=True)
            elif csv is None:
                bar.clear()
                print(_as_line(row), flush=True)
            if result.path in heatmaps:
                _write_heatmap(heatmaps[result.path], predictor, result)
        if table:
            shown = pd.DataFrame(rows, columns=columns)
            shown.to_csv(table, index=False, lineterminator="\n")
    if unreadable := len(paths) - len(rows):
        raise LesionsError(
            f"{unreadable} of {len(paths)} photos could not be read; the rest are predicted."
        )


def list_photos(arguments: Sequence[str]) -> list[Path]:
    """Find the photos that arguments name; say on stderr which other files are left out."""
    paths, left_out = find_photos(arguments)
    if left_out:
        names = ", ".join(escape(path.name) for path in left_out[:3])
        more = " ..." if len(left_out) > 3 else ""
        print(f"left out {len(left_out)} files that are not photos: {names}{more}", file=sys.stderr)
    return paths


def rule(decision: Decision | None, views: int | None) -> tuple[Decision, int]:
    """Choose decision and views: as asked for, or as params.yaml says, or as it is published.

    Raises:
        LesionsError: another number of views than 1 or 4.
    """
    if views not in (None, 1, 4):
        raise LesionsError(f"--views {views}: must be 1 or 4.")
    params = load_params() if PATH.exists() else None
    return (
        decision or (params.decision if params else "most-probable"),
        views or (params.views if params else 1),
    )


def find_point(predictor: Predictor, target: Target, sensitivity: float) -> OperatingPoint:
    """Find an operating point in the model card.

    Raises:
        LesionsError: the card does not have it.
    """
    card = predictor.classifier.card
    points = [point for point in card.operating_points if point.target == target]
    for point in points:
        if point.sensitivity == sensitivity:
            return point
    known = ", ".join(f"{point.sensitivity:g}" for point in points) or "none"
    raise LesionsError(
        f"--sensitivity {sensitivity:g}: {card.network.title} has thresholds for {target} lesions "
        f"with sensitivities {known}."
    )


def check_output(path: Path, photos: Sequence[Path], start: str) -> None:
    """Refuse to write to a photo, of those given or any file that ends like one, or to other files.

    Args:
        path: the file to write.
        photos: that are read.
        start: the first characters of a file of this kind, which may be replaced.

    Raises:
        LesionsError: names the file.
    """
    if path.suffix.lower() in ENDINGS:
        raise LesionsError(
            f"{path}: ends like a photo and would be overwritten. Did the shell expand a pattern? "
            "Name another file to write."
        )
    target = os.path.realpath(path)
    for photo in photos:
        same = path.exists() and photo.exists() and path.samefile(photo)
        if os.path.realpath(photo) == target or same:
            raise LesionsError(f"{path}: is one of the photos. Name another file.")
    if path.is_dir():
        raise LesionsError(f"{path}: is a folder. Give the name of a file.")
    ours = path.is_file() and path.read_bytes().startswith(start.encode())
    if path.exists() and not ours:
        raise LesionsError(
            f"{path}: exists, and is not a file that this command has written. Name another."
        )


def heatmap_files(folder: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """Choose the file of each photo's heat map, below `folder`, by the photo's own path.

    `..` becomes `%up`; a name that would be too long is shortened and gets a hash.

    Raises:
        LesionsError: a file would be written over a photo, through a link, or twice.
    """
    chosen: dict[Path, Path] = {}
    if folder.exists() and not folder.is_dir():
        raise LesionsError(f"{folder}: is not a folder. Name another --heatmap.")
    inputs = {os.path.realpath(photo) for photo in photos}
    targets: set[Path] = set()
    for photo in photos:
        parts = [part.replace("%", "%%") for part in photo.parts if part != photo.anchor]
        parts = ["%up" if part == ".." else _shortened(part) for part in parts]
        target = folder.joinpath(*parts[:-1], f"{parts[-1]}.png")
        if os.path.realpath(target) in inputs:
            raise LesionsError(f"{target}: is a photo to predict. Name another --heatmap.")
        inside = [target, *target.parents][: len(parts)]
        if link := next((path for path in inside if path.is_symlink()), None):
            raise LesionsError(f"{link}: is a link to another place. Name another --heatmap.")
        if target in targets:
            raise LesionsError(f"{target}: two photos would have this heat map.")
        if target.exists() and not _is_heatmap(target):
            raise LesionsError(f"{target}: exists, and is not a heat map. Name another --heatmap.")
        targets.add(target)
        chosen[photo] = target
    return chosen


def _is_heatmap(file: Path) -> bool:
    """Say whether this program has written a picture."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError):
        return False


def _shortened(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= 200:
        return part
    return f"{os.fsdecode(data[:150])}-{hashlib.sha256(data).hexdigest()[:16]}"


def _as_row(path: Path, prediction: Prediction) -> dict[str, Any]:
    """Lay out a prediction as one row of the CSV file."""
    return {
        "photo": for_spreadsheet(path),
        "predicted": CODES[prediction.predicted],
        "malignant": round(prediction.malignant, 6),
        "low_confidence": prediction.low_confidence,
        "out_of_distribution": prediction.out_of_distribution,
        **dict(zip(CODES, prediction.probabilities.round(6).tolist(), strict=True)),
    }


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """Lay out a row as a JSON object, with the probabilities in an object of their own."""
    rest = {key: value for key, value in row.items() if key not in CODES}
    return {**rest, "probabilities": {code: row[code] for code in CODES}}


def _as_line(row: dict[str, Any]) -> str:
    """Lay out a row as one line of text: the three most probable diagnoses and the flags."""
    best = sorted(CODES, key=lambda code: -row[code])[:3]
    top = "  ".join(f"{code:5} {row[code]:.3f}" for code in best)
    flags = "  refer" * row.get("refer", False)
    flags += "  low confidence" * row["low_confidence"]
    flags += "  out of distribution" * row["out_of_distribution"]
    return f"{row['photo']}  {top}  malignant {row['malignant']:.3f}{flags}"


def _software() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    return info


def _write_heatmap(file: Path, predictor: Predictor, result: PhotoResult) -> None:
    """Write the heat map of a prediction."""
    assert result.pixels is not None
    assert result.prediction is not None
    labels = [result.prediction.predicted]
    heat = grad_cam(predictor.classifier, result.pixels[None], labels)[0]
    with atomic_write(file) as partial:
        Image.fromarray(overlay(result.pixels, heat)).save(partial, "PNG", pnginfo=_software())


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
    chosen, _ = rule(decision, None)
    print(export_onnx(source, target, chosen))
    if int8:
        print(export_int8(source, target, chosen))


def demo(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models, as for predict; by default all in params.yaml."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    decision: Rule = None,
    views: Views = None,
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
        print(f"loading {', '.join(map(str, paths))} ...", file=sys.stderr, flush=True)
        page = application(paths, *rule(decision, views))
        print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        # Ctrl-C waits at most a second for answers under way.
        config = uvicorn.Config(page, log_level="critical", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])


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
        from lesions.serving import duplicates as search
        from lesions.serving import duplicates_report
        from lesions.sources.download import find_metadata
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed: pip install -c constraints.txt -e '.[duplicates]'"
        ) from None
    # What can be refused is refused before the long work.
    if not folder.is_dir():
        raise LesionsError(f"{folder}: is not a folder. Name one with photos.")
    found_paths = list_photos([str(folder)])
    paths = duplicates_report.drop_copies(found_paths)
    if copies := len(found_paths) - len(paths):
        print(f"left out {copies} copies with the same name and content", file=sys.stderr)
    metadata = find_metadata(folder)
    lesions = None if metadata is None else read_metadata(metadata)
    if csv is not None and csv.exists():
        raise LesionsError(
            f"{csv}: exists; pairs may have been deleted from it by hand. Name another file."
        )
    if sheet is not None:
        check_output(sheet, paths, duplicates_report.FIRST_LINE)
        if csv is not None and csv.absolute() == sheet.absolute():
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
    table = duplicates_report.as_table(pairs, photos, least)
    for row in table.itertuples():
        known = "  published" * bool(row.published)
        print(f"{row.image_id}  {row.same_lesion_as}  {row.points} points{known}")
    print(duplicates_report.summary(pairs, photos, least))
    if csv is not None:
        write_csv(csv, table[list(duplicates_report.COLUMNS)])
    if sheet is not None:
        write_text(sheet, duplicates_report.build_sheet(table, photos, csv))
    if found.errors:
        raise LesionsError(
            f"{len(found.errors)} of {len(paths)} photos could not be read; the rest are compared."
        )


def main() -> None:
    """Run the command line `lesions`."""
    run_cli(predict, export, demo, duplicates)


if __name__ == "__main__":
    main()
