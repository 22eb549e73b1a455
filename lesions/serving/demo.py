"""The demo: a local page that shows every model's prediction for a photo; nothing is stored."""

import asyncio
import io
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesions.common.errors import LesionsError, is_out_of_memory, out_of_memory
from lesions.common.names import safe_text
from lesions.common.params import Decision, Views
from lesions.common.types import Pixels
from lesions.dataset.photos import decode_in_proportion, read_file
from lesions.evaluation.referrals import SENSITIVITY, shown_points
from lesions.reporting.heatmaps import COLOUR, OPACITY, HeatMap, grad_cam, overlay
from lesions.reporting.render import environment, image_uri
from lesions.scoring.guards import MIN_CASES
from lesions.serving.answers import (
    Evidence,
    answer,
    read_evidence,
    tested,
)
from lesions.serving.predictor import Predictor
from lesions.sources.sample import LESIONS, render_photo

SIDE = 448  # px of the longer side of a photo on the page
MAX_RATIO = 2  # of length to width; longer photos are squeezed too much to mean anything
READ_SECONDS = 60  # that an upload may take
HERE = "http://127.0.0.1"
FROM_ELSEWHERE = (
    "From another computer, make a tunnel, here for port 7860: ssh -L 7860:127.0.0.1:7860 HOST; "
    "then open http://127.0.0.1:7860 there."
)
MAX_BYTES = 20_000_000  # of an upload; a phone's photo has 5 million
# The page uses only its own content, and no other site can frame it or learn of it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """ASGI middleware that adds HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and add the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _predict(
    predictor: Predictor, data: bytes, shown: Pixels, evidence: Evidence
) -> dict[str, Any]:
    """Predict the bytes of a photo: what the page shows of one model.

    Args:
        predictor: the model.
        data: the photo's file.
        shown: (h, w, 3) the photo in its own proportions, for the heat map.
        evidence: of the last run.
    """
    pixels = predictor.decode(data, "the upload")
    start = time.perf_counter()
    prediction = predictor.predict(pixels[None])[0]
    seconds = time.perf_counter() - start
    card, fitted = predictor.classifier.card, predictor.fitted
    title, points = card.network.title, shown_points(fitted).values()
    heat = grad_cam(predictor.classifier, pixels[None], [prediction.predicted])
    probabilities = prediction.probabilities.round(4).tolist()
    flags = []
    if prediction.out_of_distribution:
        flags.append(
            "Out of distribution: unlike its training photos, so the prediction may mean nothing"
        )
    if prediction.low_confidence:
        flags.append("Low confidence: it is not sure of any class")
    return {
        "title": title,
        "answer": answer(prediction, fitted, card.dataset),
        # None where no group has a threshold.
        "refer": any(prediction.reaches(point) for point in points) if points else None,
        "tested": [
            tested(evidence.referrals[title, point.group], prediction.reaches(point))
            for point in points
            if (title, point.group) in evidence.referrals
        ],
        "flags": flags,
        "predicted": card.classes[prediction.predicted],
        "probabilities": dict(zip(card.classes, probabilities, strict=True)),
        "groups": {name: round(value, 4) for name, value in prediction.scores.items()},
        "milliseconds": round(1000 * seconds),
        "heat_map": None if heat is None else _as_uri(_heated(shown, heat[0])),
    }


def _heated(shown: Pixels, heat: HeatMap) -> Pixels:
    """Lay a heat map, (s, s), over the photo in its own proportions."""
    height, width = shown.shape[:2]
    stretched = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    return overlay(shown, np.asarray(stretched))


def _as_uri(pixels: Pixels) -> str:
    return image_uri(Image.fromarray(pixels), "WEBP", quality=85)


def _look(data: bytes) -> tuple[Pixels, list[str]]:
    """Decode a photo for the page; say what is wrong with its shape.

    Raises:
        LesionsError: not a photo.
    """
    shown = decode_in_proportion(data, SIDE, "the upload")
    short, long = sorted(shown.shape[:2])
    warnings = []
    if long > MAX_RATIO * short:
        warnings.append(
            f"The photo is {long / short:.1f} times as long as wide. It is squeezed to a square, "
            "and the networks have seen no such photos: crop it around the lesion."
        )
    return shown, warnings


@cache
def _example(code: str) -> bytes:
    """Make a synthetic example photo: the bytes of a JPEG."""
    file = io.BytesIO()
    render_photo(code, 1, 0, 0).save(file, "JPEG", quality=92)
    return file.getvalue()


def application(
    paths: list[Path], decision: Decision = "most-probable", views: Views = 1
) -> Starlette:
    """Make the web application for some model files.

    Args:
        paths: the model files.
        decision, views: as for `Predictor`.

    Raises:
        LesionsError: one of them is missing or not a model file.
    """
    predictors = [Predictor(path, "auto", decision, views) for path in paths]
    # One photo at a time: decoding 80 megapixels takes 320 MB, and torch uses all cores anyway.
    one_at_a_time = asyncio.Lock()
    page = environment(Path(__file__).parent, autoescape=True).get_template("demo.html")
    cards = [predictor.classifier.card for predictor in predictors]
    heat_colour = ",".join(map(str, COLOUR))
    dataset = cards[0].dataset
    if any(card.classes != dataset.classes for card in cards):
        raise LesionsError("the models have different classes; give those of one dataset.")
    titles = [card.network.title for card in cards]
    evidence = read_evidence(paths, titles, dataset, decision, views)
    synthetic = any(card.recipe.synthetic for card in cards)
    drawn = {entry.code for entry in dataset.entries if synthetic and entry.code in LESIONS}
    examples = [entry for entry in dataset.entries if entry.code in drawn | set(evidence.examples)]

    async def home(_: Request) -> Response:
        return HTMLResponse(
            page.render(
                dataset=dataset,
                examples=examples,
                synthetic=synthetic,
                max_bytes=MAX_BYTES,
                sensitivity=round(100 * SENSITIVITY),
                min_cases=MIN_CASES,
                heat_colour=f"rgba({heat_colour},{OPACITY})",
                evidence=evidence.sentences,
            )
        )

    async def example(request: Request) -> Response:
        code = request.path_params["code"]
        if code not in {entry.code for entry in examples}:
            return Response("no such class", 404)
        if code in drawn:
            return Response(await run_in_threadpool(_example, code), media_type="image/jpeg")
        try:
            data = await run_in_threadpool(read_file, evidence.examples[code])
        except LesionsError as error:  # it has gone since the start
            return Response(safe_text(str(error)), 404)
        return Response(data, media_type="application/octet-stream")

    def predict_all(data: bytes) -> dict[str, Any]:
        shown, warnings = _look(data)
        found = [_predict(predictor, data, shown, evidence) for predictor in predictors]
        return {"photo": _as_uri(shown), "warnings": warnings, "models": found}

    async def predict(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin not in (None, f"http://{request.headers['host']}"):
            return _refused(f"only the page at {HERE} may send photos. {FROM_ELSEWHERE}", 403)
        data = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for part in request.stream():
                    data += part
                    if len(data) > MAX_BYTES:
                        return _refused(f"larger than {MAX_BYTES // 1_000_000} MB", 413)
            async with one_at_a_time:
                if await request.is_disconnected():  # no work for a visitor who has left
                    return _refused("the visitor has left", 400)
                return JSONResponse(await run_in_threadpool(predict_all, bytes(data)))
        except TimeoutError:
            return _refused(f"the upload took more than {READ_SECONDS} s", 408)
        except LesionsError as error:
            return _refused(safe_text(str(error)), 400)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return _refused(safe_text(str(out_of_memory(error))), 503)
        except ClientDisconnect:
            return _refused("the upload was interrupted", 400)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/example/{code}", example),
            Route("/predict", predict, methods=["POST"]),
        ],
        # Refuse requests under any other host name, even if it points to this computer.
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        ],
    )


def _refused(why: str, status: int) -> Response:
    return JSONResponse({"error": why}, status)
