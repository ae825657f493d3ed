"""Downloads one file over HTTP so that nothing is fetched twice: a download that was cut off goes on where it stopped.

Standard library only: datasets are often fetched before anything is installed.
"""

import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

SECONDS_ON_TERMINAL, SECONDS_IN_LOG = 0.2, 10.0  # between two reports


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class TransferProgress:
    """Counts bytes: `received` of `length` (None where the server does not say)."""

    def __init__(self, start: int, length: int | None) -> None:
        self.start = start
        self.received = start
        self.length = length
        self.on_terminal = sys.stderr.isatty()
        self.pause = SECONDS_ON_TERMINAL if self.on_terminal else SECONDS_IN_LOG
        self.begun = self.last_said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.show()
        if self.on_terminal:
            say("")

    def add(self, count: int) -> None:
        self.received += count
        if time.monotonic() - self.last_said >= self.pause:
            self.show()

    def show(self) -> None:
        self.last_said = time.monotonic()
        speed = (self.received - self.start) / max(self.last_said - self.begun, 1e-3)
        parts = [f"{self.received / 1e6:.1f} MB", f"{speed / 1e6:.1f} MB/s"]
        if self.length:
            parts[0] = f"{self.received / 1e6:.1f} of {self.length / 1e6:.1f} MB"
            parts.insert(1, f"{100 * self.received // self.length} %")
            if speed:
                parts.append(f"{(self.length - self.received) / speed:.0f} s left")
        line = "  " + ", ".join(parts)
        if self.on_terminal:
            print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)
        else:
            say(line)


CHUNK = 1 << 18  # bytes
MIN_PROGRESS = 1 << 20  # bytes; a connection that brought so much does not count as a failed one
RETRY_STATUSES = {408, 429, 500, 502, 503, 504}


class DownloadError(Exception):
    """The file cannot be had. The message is one sentence for the user."""


class ConnectionLostError(Exception):
    """The connection ended before the file did. What came before is kept."""


@dataclass(frozen=True)
class DownloadConfig:
    stall_seconds: float  # a connection on which nothing comes for so long is given up
    tries: int  # connections in a row that may be lost before the download is given up
    size: int  # bytes; a larger file is refused


@dataclass(frozen=True)
class DownloadSource:
    """What the beginning of a file was fetched from, so that it is never continued with bytes of another file."""

    url: str
    length: int | None
    etag: str | None
    last_modified: str | None

    @classmethod
    def of(cls, url: str, response: HTTPResponse, length: int | None) -> Self:
        return cls(url, length, response.headers["ETag"], response.headers["Last-Modified"])

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The origin written to `path`; None where there is none or it makes no sense."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @property
    def validator(self) -> str | None:
        """What `If-Range` takes: a strong ETag or else a date (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def may_be(self, other: "DownloadSource") -> bool:
        """False where something that both say differs. A partial answer may leave out what its `If-Range` implied."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs)


def download(url: str, path: Path, limits: DownloadConfig) -> None:
    """Fetches `url` into `path`, continuing what an earlier call left there.

    Proxies are taken from the environment. Raises DownloadError where the file cannot be had, with what came of it kept
    for the next call, and OSError where it cannot be written.
    """
    if not is_address(url):
        raise DownloadError(f"{url} is not an address: it takes the form http://server/name or https://server/name")
    failures = 0
    while True:
        before = size_of(path)
        try:
            return resume_download(url, path, limits)
        except ConnectionLostError as lost:
            failures = 1 if size_of(path) - before >= MIN_PROGRESS else failures + 1
            if failures >= limits.tries:
                kept = f"; the {size_of(path) / 1e6:.1f} MB fetched so far are kept" if size_of(path) else ""
                raise DownloadError(f"{url} could not be fetched: {lost}{kept}") from None
            pause = 2 ** (failures - 1)
            say(f"{lost}; trying again in {pause} s (try {failures + 1} of {limits.tries})")
            time.sleep(pause)


def resume_download(url: str, path: Path, limits: DownloadConfig) -> None:
    """One connection: asks for what `path` lacks, or for everything where it cannot be continued."""
    note = sidecar_path(path)
    origin = DownloadSource.read(note)
    # Without a date, a tag or a length nothing could tell a changed file from the one that was begun.
    resumable = origin is not None and origin.url == url and (origin.validator or origin.length)
    start = size_of(path) if resumable else 0
    if origin and start and start == origin.length:
        return

    request = Request(url, headers={"User-Agent": "cut-dataset-download"})
    if origin and start:
        request.add_header("Range", f"bytes={start}-")
        if origin.validator:
            request.add_header("If-Range", origin.validator)
    try:
        response = connect(request, limits)
    except HTTPError as error:
        if error.code == 416 and start:  # the file there is now shorter than the part here
            discard(path)
            return resume_download(url, path, limits)
        raise DownloadError(refusal(url, error)) from None

    with response:
        if origin and start and response.status == 206:
            begins, length = content_range(response)
            if begins != start or not DownloadSource.of(url, response, length).may_be(origin):
                say("the file on the server has changed; starting anew")
                discard(path)
                return resume_download(url, path, limits)
        else:
            if start:
                say("the server sends the file from its beginning: it has changed there, or cannot be continued")
            start, length = 0, response.length
            path.write_bytes(b"")  # before the note: an old beginning must never stand under a new origin
            DownloadSource.of(url, response, length).write(note)
        receive(response, path, start, length, limits)


def connect(request: Request, limits: DownloadConfig) -> HTTPResponse:
    """Raises HTTPError for a refusal that trying again will not change, ConnectionLostError for what it may."""
    try:
        return urlopen(request, timeout=limits.stall_seconds)
    except HTTPError as error:
        if error.code in RETRY_STATUSES:
            raise ConnectionLostError(f"the server answered {error.code} {error.reason}") from None
        raise
    except (OSError, HTTPException) as error:
        raise ConnectionLostError(reason(error, limits)) from None


def receive(response: HTTPResponse, path: Path, start: int, length: int | None, limits: DownloadConfig) -> None:
    """Appends the body to `path`, which holds `start` of `length` bytes."""
    if length and length > limits.size:
        raise DownloadError(too_large(response.url, length, limits))
    with path.open("ab") as file, TransferProgress(start, length) as progress:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise ConnectionLostError(reason(error, limits)) from None
            if not chunk:
                break
            file.write(chunk)
            file.flush()  # a kill loses nothing that came
            progress.add(len(chunk))
            if progress.received > limits.size:
                raise DownloadError(too_large(response.url, progress.received, limits))
    if length and progress.received < length:
        raise ConnectionLostError(f"the connection closed after {progress.received} of {length} bytes")


def is_address(url: str) -> bool:
    """Whether `url` can be asked for as it stands: ASCII without blanks, a server, and no port but a number."""
    try:
        parts = urlsplit(url)
        return bool(re.fullmatch("https?://[!-~]+", url) and parts.hostname and parts.port != 0)
    except ValueError:
        return False


def content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte and whole length, None for what `Content-Range` does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def sidecar_path(path: Path) -> Path:
    """The file that holds the `DownloadSource` of what is in `path`."""
    return path.with_name(f"{path.name}.origin")


def discard(path: Path) -> None:
    """Removes a download, begun or complete, so that the next one starts anew."""
    path.unlink(missing_ok=True)
    sidecar_path(path).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def reason(error: OSError | HTTPException, limits: DownloadConfig) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing came for {limits.stall_seconds:g} s"
    return getattr(cause, "strerror", None) or str(cause)


def refusal(url: str, error: HTTPError) -> str:
    advice = " or name a mirror that has it (--help says how): published addresses have moved before"
    return f"the server answered {error.code} {error.reason} for {url}; try again later" + advice


def too_large(url: str, size: int, limits: DownloadConfig) -> str:
    gigabytes = f"{size / 1e9:.3g} GB, above the limit of {limits.size / 1e9:g}"
    return f"{url} has at least {gigabytes}; CUT_SIZE_LIMIT_GB raises it"
