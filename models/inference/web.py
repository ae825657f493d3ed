"""The server of scripts/app.py: a page to upload an image, compare it with its translation, and download the result.

Clients cannot read files of the machine. Requests contain the index of a checkpoint and no paths, and the server returns
one static page and images derived from the upload.
"""

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from data.image_array import ImageArray, ImageError
from data.image_io import read_array
from data.image_writer import WRITERS, to_pil
from models.inference.translator import Translator
from util.channel_view import ChannelView
from util.errors import UserError

PAGE = Path(__file__).with_name("web.html")
MAX_CACHED_TRANSLATORS = 3
# The page loads nothing from other servers, and no other page may send requests to it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob:; connect-src 'self'; "
    "frame-ancestors {ancestors}; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class UploadRefusedError(Exception):
    """An upload that is not translated. The arguments are the HTTP status and the reason."""


def create_app(
    checkpoints: Mapping[str, Callable[[], Translator]],
    hosts: list[str],
    max_bytes: int,
    max_pixels: int,
    embed_in: str | None = None,
    channels: tuple[int, ...] | None = None,
) -> Starlette:
    """Create the web application.

    Args:
        checkpoints: functions that load the translators, by the name to show on the page.
        hosts: accepted values of the Host header. Others are refused, so that DNS rebinding cannot reach the server.
        max_bytes: size limit of uploaded files.
        max_pixels: size limit of images.
        embed_in: origin whose pages may show this page in a frame; None: no page may.
        channels: numbers of the channels to show of images that no PNG can hold; see `ChannelView`.
    """
    names = list(checkpoints)
    policy = CONTENT_SECURITY_POLICY.format(ancestors=embed_in or "'none'")
    load = lru_cache(MAX_CACHED_TRANSLATORS)(lambda name: checkpoints[name]())
    generator_lock, view = Lock(), ChannelView(channels)

    def translate(upload: bytes, name: str) -> bytes:
        array = _read(upload, max_pixels)
        with generator_lock:
            try:
                return to_png(load(name).translate_array(array), view)
            except ImageError as error:
                raise UploadRefusedError(415, f"this file cannot be translated: it {error}") from None

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=HEADERS | {"Content-Security-Policy": policy})

    async def list_names(request: Request) -> Response:
        return JSONResponse({"checkpoints": names, "max_bytes": max_bytes}, headers=HEADERS)

    async def preview(request: Request) -> Response:
        return await _respond(request, max_bytes, lambda upload: to_png(_read(upload, max_pixels), view))

    async def translation(request: Request) -> Response:
        index = request.query_params.get("checkpoint", "")
        if not index.isdecimal() or int(index) >= len(names):
            return _error(404, "no such checkpoint")
        return await _respond(request, max_bytes, lambda upload: translate(upload, names[int(index)]))

    routes = [
        Route("/", page),
        Route("/checkpoints", list_names),
        Route("/preview", preview, methods=["POST"]),
        Route("/translate", translation, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


async def _respond(request: Request, max_bytes: int, work: Callable[[bytes], bytes]) -> Response:
    """Return the PNG that `work` makes of the upload, or a JSON error."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return _error(403, "requests from other pages are not accepted")
    try:
        upload = await _receive(request, max_bytes)
        return Response(await run_in_threadpool(work, upload), media_type="image/png", headers=HEADERS)
    except UploadRefusedError as refusal:
        return _error(*refusal.args)
    except UserError as error:
        return _error(422, str(error))


async def _receive(request: Request, max_bytes: int) -> bytes:
    upload = bytearray()
    async for chunk in request.stream():
        upload += chunk
        if len(upload) > max_bytes:
            raise UploadRefusedError(413, f"the file is larger than {max_bytes / 10**6:.0f} MB")
    return bytes(upload)


def _read(upload: bytes, max_pixels: int) -> ImageArray:
    with TemporaryDirectory() as folder:  # Windows cannot open a NamedTemporaryFile twice
        file = Path(folder, "upload")
        file.write_bytes(upload)
        try:
            return read_array(str(file), max_pixels=max_pixels)
        except ImageError as error:
            raise UploadRefusedError(415, f"this file cannot be translated: {error}") from None


def to_png(array: ImageArray, view: ChannelView) -> bytes:
    """Return the image as a PNG: unchanged if it is 8-bit, or 16-bit gray, else three of its channels, stretched."""
    if not WRITERS["PNG"].holds(array.pixels.dtype, array.bands, False) or array.pixels.itemsize * array.bands > 3:
        array = ImageArray(view.pixels(array.pixels))
    file = io.BytesIO()
    to_pil(array).save(file, "PNG", icc_profile=array.info.icc_profile)
    return file.getvalue()


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status, headers=HEADERS)
