"""Commands: `lesions predict` and `lesions export`, for a trained model in use."""

import json
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from lesions.diagnoses import CODES
from lesions.errors import LesionsError, run
from lesions.progress import progress

Model = Annotated[
    str, typer.Option(help="mobilenetv2 or resnet50, as trained here, or a model file.")
]


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders or patterns.")],
    model: Model = "mobilenetv2",
    csv: Annotated[Path | None, typer.Option(help="Write a row a photo to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a photo.")] = False,
    heatmap: Annotated[Path | None, typer.Option(help="Write heat maps to this folder.")] = None,
) -> None:
    """Answer PHOTOS with calibrated probabilities. No medical device.

    Marked are doubtful answers (less sure than of 95 % of the validation photos) and strange photos
    (farther from the training photos than 95 % of the validation photos).
    """
    import pandas as pd
    from PIL import Image

    from lesions import pictures
    from lesions.artifacts import replacing
    from lesions.predictor import Predictor, find_model, find_photos

    paths = find_photos(photos)
    predictor = Predictor(find_model(model))
    rows, bad = [], 0
    with (
        nullcontext() if csv is None else replacing(csv) as table,
        progress(len(paths), "photos", "predict") as bar,
    ):
        if table:
            table.touch()  # what cannot be written is refused now, not after the last photo
        for path, pixels, answer, error in predictor.of_files(paths):
            bar.update()
            if pixels is None or answer is None or as_json or csv is None:
                bar.clear()  # or what is printed would go on in its line
            if pixels is None or answer is None:
                print(f"error: {error}", file=sys.stderr)
                bad += 1
                continue
            each = dict(zip(CODES, answer.probabilities.round(6).tolist(), strict=True))
            rows.append({"image_id": str(path), "predicted": CODES[answer.said], **each})
            if as_json:
                told = {
                    "photo": str(path),
                    "predicted": CODES[answer.said],
                    "malignant": round(answer.malignant, 6),
                    "doubtful": answer.doubtful,
                    "strange": answer.strange,
                    "probabilities": each,
                }
                print(json.dumps(told, ensure_ascii=False), flush=True)
            elif csv is None:
                best = sorted(each, key=lambda code: -each[code])[:3]
                top = "  ".join(f"{code:5} {each[code]:.3f}" for code in best)
                marks = "  doubtful" * answer.doubtful + "  strange" * answer.strange
                print(f"{path}  {top}  malignant {answer.malignant:.3f}{marks}", flush=True)
            if heatmap is not None:
                warm = pictures.heat(predictor.classifier, pixels[None], [answer.said])[0]
                parts = ["up" if part == ".." else part for part in path.parts]
                name = Path(*parts).relative_to(path.anchor)
                with replacing(heatmap / f"{name}.png") as partial:
                    Image.fromarray(pictures.warmed(pixels, warm)).save(partial, "PNG")
        if table:
            answers = pd.DataFrame(rows, columns=["image_id", "predicted", *CODES])
            answers.insert(1, "lesion_id", "")
            answers.insert(2, "actual", "")
            answers.to_csv(table, index=False, lineterminator="\n")
    if bad:
        raise LesionsError(
            f"{bad} of {len(paths)} photos could not be read; the rest are answered."
        )


def export(
    model: Model = "mobilenetv2",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else beside the model.")
    ] = None,
    int8: Annotated[bool, typer.Option(help="Also write 8-bit integers, and score both.")] = False,
) -> None:
    """Write a model as ONNX, normalisation inside, and check it against torch."""
    from lesions.exporting import export_int8, export_onnx
    from lesions.predictor import find_model

    source = find_model(model)
    target = out or source.with_suffix(".onnx")
    print(export_onnx(source, target))
    if int8:
        print(export_int8(source, target))


def demo(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models, as for predict; both trained here if none.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
) -> None:
    """Serve a page on this computer alone, that answers a photo with each of MODELS."""
    try:
        import uvicorn

        from lesions.demo import application
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed. `make demo`, or pip install -c constraints.txt "
            "-e '.[demo]'"
        ) from None
    from lesions.networks import ARCHITECTURES
    from lesions.predictor import find_model

    page = application([find_model(model) for model in models or ARCHITECTURES])
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise LesionsError(f"port {port}: {error.strerror}. Choose another: --port.") from None
        print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(page, log_level="warning")).run(sockets=[listening])


def main() -> None:
    """Run the command line `lesions`."""
    run(predict, export, demo)


if __name__ == "__main__":
    main()
