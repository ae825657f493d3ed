"""The server of scripts/app.py: a page to upload an image, compare it with its translation, and download the result.

Clients cannot read files of the machine. Requests contain the index of a checkpoint and no paths, and the server returns
one static page and images derived from the upload.
"""

import asyncio
import io
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from torch import nn

from data.image_array import ImageArray, ImageError
from data.image_reader import ReadOptions
from data.image_writer import WRITERS, to_pil
from models.inference.translator import Translator
from util.channel_view import ChannelView
from util.errors import UserError, is_out_of_memory
from util.html.page import STYLE

PAGE = Path(__file__).with_name("web.html")
MAX_CACHED_TRANSLATORS = 3
SIZES = (128, 256, 512, 1024, 2048)  # pixels of the shorter side that the page offers
CLIENT_CLOSED_REQUEST = 499  # as in nginx; no client reads it
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


class CanceledError(Exception):
    """The client no longer waits for the result."""


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
    load_lock, generator_lock, view = Lock(), Lock(), ChannelView(channels)
    preview_options = ReadOptions(max_pixels=max_pixels)
    html = PAGE.read_text(encoding="utf-8").replace("/* page.css */", STYLE)

    def translate(upload: bytes, canceled: Event, name: str, short_side: int | None) -> bytes:
        with load_lock:
            translator = load(name)
        as_trained = ReadOptions.of(Namespace(), translator.saved_options)
        array = _read(upload, replace(as_trained, max_pixels=max_pixels))
        width, height = array.size
        if short_side is not None and width * height * (short_side / min(width, height)) ** 2 > max_pixels:
            raise UploadRefusedError(413, f"the result would have more than {max_pixels / 10**6:g} megapixels")
        with generator_lock:
            if canceled.is_set():  # while others were served
                raise CanceledError
            translator.short_side = short_side
            try:
                with _stop_if(canceled, translator.generator):
                    return to_png(translator.translate_array(array), view)
            except ImageError as error:
                raise UploadRefusedError(415, f"this file cannot be translated: it {error}") from None

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers=HEADERS | {"Content-Security-Policy": policy})

    async def list_names(request: Request) -> Response:
        return JSONResponse({"checkpoints": names, "max_bytes": max_bytes, "sizes": SIZES}, headers=HEADERS)

    async def preview(request: Request) -> Response:
        return await _respond(request, max_bytes, lambda upload, _: to_png(_read(upload, preview_options), view))

    async def translation(request: Request) -> Response:
        index = request.query_params.get("checkpoint", "")
        if not index.isdecimal() or int(index) >= len(names):
            return _error(404, "no such checkpoint")
        size = request.query_params.get("size", "")
        if size not in ("", *map(str, SIZES)):
            return _error(404, "no such size")
        short_side = int(size) if size else None
        return await _respond(
            request, max_bytes, lambda upload, canceled: translate(upload, canceled, names[int(index)], short_side)
        )

    routes = [
        Route("/", page),
        Route("/checkpoints", list_names),
        Route("/preview", preview, methods=["POST"]),
        Route("/translate", translation, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


async def _respond(request: Request, max_bytes: int, work: Callable[[bytes, Event], bytes]) -> Response:
    """Return the PNG that `work` makes of the upload, or a JSON error. Its event is set if the client goes away."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return _error(403, "requests from other pages are not accepted")
    try:
        upload = await _receive(request, max_bytes)
        canceled = Event()
        watcher = asyncio.create_task(_set_at_disconnect(request, canceled))
        try:
            return Response(await run_in_threadpool(work, upload, canceled), media_type="image/png", headers=HEADERS)
        finally:
            watcher.cancel()
    except UploadRefusedError as refusal:
        return _error(*refusal.args)
    except CanceledError:
        return _error(CLIENT_CLOSED_REQUEST, "canceled")
    except UserError as error:
        return _error(422, str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _error(503, "out of memory; choose a smaller size")


async def _set_at_disconnect(request: Request, canceled: Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    canceled.set()


@contextmanager
def _stop_if(canceled: Event, network: nn.Module) -> Iterator[None]:
    """Raise CanceledError from the next layer of the network that is computed after `canceled` is set."""

    def check(*_: object) -> None:
        if canceled.is_set():
            raise CanceledError

    hooks = [module.register_forward_pre_hook(check) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


async def _receive(request: Request, max_bytes: int) -> bytes:
    upload = bytearray()
    async for chunk in request.stream():
        upload += chunk
        if len(upload) > max_bytes:
            raise UploadRefusedError(413, f"the file is larger than {max_bytes / 10**6:.0f} MB")
    return bytes(upload)


def _read(upload: bytes, options: ReadOptions) -> ImageArray:
    with TemporaryDirectory() as folder:  # Windows cannot open a NamedTemporaryFile twice
        file = Path(folder, "upload")
        file.write_bytes(upload)
        try:
            return options.read_array(str(file))
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
