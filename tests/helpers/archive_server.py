"""An HTTP server that serves archives and injects faults, and functions that run the download scripts."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class ArchiveServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}  # by path
        self.asked: list[str | None] = []  # the Range of each request, in order
        self.paths: list[str] = []  # the path of each request as it came
        self.statuses: list[int] = []  # answered to the next requests in place of the file
        self.cuts: list[int] = []  # bytes after which the next bodies are cut off
        self.stall_after: int | None = None  # bytes after which a body waits for `go_on`
        self.go_on = threading.Event()
        self.knows_ranges = True
        self.minds_if_range = True
        self.tells_length = True
        self.repeats_tag = True  # also in answers to a Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "ArchiveServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        server.paths.append(self.path)
        body = server.files.get(urlsplit(self.path).path)
        if body is None:
            return self.send_error(404)
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        tag = f'"{hashlib.sha1(body).hexdigest()}"'
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.knows_ranges else 0
        if server.minds_if_range and self.headers["If-Range"] not in (None, tag):
            start = 0
        if start >= len(body) > 0:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if server.repeats_tag or not start:
            self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.send_body(body[start:])

    def send_body(self, body: bytes) -> None:
        server = self.server
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        if server.stall_after is not None:
            self.wfile.write(body[: server.stall_after])
            self.wfile.flush()
            body = body[server.stall_after :]
            server.go_on.wait(30)
        with suppress(OSError):  # the client may have gone
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def zip_of(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return archive.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def run_script(script: Path, *arguments: str, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a download script in a shell until it ends."""
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, env=clean_environment(environment), capture_output=True, text=True, timeout=60)


def clean_environment(changes: dict[str, str | Path]) -> dict[str, str]:
    """Return the environment of this process without proxies and with one download attempt, updated by `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"PYTHON": sys.executable, "CUT_DOWNLOAD_TRIES": "1"} | {k: str(v) for k, v in changes.items()}
