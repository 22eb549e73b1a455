"""Demo: a local page that answers a photo with every trained model; nothing is kept on disk."""

import base64
import io
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lesions import cards, pictures, sample
from lesions.diagnoses import CODES, DIAGNOSES
from lesions.errors import LesionsError
from lesions.networks import ARCHITECTURES
from lesions.predictor import Predictor

LARGEST = 20_000_000  # bytes of an upload; a photo of HAM10000 has 257,000


def _answer(predictor: Predictor, data: bytes) -> dict[str, Any]:
    """Answer the bytes of a photo with what the page shows."""
    pixels = predictor.pixels(data, "the upload")
    start = time.perf_counter()
    told = predictor.answers(pixels[None])[0]
    seconds = time.perf_counter() - start
    warm = pictures.heat(predictor.classifier, pixels[None], [told.said])[0]
    return {
        "title": ARCHITECTURES[predictor.classifier.card.architecture].title,
        "probabilities": dict(zip(CODES, told.probabilities.round(4).tolist(), strict=True)),
        "malignant": round(told.malignant, 4),
        "doubtful": told.doubtful,
        "strange": told.strange,
        "milliseconds": round(1000 * seconds),
        "heat": _png(pictures.warmed(pixels, warm)),
    }


def _png(pixels: "np.ndarray") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache
def _example(code: str) -> bytes:
    """Draw an example photo: a JPEG's bytes."""
    file = io.BytesIO()
    sample.draw_photo(code, 1, 0, 0).save(file, "JPEG", quality=92)
    return file.getvalue()


def application(paths: list[Path]) -> Starlette:
    """Make the page's application for some model files.

    Raises:
        LesionsError: one of them is missing or no model.
    """
    predictors = [Predictor(path) for path in paths]
    # One photo at a time: decoding 80 megapixels takes 240 MB, and torch uses all cores anyway.
    turn = threading.Lock()
    page = cards.templates(autoescape=True).get_template("demo.html")
    drawn = any(one.classifier.card.recipe["source"] == "sample" for one in predictors)

    def answers(data: bytes) -> list[dict[str, Any]]:
        with turn:
            return [_answer(predictor, data) for predictor in predictors]

    async def home(_: Request) -> Response:
        return HTMLResponse(page.render(diagnoses=DIAGNOSES, drawn=drawn, largest=LARGEST))

    async def example(request: Request) -> Response:
        code = request.path_params["code"]
        if code not in CODES:
            return Response("no such diagnosis", 404)
        return Response(await run_in_threadpool(_example, code), media_type="image/jpeg")

    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin not in (None, f"http://{request.headers['host']}"):
            return _refused("only this page may ask", 403)
        data = bytearray()
        try:
            async for part in request.stream():
                data += part
                if len(data) > LARGEST:
                    return _refused(f"larger than {LARGEST // 1_000_000} MB", 413)
            return JSONResponse(await run_in_threadpool(answers, bytes(data)))
        except LesionsError as error:
            return _refused(str(error), 400)
        except ClientDisconnect:
            return _refused("the upload broke off", 400)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/example/{code}.jpg", example),
            Route("/answer", answer, methods=["POST"]),
        ],
        # Another site's name that points to this computer gets no answer.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


def _refused(why: str, status: int) -> Response:
    return JSONResponse({"error": why}, status)
