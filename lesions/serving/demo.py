"""The demo: a local page that shows every model's prediction for a photo; nothing is stored."""

import asyncio
import io
import time
from functools import cache
from pathlib import Path
from typing import Any

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

from lesions.common import layout
from lesions.common.errors import LesionsError, is_out_of_memory, out_of_memory
from lesions.common.names import safe_text
from lesions.common.params import Decision, Views
from lesions.dataset.description import Description
from lesions.reporting.heatmaps import COLOUR, OPACITY, grad_cam, overlay
from lesions.reporting.render import environment, image_uri, interval, number
from lesions.reporting.results import read_results
from lesions.scoring.guards import MIN_CASES
from lesions.serving.predictor import Predictor
from lesions.sources.sample import LESIONS, render_photo

SENSITIVITY = 0.90  # of the operating point that the page shows
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


def _predict(predictor: Predictor, data: bytes) -> dict[str, Any]:
    """Predict the bytes of a photo: what the page shows of one model."""
    pixels = predictor.decode(data, "the upload")
    start = time.perf_counter()
    prediction = predictor.predict(pixels[None])[0]
    seconds = time.perf_counter() - start
    heat = grad_cam(predictor.classifier, pixels[None], [prediction.predicted])[0]
    probabilities = prediction.probabilities.round(4).tolist()
    card, fitted = predictor.classifier.card, predictor.fitted
    return {
        "title": card.network.title,
        "probabilities": dict(zip(card.classes, probabilities, strict=True)),
        "predicted": card.classes[prediction.predicted],
        "sums": {group: round(prediction.scores[group], 4) for group in card.dataset.sums},
        "referral": {
            point.group: prediction.reaches(point)
            for point in fitted.operating_points
            if point.sensitivity == SENSITIVITY and not point.assured
        },
        # Of the groups without a threshold.
        "too_few": {group: cases for group, cases in fitted.cases.items() if cases < MIN_CASES},
        "low_confidence": prediction.low_confidence,
        "out_of_distribution": prediction.out_of_distribution,
        "milliseconds": round(1000 * seconds),
        "photo": image_uri(Image.fromarray(pixels), "PNG"),
        "heat_map": image_uri(Image.fromarray(overlay(pixels, heat)), "PNG"),
    }


@cache
def _example(code: str) -> bytes:
    """Make a synthetic example photo: the bytes of a JPEG."""
    file = io.BytesIO()
    render_photo(code, 1, 0, 0).save(file, "JPEG", quality=92)
    return file.getvalue()


def evidence(paths: list[Path], titles: list[str], dataset: Description) -> list[str]:
    """Say how good the models were on test photos, one sentence each, and how they compare.

    Only for the models of the last run, in models/ of the folder where the demo was started.
    """
    names = [path.stem for path in paths]
    if paths != [layout.model_file(name) for name in names]:
        return []
    try:
        results = read_results(names, [], dataset)
    except LesionsError:  # never evaluated, or with other models
        return []
    metrics = results.test.of("metrics", "model", "metric")

    def value(title: str, name: str) -> str:
        row = metrics[title][name]
        known = f" (95 % interval {interval(row)})" if row["low"] is not None else ""
        return f"{row['title']} {number(row['value'])}{known}"

    sentences = [
        f"{title}, on {results.test.photos:,} test photos: {value(title, 'accuracy')}, "
        f"{value(title, 'balanced_accuracy')}."
        for title in titles
    ]
    return [*sentences, *results.verdicts]


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
    quotes = evidence(paths, [card.network.title for card in cards], dataset)
    synthetic = any(card.recipe.synthetic for card in cards)
    examples = [entry for entry in dataset.entries if synthetic and entry.code in LESIONS]

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
                evidence=quotes,
            )
        )

    async def example(request: Request) -> Response:
        code = request.path_params["code"]
        if code not in {entry.code for entry in examples}:
            return Response("no such class", 404)
        return Response(await run_in_threadpool(_example, code), media_type="image/jpeg")

    async def predict(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin not in (None, f"http://{request.headers['host']}"):
            return _refused(f"only the page at {HERE} may send photos. {FROM_ELSEWHERE}", 403)
        data = bytearray()
        try:
            async for part in request.stream():
                data += part
                if len(data) > MAX_BYTES:
                    return _refused(f"larger than {MAX_BYTES // 1_000_000} MB", 413)
            found = []
            for predictor in predictors:
                async with one_at_a_time:
                    if await request.is_disconnected():  # no work for a visitor who has left
                        return _refused("the visitor has left", 400)
                    found.append(await run_in_threadpool(_predict, predictor, bytes(data)))
            return JSONResponse(found)
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
            Route("/example/{code}.jpg", example),
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
