"""Resumable HTTP download of one file.

Uses the standard library only, because datasets are often downloaded before anything is installed.
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

TERMINAL_INTERVAL, LOG_INTERVAL = 0.2, 10.0  # seconds between two progress lines


def log(message: str) -> None:
    """Print a message to standard error."""
    print(message, file=sys.stderr, flush=True)


class TransferProgress:
    """Progress of a download: `received` of `length` bytes (None if the server does not send the length)."""

    def __init__(self, start: int, length: int | None) -> None:
        self.start = start
        self.received = start
        self.length = length
        self.is_terminal = sys.stderr.isatty()
        self.interval = TERMINAL_INTERVAL if self.is_terminal else LOG_INTERVAL
        self.start_time = self.last_shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.show()
        if self.is_terminal:
            log("")

    def add(self, count: int) -> None:
        """Count received bytes, and show the progress from time to time."""
        self.received += count
        if time.monotonic() - self.last_shown >= self.interval:
            self.show()

    def show(self) -> None:
        """Print size, speed and remaining time."""
        self.last_shown = time.monotonic()
        speed = (self.received - self.start) / max(self.last_shown - self.start_time, 1e-3)
        parts = [f"{self.received / 1e6:.1f} MB", f"{speed / 1e6:.1f} MB/s"]
        if self.length:
            parts[0] = f"{self.received / 1e6:.1f} of {self.length / 1e6:.1f} MB"
            parts.insert(1, f"{100 * self.received // self.length} %")
            if speed:
                parts.append(f"{(self.length - self.received) / speed:.0f} s left")
        line = "  " + ", ".join(parts)
        if self.is_terminal:
            print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)
        else:
            log(line)


CHUNK = 1 << 18  # bytes
MIN_PROGRESS = 1 << 20  # bytes; a lost connection that received as much resets the count of failures
RETRY_STATUSES = {408, 429, 500, 502, 503, 504}


class DownloadError(Exception):
    """The file cannot be downloaded. The message is one line for the user."""


class ConnectionLostError(Exception):
    """The connection ended before the end of the file. The received part is kept."""


@dataclass(frozen=True)
class DownloadConfig:
    """Limits of a download."""

    stall_timeout: float  # seconds without data after which a connection is closed
    max_tries: int  # lost connections in a row after which the download fails
    size_limit: int  # bytes; a larger file is refused


@dataclass(frozen=True)
class DownloadSource:
    """Origin of a partial file, saved next to it, so that it is never continued with bytes of another file."""

    url: str
    length: int | None
    etag: str | None
    last_modified: str | None

    @classmethod
    def from_response(cls, url: str, response: HTTPResponse, length: int | None) -> Self:
        """Return the origin of a response."""
        return cls(url, length, response.headers["ETag"], response.headers["Last-Modified"])

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the origin saved in `path`, or None if there is none or it is damaged."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Save the origin."""
        path.write_text(json.dumps(asdict(self)))

    @property
    def validator(self) -> str | None:
        """Return the value of `If-Range`: a strong ETag, otherwise a date (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def may_equal(self, other: "DownloadSource") -> bool:
        """Return False if a field that both have differs. A partial response may omit fields that `If-Range` implies."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs)


def download(url: str, path: Path, config: DownloadConfig) -> None:
    """Download `url` to `path`. Continue a partial file of an earlier call. Proxies are set by environment variables.

    Raises:
        DownloadError: the file cannot be downloaded; the received part is kept for the next call.
        OSError: the file cannot be written.
    """
    if not is_address(url):
        raise DownloadError(f"{url}: not an address. Use the form http://server/name or https://server/name.")
    failures = 0
    while True:
        before = size_of(path)
        try:
            return resume_download(url, path, config)
        except ConnectionLostError as lost:
            failures = 1 if size_of(path) - before >= MIN_PROGRESS else failures + 1
            if failures >= config.max_tries:
                kept = f" The first {size_of(path) / 1e6:.1f} MB are kept." if size_of(path) else ""
                raise DownloadError(f"{url}: download failed, {lost}.{kept} Try again later.") from None
            pause = 2 ** (failures - 1)
            log(f"{lost}; trying again in {pause} s (attempt {failures + 1} of {config.max_tries})")
            time.sleep(pause)


def resume_download(url: str, path: Path, config: DownloadConfig) -> None:
    """Download the missing part of `path` over one connection, or the whole file if it cannot be resumed."""
    sidecar = sidecar_path(path)
    origin = DownloadSource.read(sidecar)
    # Without date, ETag and length, a changed file cannot be distinguished from the original one.
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
        response = connect(request, config)
    except HTTPError as error:
        if error.code == 416 and start:  # the file on the server is now shorter than the part here
            discard(path)
            return resume_download(url, path, config)
        raise DownloadError(http_error_message(url, error)) from None

    with response:
        if origin and start and response.status == 206:
            first_byte, length = content_range(response)
            if first_byte != start or not DownloadSource.from_response(url, response, length).may_equal(origin):
                log("the file on the server has changed; restarting the download")
                discard(path)
                return resume_download(url, path, config)
        else:
            if start:
                log("the server sends the file from its start: it has changed, or the server does not support resuming")
            start, length = 0, response.length
            path.write_bytes(b"")  # before the sidecar: an old part must never have a new origin
            DownloadSource.from_response(url, response, length).write(sidecar)
        receive(response, path, start, length, config)


def connect(request: Request, config: DownloadConfig) -> HTTPResponse:
    """Open the connection. Raise ConnectionLostError for temporary failures, HTTPError for permanent ones."""
    try:
        return urlopen(request, timeout=config.stall_timeout)
    except HTTPError as error:
        if error.code in RETRY_STATUSES:
            raise ConnectionLostError(f"the server answered {error.code} {error.reason}") from None
        raise
    except (OSError, HTTPException) as error:
        raise ConnectionLostError(reason(error, config)) from None


def receive(response: HTTPResponse, path: Path, start: int, length: int | None, config: DownloadConfig) -> None:
    """Append the body to `path`, which has `start` of `length` bytes."""
    if length and length > config.size_limit:
        raise DownloadError(size_error_message(response.url, length, config))
    with path.open("ab") as file, TransferProgress(start, length) as progress:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise ConnectionLostError(reason(error, config)) from None
            if not chunk:
                break
            file.write(chunk)
            file.flush()  # so that a kill loses nothing
            progress.add(len(chunk))
            if progress.received > config.size_limit:
                raise DownloadError(size_error_message(response.url, progress.received, config))
    if length and progress.received < length:
        raise ConnectionLostError(f"the connection closed after {progress.received} of {length} bytes")


def is_address(url: str) -> bool:
    """Return True if `url` is a valid HTTP address: ASCII without blanks, a server, and a numeric port if any."""
    try:
        parts = urlsplit(url)
        return bool(re.fullmatch("https?://[!-~]+", url) and parts.hostname and parts.port != 0)
    except ValueError:
        return False


def content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """Return first byte and total length from `Content-Range`, None for each that is missing."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def sidecar_path(path: Path) -> Path:
    """Return the path of the file that stores the `DownloadSource` of `path`."""
    return path.with_name(f"{path.name}.origin")


def discard(path: Path) -> None:
    """Remove a partial or complete download and its sidecar."""
    path.unlink(missing_ok=True)
    sidecar_path(path).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def reason(error: OSError | HTTPException, config: DownloadConfig) -> str:
    """Return why a connection was lost."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no data for {config.stall_timeout:g} s"
    return getattr(cause, "strerror", None) or str(cause)


def http_error_message(url: str, error: HTTPError) -> str:
    """Return the error message for a permanent failure."""
    advice = "Try again later, or use a mirror (see --help); published addresses have moved before."
    return f"{url}: the server answered {error.code} {error.reason}. {advice}"


def size_error_message(url: str, size: int, config: DownloadConfig) -> str:
    """Return the error message for a file above the size limit."""
    gigabytes = f"{size / 1e9:.3g} GB, above the limit of {config.size_limit / 1e9:g}"
    return f"{url}: at least {gigabytes}. Set CUT_SIZE_LIMIT_GB to raise the limit."
