"""A page in the browser: drop an image, see it before and after, download the translation.

Nothing of the machine can be read through it: there are no paths in its requests, only the number of a checkpoint, and it
serves nothing but one page and what was just uploaded.
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

from data.image_io import ImageError, open_exif_transposed
from models.inference.image_io import ImageArray, from_pil, to_pil
from models.inference.translator import Translator
from util.errors import UserError

PAGE = Path(__file__).with_name("web.html")
KEPT_TRANSLATORS = 3
# The page needs nothing from elsewhere, and no other page may show it or send to it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class UploadRefusedError(Exception):
    """What was sent is not translated; the first argument is the HTTP status, the second the reason."""


def create_app(
    checkpoints: Mapping[str, Callable[[], Translator]], hosts: list[str], max_bytes: int, max_pixels: int
) -> Starlette:
    """The application.

    Args:
        checkpoints: what loads each translator, by the name that the page shows.
        hosts: names that the page may be called by; another page's scripts cannot reach it by a name of their own.
        max_bytes: largest file that is taken.
        max_pixels: largest image that is taken.
    """
    names = list(checkpoints)
    load = lru_cache(KEPT_TRANSLATORS)(lambda name: checkpoints[name]())
    one_at_a_time = Lock()

    def translate(upload: bytes, name: str) -> bytes:
        samples = _read(upload, max_pixels)
        with one_at_a_time:
            return _png(load(name).translate_samples(samples))

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=HEADERS)

    async def list_names(request: Request) -> Response:
        return JSONResponse({"checkpoints": names, "max_bytes": max_bytes}, headers=HEADERS)

    async def preview(request: Request) -> Response:
        return await _answer(request, max_bytes, lambda upload: _png(_read(upload, max_pixels)))

    async def translation(request: Request) -> Response:
        number = request.query_params.get("checkpoint", "")
        if not number.isdecimal() or int(number) >= len(names):
            return _refusal(404, "there is no such checkpoint")
        return await _answer(request, max_bytes, lambda upload: translate(upload, names[int(number)]))

    routes = [
        Route("/", page),
        Route("/checkpoints", list_names),
        Route("/preview", preview, methods=["POST"]),
        Route("/translate", translation, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


async def _answer(request: Request, max_bytes: int, work: Callable[[bytes], bytes]) -> Response:
    """A PNG of what `work` makes of the uploaded file; a sentence where it is refused."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return _refusal(403, "another page must not send images here")
    try:
        upload = await _receive(request, max_bytes)
        return Response(await run_in_threadpool(work, upload), media_type="image/png", headers=HEADERS)
    except UploadRefusedError as refusal:
        return _refusal(*refusal.args)
    except UserError as error:
        return _refusal(422, str(error))


async def _receive(request: Request, max_bytes: int) -> bytes:
    upload = bytearray()
    async for part in request.stream():
        upload += part
        if len(upload) > max_bytes:
            raise UploadRefusedError(413, f"the file is larger than {max_bytes / 10**6:.0f} MB")
    return bytes(upload)


def _read(upload: bytes, max_pixels: int) -> ImageArray:
    with TemporaryDirectory() as folder:  # Windows does not open a NamedTemporaryFile a second time
        file = Path(folder, "upload")
        file.write_bytes(upload)
        try:
            with open_exif_transposed(str(file)) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(f"{image.width}x{image.height} are more than {max_pixels / 10**6:.0f} megapixels")
                return from_pil(image)
        except ImageError as error:
            raise UploadRefusedError(415, f"this cannot be translated: {error}") from None


def _png(samples: ImageArray) -> bytes:
    file = io.BytesIO()
    to_pil(samples).save(file, "PNG", icc_profile=samples.icc_profile)
    return file.getvalue()


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status, headers=HEADERS)
